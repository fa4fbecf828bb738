from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError, SearchFileError
from evomerge.recipe import recipe_from_mapping
from evomerge.space import build_space

MODULES = {"attention": (".self_attn.",), "mlp": (".mlp.", ".experts.")}
MERGE = {
    "merge_method": "ties",
    "base_model": "../experts/base",
    "models": [{"model": f"../experts/{name}"} for name in ("add", "sort", "spell")],
    "parameters": {
        "weight": {"search": [0.0, 1.5], "per": ["model", {"blocks": 4}]},
        "density": {"search": [0.1, 1.0], "per": ["model", {"blocks": 4}]},
        "lambda": 1.0,
        "normalize": False,
    },
    "dtype": "float32",
}


def space_of(text: str, layers: int = 8):
    return build_space(yaml.safe_load(text), layers=layers, modules=MODULES)


def ties(parameters: str, method: str = "ties") -> str:
    models = "[{model: o/x}, {model: o/y}]"
    return f"{{merge_method: {method}, base_model: o/b, models: {models}, parameters: {{{parameters}}}}}"


def point(space, **values):
    """The genotype in the middle, with some genes at the values given by name (dots as in the name)."""
    genotype = np.full(space.dimension, 0.5)
    for name, value in values.items():
        index = space.names.index(name.replace("__", "."))
        genotype[index] = space.genes[index].coordinate(value)
    return genotype


def test_the_example_of_the_design_has_24_genes_with_these_names():
    space = build_space(MERGE, layers=8, modules=MODULES)
    assert space.dimension == 24
    assert space.names == tuple(
        f"{parameter}.{model}.block{block}"
        for parameter in ("weight", "density")
        for model in ("add", "sort", "spell")
        for block in range(4)
    )


def test_blocks_are_runs_of_layers_and_the_recipe_is_plain_mergekit():
    space = build_space(MERGE, layers=6, modules=MODULES)  # 6 layers in 4 blocks: 2, 1, 2, 1
    genotype = point(space, weight__add__block0=0.1, weight__add__block1=0.2, weight__add__block2=0.3)
    document = space.decode(genotype).to_mergekit()
    assert document["models"][0]["parameters"]["weight"] == [0.1, 0.1, 0.2, 0.3, 0.3, 0.75]
    assert document["parameters"] == {"lambda": 1.0, "normalize": False}
    assert [entry["model"] for entry in document["models"]] == [f"../experts/{n}" for n in ("add", "sort", "spell")]


@pytest.mark.parametrize(
    ("per", "names"),
    [
        ("", ["weight"]),
        (", per: model", ["weight.x", "weight.y"]),
        (", per: [model]", ["weight.x", "weight.y"]),
        (", per: [layer]", ["weight.layer0", "weight.layer1", "weight.layer2"]),
        (", per: [{blocks: 2}]", ["weight.block0", "weight.block1"]),
        (", per: [{blocks: 1}]", ["weight.block0"]),
        (", per: [{knots: 2}]", ["weight.knot0", "weight.knot1"]),
        (", per: [{modules: [attention, mlp, other]}]", ["weight.attention", "weight.mlp", "weight.other"]),
        (", per: [{modules: [other, mlp]}]", ["weight.mlp", "weight.other"]),
        (", per: [{filters: [q_proj]}]", ["weight.q_proj", "weight.other"]),
        (
            ", per: [{filters: [mlp]}, {knots: 2}, model]",
            [f"weight.{m}.knot{k}.{f}" for m in "xy" for f in ("mlp", "other") for k in (0, 1)],
        ),
    ],
)
def test_names_say_what_a_gene_is_for(per, names):
    assert list(space_of(ties(f"weight: {{search: [0, 1]{per}}}"), layers=3).names) == names


def test_modules_become_filters_with_the_rest_last():
    space = space_of(ties("weight: {search: [0, 1], per: [{modules: [other, attention, mlp]}]}"))
    recipe = space.decode(point(space, weight__attention=0.1, weight__mlp=0.2, weight__other=0.3))
    assert recipe.to_mergekit()["parameters"]["weight"] == [
        {"filter": ".self_attn.", "value": 0.1},
        {"filter": ".mlp.", "value": 0.2},
        {"filter": ".experts.", "value": 0.2},
        {"value": 0.3},
    ]


def test_modules_without_other_leave_the_default_to_the_rest():
    space = space_of(ties("weight: 1.0, density: {search: [0, 1], per: [{modules: [mlp]}]}"))
    assert [entry["filter"] for entry in space.decode(np.array([0.5])).to_mergekit()["parameters"]["density"]] == [
        ".mlp.",
        ".experts.",
    ]
    with pytest.raises(SearchFileError, match="weight has no default; add other"):
        space_of(ties("weight: {search: [0, 1], per: [{modules: [mlp]}]}"))


