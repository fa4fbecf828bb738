"""Routes: which layers run, in which order, on which scale; decoded from genes and read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.config import load_recipe, load_search_file
from evomerge.errors import InputError, SearchFileError
from evomerge.recipe import passthrough, recipe_from_mapping
from evomerge.space import SearchSpace, build_space
from tests.space.files import problems

A, B, C = "org/a", "org/b", "org/c"
LENDING = {"merge_method": "passthrough", "models": [{"model": A}, {"model": B}]}
SOLO = {"merge_method": "passthrough", "models": [{"model": A}]}
MERGE = {
    "merge_method": "task_arithmetic",
    "base_model": C,
    "models": [{"model": A}, {"model": B}],
    "parameters": {"weight": {"search": [0.0, 1.0], "per": ["model"]}},
}


def space(merge: dict[str, Any], layers: int = 4, depths: dict[str, int] | None = None, **route: Any) -> SearchSpace:
    given = {"sources": [entry["model"] for entry in merge["models"]], **route}
    if given.get("scales") and "scale_by" not in given and given.get("preset") in ("repeat_block", "interleave"):
        given["scale_by"] = "jump"
    return build_space(merge, layers=layers, modules={}, route=given, depths=depths)


def point(space: SearchSpace, **values: float) -> np.ndarray:
    """The start, with some genes (by the end of their names, '_' for '.') at other values."""
    x = space.start()
    assert x is not None
    for name, value in values.items():
        (gene,) = (i for i, found in enumerate(space.names) if found.endswith("." + name.replace("_", ".")))
        x[gene] = space.genes[gene].coordinate(value)
    return x


def layers(space: SearchSpace, x: np.ndarray) -> str:
    """The layers that run, as in 'a0 a1 b1', m for the merged model's."""
    hops = space.decode(x).route
    return "plain" if hops is None else " ".join(f"{source[-1] if '/' in source else 'm'}{n}" for source, n, _ in hops)


def scales(space: SearchSpace, x: np.ndarray) -> list[float]:
    return [scale for _, _, scale in space.decode(x).route or ()]


def switched(space: SearchSpace, *on: int) -> np.ndarray:
    """The point of indicators at which exactly these slots run."""
    return np.array([0.75 if gene in on else 0.25 for gene in range(space.dimension)])


# --- the indicator array ---------------------------------------------------------------------------------------------


def test_the_path_of_the_reference() -> None:
    """A of two layers, B of two, twice: I = (.3, .2, -1, .5, -.1, .4, .9, .1) runs A0, A1, B1, A1, B0, B1."""
    found = space(LENDING, layers=2, repeats=2)
    assert found.names == tuple(f"route.keep.slot{slot}" for slot in range(8))
    indicators = np.array([0.3, 0.2, -1.0, 0.5, -0.1, 0.4, 0.9, 0.1])
    assert layers(found, 0.5 + indicators / 4) == "a0 a1 b1 a1 b0 b1"
    assert scales(found, 0.5 + indicators / 4) == [1.0] * 6


def test_a_route_of_the_first_model_is_that_model() -> None:
    """Positive indicators on A's own slots only: the recipe, and so its digest, is A's as a parent is written."""
    found = space(LENDING, repeats=2)
    assert found.decode(switched(found, 0, 1, 2, 3)) == passthrough(A)
    assert found.decode(switched(found, 8, 9, 10, 11)) == passthrough(A)  # its second copy
    assert found.decode(switched(found, 0, 1, 10, 11)) == passthrough(A)
    assert found.decode(found.start()) == passthrough(A)
    other = found.decode(switched(found, 4, 5, 6, 7))  # B's layers between A's embeddings and A's head are not B
    assert other.route == tuple((B, layer, 1.0) for layer in range(4))


def test_the_base_lends_what_is_outside_the_layers() -> None:
    """With a base_model the plain stack is the base's, whether it is among the sources or not."""
    merge = {**LENDING, "base_model": C}
    found = space(merge, layers=2)
    assert found.decode(found.start()).route == ((A, 0, 1.0), (A, 1, 1.0))
    found = build_space(merge, layers=2, modules={}, route={"sources": [A, C]})
    assert found.decode(switched(found, 2, 3)) == passthrough(C)
    assert found.decode(found.encode(passthrough(C))) == passthrough(C)
    assert found.decode(switched(found, 0, 3)).references() == (C, A, B)


def test_a_route_of_the_merged_stack_is_no_route() -> None:
    merge = {**MERGE, "models": [{"model": A}, {"model": B}]}
    routed = build_space(merge, layers=4, modules={}, route={"sources": ["merged", A]}, mask_seed=3)
    plain = build_space(merge, layers=4, modules={}, mask_seed=3)
    x = routed.start()
    assert routed.decode(x).route is None
    assert routed.decode(x).digest == plain.decode(x[:2]).digest
    x[2 + 4] = 0.9  # the first layer of A, after the merged ones
    assert layers(routed, x) == "m0 m1 m2 m3 a0"
    assert routed.decode(x).digest != plain.decode(x[:2]).digest


def test_the_only_model_of_a_passthrough_is_the_merged_one() -> None:
    found = space(SOLO, preset="select")
    assert found.decode(found.start()) == passthrough(A)
    assert found.decode(switched(found, 0, 3)).route == (("merged", 0, 1.0), ("merged", 3, 1.0))


def test_equal_routes_of_other_slots_have_one_digest() -> None:
    found = space(LENDING, layers=2, repeats=2)
    assert found.decode(switched(found, 0, 5)).digest == found.decode(switched(found, 4, 5)).digest
    assert found.decode(switched(found, 0, 1, 5)).digest != found.decode(switched(found, 0, 5)).digest


def test_a_digest_names_contents_and_not_paths() -> None:
    route = {"sources": [A, B]}
    here = build_space(LENDING, layers=2, modules={}, route=route, revisions={A: "1", B: "2"})
    moved = {"merge_method": "passthrough", "models": [{"model": "x/a"}, {"model": "x/b"}]}
    route = {"sources": ["x/a", "x/b"]}
    there = build_space(moved, layers=2, modules={}, route=route, revisions={"x/a": "1", "x/b": "2"})
    assert here.decode(switched(here, 0, 3)).digest == there.decode(switched(there, 0, 3)).digest


@pytest.mark.parametrize(
    ("x", "path"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.95, 0.55], "a0 a1 b1"),  # the three highest, in the order of slots
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9], "a1 a2 b0"),  # of equals the earlier
        ([0.1, 0.4, 0.2, 0.1, 0.3, 0.2], "a1 b1"),  # none is on: the highest join, up to the fewest
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.5], "a0 b2"),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "a0 a1"),
    ],
)
def test_too_many_or_too_few_slots_are_mended(x: list[float], path: str) -> None:
    found = space(LENDING, layers=3, min_layers=2, max_layers=3)
    assert layers(found, np.array(x)) == path
    shown = found.phenotype(np.array(x)).values()  # what takes effect, not what the gene alone would say
    names = [f"{source}{layer}" for source in "ab" for layer in range(3)]
    assert [name for name, value in zip(names, shown, strict=True) if value] == path.split()


def test_an_empty_route_is_never_decoded() -> None:
    found = space(LENDING, layers=2)
    assert layers(found, np.array([0.1, 0.1, 0.2, 0.1])) == "b0"


def test_kept_layers_frame_every_route() -> None:
    found = space(LENDING, repeats=2, keep_first=1, keep_last=1)
    assert found.names == tuple(f"route.keep.slot{slot}" for slot in range(1, 9))
    assert layers(found, np.zeros(8)) == "a0 a3"
    assert layers(found, np.ones(8)) == "a0 a1 a2 b1 b2 a1 a2 b1 b2 a3"
    assert layers(found, found.start()) == "plain"