def test_markers_stand_inside_gradients_and_filters():
    space = space_of(
        ties("weight: [{filter: mlp, value: [0.5, {search: [0, 1], per: [model]}]}, {value: {search: [0, 2]}}]")
    )
    assert space.names == ("weight.x.knot1.mlp", "weight.x.other", "weight.y.knot1.mlp", "weight.y.other")
    recipe = space.decode(np.array([0.25, 0.5, 0.75, 1.0]))
    assert recipe.to_mergekit()["models"][1]["parameters"]["weight"] == [
        {"filter": "mlp", "value": [0.5, 0.75]},
        {"value": 2.0},
    ]


def test_equal_filters_of_one_list_get_names_of_their_own():
    space = space_of(
        ties("weight: [{filter: a, value: {search: [0, 1]}}, {filter: a, value: {search: [0, 2]}}, {value: 1}]")
    )
    assert space.names == ("weight.a", "weight.a_2")


def test_a_models_own_setting_wins():
    text = """{merge_method: ties, base_model: o/b, models: [{model: o/x, parameters: {weight: 0.25}}, {model: o/y}],
               parameters: {weight: {search: [0, 1], per: [model]}}}"""
    space = space_of(text)
    assert space.names == ("weight.y",)
    assert space.decode(np.array([1.0])).to_mergekit()["models"] == [
        {"model": "o/x", "parameters": {"weight": 0.25}},
        {"model": "o/y", "parameters": {"weight": 1.0}},
    ]


def test_the_base_gets_no_genes_where_the_method_starts_from_it():
    text = """{{merge_method: {}, base_model: o/b, models: [{{model: o/b}}, {{model: o/y}}],
               parameters: {{weight: {{search: [0, 1], per: [model]}}}}}}"""
    assert space_of(text.format("ties")).names == ("weight.y",)
    assert space_of(text.format("linear")).names == ("weight.b", "weight.y")


def test_a_choice_of_methods_drops_what_the_chosen_one_does_not_know():
    space = space_of(
        """{merge_method: {search: [linear, ties]}, base_model: o/b, models: [{model: o/x}, {model: o/y}],
            parameters: {weight: {search: [0, 1], per: [model]}, density: {search: [0.1, 1]}, lambda: 0.5}}"""
    )
    assert space.names == ("merge_method", "weight.x", "weight.y", "density")
    assert [gene.when for gene in space.genes] == [None, None, None, ("merge_method", ("ties",))]
    linear, with_ties = space.decode(np.array([0.25, 0, 1, 0.5])), space.decode(np.array([0.75, 0, 1, 0.5]))
    assert linear.to_mergekit() == {
        "merge_method": "linear",
        "models": [{"model": "o/x", "parameters": {"weight": 0.0}}, {"model": "o/y", "parameters": {"weight": 1.0}}],
    }
    assert with_ties.base == "o/b"
    assert with_ties.to_mergekit()["parameters"] == {"density": 0.55, "lambda": 0.5}
    assert space.phenotype(np.array([0.25, 0, 1, 0.5])) == {
        "merge_method": "linear", "weight.x": 0.0, "weight.y": 1.0, "density": None,
    }  # fmt: skip
    assert space.decode(space.encode(linear)) == linear


def test_a_listed_base_takes_part_under_some_methods_only():
    space = space_of(
        """{merge_method: {search: [linear, ties]}, base_model: o/b, models: [{model: o/b}, {model: o/y}],
            parameters: {weight: {search: [0, 1], per: [model]}}}"""
    )
    assert space.genes[1].name == "weight.b"
    assert space.genes[1].when == ("merge_method", ("linear",))
    assert space.decode(np.array([0.75, 1, 1])).to_mergekit()["models"][0] == {"model": "o/b"}
    assert space.decode(np.array([0.25, 1, 1])).to_mergekit()["models"][0]["parameters"] == {"weight": 1.0}


def test_slices_have_their_own_genes_and_lengths():
    space = space_of(
        """{merge_method: slerp, base_model: o/b, slices: [
              {sources: [{model: o/b, layer_range: [0, 3]}, {model: o/y, layer_range: [1, 4]}],
               parameters: {t: {search: [0, 1], per: [layer]}}},
              {sources: [{model: o/b, layer_range: [3, 8]}, {model: o/y, layer_range: [3, 8]}],
               parameters: {t: {search: [0, 1], per: [{blocks: 2}]}}}]}"""
    )
    assert space.names == (
        "slice0.t.layer0",
        "slice0.t.layer1",
        "slice0.t.layer2",
        "slice1.t.block0",
        "slice1.t.block1",
    )
    slices = space.decode(np.array([0, 0.25, 0.5, 0.75, 1])).to_mergekit()["slices"]
    assert slices[0]["parameters"]["t"] == [0.0, 0.25, 0.5]
    assert slices[1]["parameters"]["t"] == [0.75, 0.75, 0.75, 1.0, 1.0]