def test_a_start_that_is_too_long_is_thinned_evenly() -> None:
    found = space(LENDING, layers=9, max_layers=5)
    assert layers(found, found.start()) == "a0 a2 a4 a6 a8"
    assert layers(space(LENDING, layers=3, start=B), space(LENDING, layers=3, start=B).start()) == "b0 b1 b2"


def test_sources_of_other_depth() -> None:
    found = space(LENDING, layers=2, depths={A: 2, B: 3})
    assert found.dimension == 5
    assert layers(found, np.ones(5)) == "a0 a1 b0 b1 b2"


def test_a_fixed_number_of_layers_ranks_them() -> None:
    found = space(SOLO, layers=5, preset="select", min_layers=3, max_layers=3)
    assert found.names == tuple(f"route.keep.layer{layer}" for layer in range(5))
    assert layers(found, np.array([0.3, 0.1, 0.2, 0.05, 0.9])) == "m0 m2 m4"
    assert {gene.kind for gene in found.genes} == {"float"}


# --- other presets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "times", "path"),
    [
        (1, 3, 2, "m0 m1 m2 m1 m2 m3"),
        (1, 3, 3, "m0 m1 m2 m1 m2 m1 m2 m3"),
        (2, 2, 2, "m0 m1 m2 m1 m2 m3"),  # the wrong way round: the block from layer 1 to 2
        (3, 4, 3, "m0 m1 m2 m3 m3 m3"),
        (0, 4, 3, "m0 m1 m2 m3 m0 m1 m2 m3"),  # three runs would be twelve layers
        (1, 3, 1, "plain"),
    ],
)
def test_a_repeated_block(start: int, end: int, times: int, path: str) -> None:
    found = space(SOLO, preset="repeat_block", times=3, max_layers=8)
    x = point(found, start=start, end=end, times=times)
    assert layers(found, x) == path
    if path == "plain":
        assert found.phenotype(x) == {f"route.repeat.{name}": None for name in ("start", "end")} | {
            "route.repeat.times": 1
        }


def test_the_effective_block_is_shown() -> None:
    found = space(SOLO, preset="repeat_block", times=3, max_layers=8)
    shown = found.phenotype(point(found, start=3, end=1, times=3))
    assert shown == {"route.repeat.start": 0, "route.repeat.end": 4, "route.repeat.times": 2}


@pytest.mark.parametrize(
    ("size", "overlap", "first", "path"),
    [
        (2, 0, "a", "a0 a1 b2 b3"),
        (2, 1, "b", "b0 b1 a1 a2 b2 b3"),
        (3, 2, "a", "a0 a1 a2 b1 b2 b3"),
        (4, 2, "a", "plain"),
        (4, 0, "b", "b0 b1 b2 b3"),
        (3, 0, "a", "a0 a1 a2 b3"),
        (1, 2, "a", "a0 b1 a2 b3"),  # a block of one layer shares none
    ],
)
def test_interleaved_blocks(size: int, overlap: int, first: str, path: str) -> None:
    found = space(LENDING, preset="interleave")
    x = point(found, size=size, overlap=overlap)
    x[2] = found.genes[2].coordinate(first)
    assert layers(found, x) == path


def test_an_overlap_that_makes_the_route_too_long_shrinks() -> None:
    found = space(LENDING, layers=8, preset="interleave", max_layers=12)
    x = point(found, size=4, overlap=3)  # 4 + 4 blocks of 4 would be 20 layers; overlap 2 gives 4 + 4 + 4
    assert layers(found, x) == "a0 a1 a2 a3 b2 b3 b4 b5 a4 a5 a6 a7"
    assert found.phenotype(x)["route.interleave.overlap"] == 2


def test_swapped_layers() -> None:
    found = space(LENDING, preset="swap", keep_first=1)
    assert found.names == ("route.swap.layer1", "route.swap.layer2", "route.swap.layer3")
    assert layers(found, np.array([0.9, 0.1, 0.9])) == "a0 b1 a2 b3"
    assert layers(found, found.start()) == "plain"
    assert found.phenotype(np.array([0.9, 0.1, 0.9])) == dict(zip(found.names, "bab", strict=True))


# --- scales ----------------------------------------------------------------------------------------------------------


def test_scales_per_slot() -> None:
    found = space(LENDING, layers=2, scales=[0.5, 2.0])
    assert found.names[4:] == ("route.scale.slot1", "route.scale.slot2", "route.scale.slot3")
    x = point(found, scale_slot1=0.8, scale_slot2=1.25, scale_slot3=2)
    x[:4] = (0.1, 0.9, 0.1, 0.9)
    assert found.decode(x).route == ((A, 1, 1.0), (B, 1, 2.0))  # the first layer of a route has no predecessor
    shown = found.phenotype(x)
    assert (shown["route.scale.slot1"], shown["route.scale.slot2"], shown["route.scale.slot3"]) == (None, None, 2.0)


def test_a_table_of_scales() -> None:
    """W[i, j] over the layers a0 a1 b0 b1 = 0 1 2 3; with two copies every layer can follow every layer."""
    found = space(LENDING, layers=2, repeats=2, scales=[0.5, 2.0], scale_by="table")
    assert found.dimension == 8 + 16
    once = space(LENDING, layers=2, scales=[0.5, 2.0], scale_by="table")
    assert found.names[8] == "route.scale.from0.to0"
    assert [name[12:] for name in once.names[4:]] == [
        "from0.to1", "from0.to2", "from0.to3", "from1.to2", "from1.to3", "from2.to3",
    ]  # fmt: skip
    x = point(found, from0_to3=0.8, from3_to0=1.25, from3_to3=2)
    x[:8] = np.where([1, 0, 0, 1, 1, 0, 0, 1], 0.9, 0.1)  # a0 b1 a0 b1
    assert found.decode(x).route == ((A, 0, 1.0), (B, 1, 0.8), (A, 0, 1.25), (B, 1, 0.8))


def test_one_scale_for_every_jump() -> None:
    found = space(SOLO, preset="repeat_block", times=3, scales=[0.5, 2.0])
    x = point(found, start=1, end=3, times=3, jump=0.8)
    assert scales(found, x) == [1.0, 1.0, 1.0, 0.8, 1.0, 0.8, 1.0, 1.0]


def test_a_network_makes_scales() -> None:
    """log scale = bias + weights . tanh(units . (i, j, t, 1)), as the five-line loop says it."""
    found = space(LENDING, layers=2, scales=[0.5, 2.0], scale_by="network", hidden=2)
    assert found.names[4:] == ("route.network.bias", "route.network.unit0", "route.network.unit1")
    assert found.decode(found.start()).route is None
    x = np.array([0.9, 0.1, 0.9, 0.9, 0.7, 0.2, 0.6])
    units = found.route.scales._units
    bias, *weights = np.log(2.0) * (2 * x[4:] - 1)
    for t, (i, j) in enumerate([(0, 2), (2, 3)], start=1):
        inputs = np.array([2 * i / 3 - 1, 2 * j / 3 - 1, 2 * t / 2 - 1, 1.0])
        exact = np.exp(bias + sum(w * np.tanh(unit @ inputs) for w, unit in zip(weights, units, strict=True)))
        assert scales(found, x)[t] == float(f"{exact:.6g}")
    assert np.abs(units).max() <= 2
    assert units[0].tolist() == space(LENDING, scales=[0.5, 2], scale_by="network").route.scales._units[0].tolist()


# --- there and back --------------------------------------------------------------------------------------------------