def test_models_of_slices_share_the_genes_of_the_whole_merge():
    space = space_of(
        """{merge_method: ties, base_model: o/b, slices: [
              {sources: [{model: o/b, layer_range: [0, 4]}, {model: o/y, layer_range: [0, 4]}]},
              {sources: [{model: o/b, layer_range: [4, 8]}, {model: o/y, layer_range: [4, 8]}],
               parameters: {density: {search: [0, 1], per: [model]}}}],
            parameters: {weight: {search: [0, 1], per: [model, {knots: 2}]}}}"""
    )
    assert space.names == ("slice1.density.y", "weight.y.knot0", "weight.y.knot1")
    slices = space.decode(np.array([0.5, 0, 1])).to_mergekit()["slices"]
    assert [part["sources"][1]["parameters"]["weight"] for part in slices] == [[0.0, 1.0], [0.0, 1.0]]
    assert slices[1]["sources"][1]["parameters"]["density"] == 0.5
    assert "parameters" not in slices[0]["sources"][0]


def test_bounds_of_layers_can_be_searched():
    space = space_of(
        """{merge_method: passthrough, slices: [
              {sources: [{model: o/x, layer_range: [0, {search: [4, 8], integer: true}]}]},
              {sources: [{model: o/x, layer_range: [{search: [1, 4], integer: true}, 8]}]}]}"""
    )
    assert space.names == ("slice0.layer_range.x.end", "slice1.layer_range.x.first")
    recipe = space.decode(np.array([1.0, 0.0]))
    assert [source.layers for part in recipe.slices for source in part.sources] == [(0, 8), (1, 8)]
    assert space.decode(space.encode(recipe)) == recipe


def test_start_is_where_markers_say_and_the_middle_elsewhere():
    space = space_of(ties("weight: {search: [0, 2], start: 0.5}, density: {search: [0, 1]}"))
    assert space.start().tolist() == [0.25, 0.5]
    assert space_of(ties("weight: {search: [0, 2]}")).start() is None


def test_words_and_switches_can_be_searched():
    space = build_space(
        yaml.safe_load(
            """{merge_method: dare_ties, base_model: o/b, models: [{model: o/x}], dtype: {search: [float32, bfloat16]},
                parameters: {weight: 1, normalize: {search: [true, false]}, rescale_norm: {search: [l1, inv]}}}"""
        ),
        layers=2,
        modules=MODULES,
    )
    assert space.names == ("dtype", "normalize", "rescale_norm")
    recipe = space.decode(np.array([0.75, 0.25, 0.75]))
    assert recipe.dtype == "bfloat16"
    assert dict(recipe.parameters) == {"normalize": True, "rescale_norm": "inv", "weight": 1.0}
    assert space.decode(space.encode(recipe)) == recipe


def test_numbers_can_be_chosen_among():
    space = space_of(ties("weight: {search: {choices: [0.5, 1]}, per: [{knots: 2}]}"))
    assert space.phenotype(np.array([0.1, 0.9])) == {"weight.knot0": 0.5, "weight.knot1": 1}


def test_parameters_that_are_whole_numbers_get_whole_numbers():
    space = space_of(
        "{merge_method: karcher, models: [{model: o/x}, {model: o/y}], parameters: {max_iter: {search: [1, 3]}}}"
    )
    assert [space.phenotype(np.array([x]))["max_iter"] for x in (0.0, 0.5, 1.0)] == [1, 2, 3]


def test_a_merge_without_markers_is_a_space_of_one_recipe():
    text = ties("weight: 0.5")
    space = space_of(text)
    assert space.dimension == 0
    assert space.decode(np.zeros(0)) == recipe_from_mapping(yaml.safe_load(text))
    assert space.encode(space.decode(np.zeros(0))).shape == (0,)