SPACES = {
    "indicators": space(LENDING, layers=3, repeats=2),
    "framed": space(LENDING, layers=4, repeats=3, keep_first=1, keep_last=1, min_layers=4, max_layers=7),
    "per slot": space(LENDING, layers=3, repeats=2, scales=[0.5, 1.5]),
    "negative scales": space(LENDING, layers=3, scales=[-1.0, 1.5]),
    "table": space(LENDING, layers=2, repeats=2, scales=[0.5, 2.0], scale_by="table"),
    "network": space(LENDING, layers=5, repeats=2, scales=[0.4, 1.5], scale_by="network", hidden=5),
    "jumps": space(LENDING, layers=3, repeats=2, scales=[0.5, 2.0], scale_by="jump"),
    "select": space(SOLO, layers=6, preset="select", min_layers=2, keep_first=1),
    "select some": space(SOLO, layers=6, preset="select", min_layers=4, max_layers=4),
    "repeat": space(SOLO, layers=6, preset="repeat_block", times=4, keep_last=1, max_layers=14, scales=[0.5, 2.0]),
    "interleave": space(LENDING, layers=7, preset="interleave", scales=[0.5, 2.0]),
    "interleave three": space({**SOLO, "models": [{"model": m} for m in (A, B, C)]}, layers=5, preset="interleave"),
    "swap": space(LENDING, layers=5, preset="swap", scales=[0.5, 2.0], scale_by="table"),
    "with weights": build_space(MERGE, layers=3, modules={}, route={"sources": ["merged", A], "repeats": 2}),
}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_was_decoded_encodes_and_decodes_to_itself(name: str, data: st.DataObject) -> None:
    found = SPACES[name]
    edge = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    x = np.array(data.draw(st.lists(edge | st.floats(0, 1), min_size=found.dimension, max_size=found.dimension)))
    recipe = found.decode(x)
    assert found.decode(found.encode(recipe)) == recipe
    assert recipe_from_mapping(recipe.to_mapping()) == recipe
    request = found.route.request
    length = 0 if recipe.route is None else len(recipe.route)
    assert recipe.route is None or request.min_layers <= length <= (request.max_layers or length)
    assert recipe.route is None or all(0 <= layer < request.depths[A] for _, layer, _ in recipe.route)


def test_the_space_of_the_paper() -> None:
    """Two models of 32 layers, three copies: 192 slots, and W as a table (4096 genes) or a network's weights."""
    sizes = {}
    for form in ("table", "network"):
        found = space(LENDING, layers=32, repeats=3, scales=[0.5, 2.0], scale_by=form)
        sizes[form] = found.dimension
        recipe = found.decode(np.random.default_rng(1).random(found.dimension))
        assert 60 < len(recipe.route or ()) < 130
        assert found.decode(found.encode(recipe)) == recipe
    assert sizes == {"table": 192 + 4096, "network": 192 + 5}


@pytest.mark.parametrize("name", SPACES)
def test_many_points_of_every_space_survive(name: str) -> None:
    found, random = SPACES[name], np.random.default_rng(5)
    for _ in range(200):
        recipe = found.decode(random.random(found.dimension))
        assert found.decode(found.encode(recipe)) == recipe


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ([("org/z", 0, 1.0)], "unknown source 'org/z'"),
        ([(A, 0, 0.5)], "must begin with a hop of scale 1"),
        ([(A, 1, 1.0), (A, 0, 1.0)], "preset indicators cannot run these 2 layers in this order"),
        ([(A, 0, 1.0), (A, 1, 0.9)], "must be 1 in this search space, got 0.9"),
        ([(A, 9, 1.0)], "cannot run these 1 layers"),
    ],
)
def test_a_route_outside_is_refused_by_name(route: list[Any], message: str) -> None:
    found = space(LENDING, layers=2)
    with pytest.raises(InputError, match=message):
        found.encode(recipe_from_mapping({**LENDING, "route": route}))


def test_one_gene_has_one_scale() -> None:
    found = space(SOLO, preset="repeat_block", times=3, scales=[0.5, 2.0])
    hops = [("merged", layer, 1.0) for layer in (0, 1, 2, 3)]
    route = [*hops[:2], ("merged", 1, 0.8), ("merged", 1, 0.9), *hops[2:]]
    with pytest.raises(InputError, match=r"route.scale.jump is one value for several hops, got 0.8 and 0.9"):
        found.encode(recipe_from_mapping({**SOLO, "route": route}))


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({"keep_first": 2, "keep_last": 2}, "keep_first and keep_last keep 4 layers, and 'a' has 4; keep fewer"),
        ({"keep_first": 2, "max_layers": 1}, "must be at least 2, got 1: keep_first and keep_last alone make 2 layers"),
        ({"preset": "swap", "max_layers": 3}, "must be at least 4, got 3: every route of swap has at least 4 layers"),
        ({"preset": "interleave", "depths": {B: 5}}, "needs equally deep sources, got a 4, b 5 layers"),
    ],
)
def test_a_route_that_does_not_fit_the_models(route: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchFileError) as caught:
        space(LENDING, **route)
    assert message in str(caught.value)


FILE = """\
merge:
  merge_method: passthrough
  models: [{model: ../experts/add}, {model: ../experts/sort}]
route: {sources: [ROUTED], repeats: 2}
objectives:
  - {task: add}
budget: {candidates: 10}
"""


def test_sources_may_be_written_as_in_the_merge_section_or_shortly(write, folder) -> None:
    for words in ("add, sort", "../experts/add, ../experts/sort"):
        loaded = load_search_file(write(FILE.replace("ROUTED", words)))
        assert loaded.route == {
            "sources": [str(folder.parent / "experts" / name) for name in ("add", "sort")],
            "repeats": 2,
        }
    assert loaded.space(layers=3, modules={}).dimension == 12


def test_there_is_no_merged_model_of_several_that_only_lend(write) -> None:
    (found,) = problems(write(FILE.replace("ROUTED", "merged")))
    assert "line 4, route.sources[0]: passthrough of several models has no merged model" in found


def test_several_models_of_a_passthrough_need_a_route(write) -> None:
    found = problems(write(FILE.replace("route: {sources: [ROUTED], repeats: 2}\n", "")))
    assert any("passthrough merges 1 model, got 2" in problem for problem in found)


def test_depth_problems_have_lines(write) -> None:
    loaded = load_search_file(write(FILE.replace("repeats: 2", "keep_first: 3").replace("ROUTED", "add, sort")))
    with pytest.raises(SearchFileError, match="line 4, route: keep_first and keep_last keep 3 layers"):
        loaded.space(layers=3, modules={})


RECIPE = """\
merge_method: passthrough
models: [{model: ../experts/add}, {model: ../experts/sort}]
route: [[../experts/add, 0, 1], [../experts/sort, 1, 0.5]]
"""


def test_a_recipe_with_a_route_is_read(write, folder) -> None:
    recipe = load_recipe(write(RECIPE))
    add, sort = (str(folder.parent / "experts" / name) for name in ("add", "sort"))
    assert recipe.route == ((add, 0, 1.0), (sort, 1, 0.5))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("[[../experts/add, 0, 1], [../experts/sort, 1, 0.5]]", "[]", "route: must be a list of at least one hop"),
        ("[../experts/add, 0, 1]", "[../experts/spell, 0, 1]", "route[0][0]: unknown source '../experts/spell'"),
        ("[../experts/add, 0, 1]", "[../experts/add, 0]", "route[0]: must be [source, layer, scale]"),
        ("[../experts/add, 0, 1]", "[../experts/add, -1, 1]", "route[0][1]: must be a layer's number"),
        ("0.5]]", ".nan]]", "route[1][2]: must be a finite number, got nan"),
    ],
)
def test_a_recipe_with_a_wrong_route(write, right: str, wrong: str, message: str) -> None:
    found = problems(write(RECIPE.replace(right, wrong, 1)), load_recipe)
    assert any(message in problem for problem in found), found