def test_mask_seed_and_revisions_go_into_every_recipe():
    merge = yaml.safe_load(ties("weight: {search: [0, 1]}"))
    space = build_space(merge, layers=2, modules={}, mask_seed=5, revisions={"o/x": "abc", "o/z": "unused"})
    recipe = space.decode(np.array([0.5]))
    assert (recipe.mask_seed, recipe.revisions) == (5, (("o/x", "abc"),))
    assert space.encode(recipe).tolist() == [0.5]
    assert space.encode(replace(recipe, revisions=())).tolist() == [0.5]  # written before they were known
    with pytest.raises(InputError, match="other revisions"):
        space.encode(replace(recipe, revisions=(("o/x", "def"),)))


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ([0.5], r"shape \(2,\), one number per gene, got \(1,\)"),
        ([[0.5, 0.5]], r"got \(1, 2\)"),
        ([0.5, 1.5], "got 1.5 for gene 'density'"),
        ([np.nan, 0.5], "got nan for gene 'weight'"),
    ],
)
def test_points_outside_the_cube_are_refused(genotype, message):
    space = space_of(ties("weight: {search: [0, 1]}, density: {search: [0, 1]}"))
    with pytest.raises(InputError, match=message):
        space.decode(np.array(genotype))


def test_recipes_of_other_spaces_are_refused():
    space = space_of(ties("weight: {search: [0, 1], per: [{blocks: 2}]}"), layers=4)
    recipe = space.decode(np.array([0.25, 0.75]))
    with pytest.raises(InputError, match=r"parameters\.weight\[1\] must be the value 0\.25, as elsewhere, got 0\.3"):
        space.encode(replace(recipe, parameters=(("weight", (0.25, 0.3, 0.75, 0.75)),)))
    with pytest.raises(InputError, match=r"weight.block1 must be a number in \[0, 1\], got 1\.5"):
        space.encode(replace(recipe, parameters=(("weight", (0.25, 0.25, 1.5, 1.5)),)))
    with pytest.raises(InputError, match="merge_method must be like 'ties', got 'della'"):
        space.encode(replace(recipe, method="della"))
    with pytest.raises(InputError, match="outside this search space"):
        space.encode(replace(recipe, parameters=(("weight", 0.25),)))


def test_building_does_not_change_the_document():
    before = copy.deepcopy(MERGE)
    build_space(MERGE, layers=8, modules=MODULES)
    assert before == MERGE


# random documents ---------------------------------------------------------------------------------------------------

DEPTHS = ["layer", {"blocks": 2}, {"blocks": 3}, {"knots": 1}, {"knots": 4}]
GROUPS = [{"modules": ["attention", "mlp", "other"]}, {"filters": ["q_proj", "mlp"]}]


@st.composite
def markers(draw, low: float = -2.0, high: float = 2.0, per_model: bool = True):
    ends = sorted(draw(st.tuples(st.floats(low, high), st.floats(low, high)).filter(lambda pair: pair[0] != pair[1])))
    per = [
        axis
        for axes in (DEPTHS, GROUPS, ["model"] * per_model)
        if axes and (axis := draw(st.sampled_from([None, *axes])))
    ]
    marker = {"search": ends, **({"per": per} if per else {})}
    if ends[0] > 0 and draw(st.booleans()):
        marker["scale"] = "log"
    return marker


@st.composite
def documents(draw):
    models = [{"model": f"org/{name}"} for name in draw(st.sampled_from(["ab", "abc"]))]
    if draw(st.booleans()):
        models[0]["parameters"] = {"weight": draw(markers(per_model=False))}
    methods = st.sampled_from(["ties", "dare_ties", "task_arithmetic", "breadcrumbs", "della"])
    method = draw(methods | st.lists(methods, min_size=2, max_size=3, unique=True).map(lambda names: {"search": names}))
    parameters = {"weight": draw(markers()), "lambda": draw(markers(per_model=False))}
    if method != "task_arithmetic":
        parameters["density"] = draw(markers(0.0, 1.0))
    if draw(st.booleans()):
        parameters["normalize"] = {"search": [True, False]}
    return {"merge_method": method, "base_model": "org/base", "models": models, "parameters": parameters}


@settings(max_examples=80, deadline=None)
@given(documents(), st.integers(3, 9), st.randoms(use_true_random=False))
def test_recipes_survive_the_way_to_a_genotype_and_back(document, layers, random):
    space = build_space(document, layers=layers, modules=MODULES)
    assert len(set(space.names)) == space.dimension
    genotype = np.array([random.choice([0.0, 1.0, random.random()]) for _ in space.genes])
    recipe = space.decode(genotype)
    assert space.decode(genotype) == recipe
    assert space.decode(space.encode(recipe)) == recipe
    written = yaml.safe_load(yaml.safe_dump(recipe.to_mapping()))
    assert recipe_from_mapping(written) == recipe
    assert recipe_from_mapping(written).digest == recipe.digest
    active = {name: value for name, value in space.phenotype(genotype).items() if value is not None}
    back = space.phenotype(space.encode(recipe))
    assert {name: back[name] for name in active} == active
