"""Routes in the resident model: against networks put together by hand, for every family of decoder stacks."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.engine import ResidentModel
from evomerge.errors import CandidateError, InfrastructureError, WeightsError
from evomerge.recipe import Recipe, Source, passthrough
from evomerge.scoring.batched._kv_cache import computed_alone
from evomerge.scoring.batched._likelihood import PackedBatches
from evomerge.scoring.batched._packing import Likelihood, pack_sequences
from tests.pico import FAMILIES, make_model

PROMPT = torch.arange(2, 40).reshape(2, 19)
LayerCall = tuple[str, int, float]


def lend(models: Sequence[str], route: Sequence[LayerCall]) -> Recipe:
    """Return the recipe of a route over models of which nothing is merged."""
    return Recipe("passthrough", tuple(Source(model) for model in models), route=tuple(route))


def by_hand(models: Sequence[str], route: Sequence[LayerCall], dtype: torch.dtype = torch.float32) -> Any:
    """Return the network of a route as an ordinary transformers model, its layers copied, scales applied by hooks."""
    loaded = {model: AutoModelForCausalLM.from_pretrained(model).eval() for model in models}
    first = loaded[models[0]]
    config = copy.deepcopy(first.config)
    key = "n_layer" if config.model_type == "gpt2" else "num_hidden_layers"
    setattr(config, key, len(route))
    if getattr(config, "layer_types", None):
        config.layer_types = [loaded[source].config.layer_types[layer] for source, layer, _ in route]
    if config.model_type == "qwen3_moe":
        dense = [loaded[source].config.mlp_only_layers for source, _, _ in route]
        config.mlp_only_layers = [slot for slot, (_, layer, _) in enumerate(route) if layer in dense[slot]]
    made = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    body = made.base_model
    whole, own = first.base_model.state_dict(), body.state_dict()
    stack = next(name for name in ("layers", "h") if hasattr(body, name))
    for name in own:
        if not name.startswith(f"{stack}."):
            own[name].copy_(whole[name])
            continue
        _, slot, rest = name.split(".", 2)
        source, layer, _ = route[int(slot)]
        own[name].copy_(loaded[source].base_model.state_dict()[f"{stack}.{layer}.{rest}"])
    made.get_output_embeddings().load_state_dict(first.get_output_embeddings().state_dict())
    made.generation_config = first.generation_config
    for module, (_, _, scale) in zip(getattr(body, stack), route, strict=True):
        if scale != 1.0:
            module.register_forward_pre_hook(_scaling(scale))
    return made


def _scaling(scale: float) -> Any:
    return lambda module, args: (args[0] * scale, *args[1:])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT).logits


def written(model: Any) -> torch.Tensor:
    mask = torch.ones_like(PROMPT)
    return model.generate(PROMPT, attention_mask=mask, max_new_tokens=16, min_new_tokens=16, do_sample=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_route_is_the_network_put_together_by_hand(family: str, families: Any) -> None:
    """Repeated, left out, swapped and foreign layers; more tokens than the sliding window of 32, with the cache."""
    parents = families(family)
    base, one, two = parents.all
    route = [(base, 0, 1.0), (one, 1, 1.0), (two, 1, 1.0), (two, 1, 0.7), (base, 3, 1.3), (one, 2, 1.0), (one, 0, 1.0)]
    resident = ResidentModel(parents.all, share_bytes=2**20)
    fingerprint = resident.write(lend(parents.all, route))
    expected = by_hand(parents.all, route)
    assert torch.equal(logits(resident.model), logits(expected))
    assert torch.equal(written(resident.model), written(expected))
    assert resident.fingerprint() == fingerprint
    assert resident.model.config.num_hidden_layers == 7
    plain = resident.write(passthrough(one))
    assert torch.equal(logits(resident.model), logits(AutoModelForCausalLM.from_pretrained(one).eval()))
    assert plain == ResidentModel([one]).write(passthrough(one)) == resident.fingerprint()
    assert resident.model.config.num_hidden_layers == 4


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.31])
def test_any_scale_runs(scale: float, llama: Any) -> None:
    route = [(str(llama.base), 0, 1.0), (str(llama.one), 1, scale), (str(llama.base), 3, 1.0)]
    resident = ResidentModel(llama.all)
    resident.write(lend(llama.all, route))
    assert torch.equal(logits(resident.model), logits(by_hand(llama.all, route)))


def test_layers_of_the_merge_and_of_its_parents_run_together(llama: Any) -> None:
    resident = ResidentModel(llama.all)
    merge = llama.recipe("ties")
    resident.write(merge)
    stack = [copy.deepcopy(layer) for layer in resident.model.model.layers]
    route = (("merged", 2, 1.0), (str(llama.two), 1, 1.0), ("merged", 2, 1.0), ("merged", 0, 1.0))
    resident.write(replace(merge, route=route))
    routed = logits(resident.model)
    expected = AutoModelForCausalLM.from_pretrained(llama.two).eval()
    resident.write(merge)
    state = {name: tensor for name, tensor in resident.model.state_dict().items() if ".layers." not in name}
    for slot, (source, layer, _) in enumerate(route):
        if source == "merged":
            expected.model.layers[slot] = copy.deepcopy(stack[layer])
        else:
            expected.model.layers[slot] = copy.deepcopy(
                AutoModelForCausalLM.from_pretrained(source).model.layers[layer]
            )
        expected.model.layers[slot].self_attn.layer_idx = slot
    expected.load_state_dict(state, strict=False)
    assert torch.equal(routed, logits(expected))


def test_nothing_is_copied_and_every_visit_has_a_cache_of_its_own(llama: Any) -> None:
    resident = ResidentModel(llama.all)
    one = str(llama.one)
    resident.write(lend(llama.all, [(one, 2, 1.0), (one, 2, 1.0), (str(llama.base), 2, 1.0)]))
    first, second, third = resident.model.model.layers
    owned = resident._tensors[one]
    for name, parameter in first.named_parameters():
        assert parameter.data_ptr() == owned[f"model.layers.2.{name}"].data_ptr()
        assert parameter is dict(second.named_parameters())[name]
        assert parameter.data_ptr() != dict(third.named_parameters())[name].data_ptr()
    with torch.no_grad():
        cache = resident.model(PROMPT, use_cache=True).past_key_values
    assert len(cache.layers) == 3
    assert not torch.equal(cache.layers[0].keys, cache.layers[1].keys)


def test_stacked_experts_are_joined_once_and_not_again(families: Any) -> None:
    parents = families("mixtral")
    resident = ResidentModel(parents.all)
    one = str(parents.one)
    resident.write(lend(parents.all, [(one, 1, 1.0), (one, 0, 1.0)]))
    stack = resident.model.model.layers[0].mlp.experts.down_proj
    name = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
    assert resident._tensors[one][name].data_ptr() == stack[2].data_ptr()
    resident.write(lend(parents.all, [(one, 1, 1.0)]))
    assert resident.model.model.layers[0].mlp.experts.down_proj is stack


def test_a_source_of_another_depth(llama: Any, tmp_path: Path) -> None:
    deep = str(make_model(tmp_path / "deep", "llama", 7, layers=6))
    models = [str(llama.base), deep]
    route = [(deep, 5, 1.0), (models[0], 3, 1.0), (deep, 0, 1.0)]
    resident = ResidentModel(models)
    resident.write(lend(models, route))
    assert torch.equal(logits(resident.model), logits(by_hand(models, route)))


def test_sources_of_another_depth_keep_what_their_own_configuration_says_of_their_layers(tmp_path: Path) -> None:
    base = str(make_model(tmp_path / "base", "gemma3_text", 0, layers=6))  # every sixth layer sees everything
    deep = str(make_model(tmp_path / "deep", "gemma3_text", 1, layers=7))
    kinds = json.loads((Path(deep) / "config.json").read_text())["layer_types"]
    assert (kinds[5], kinds[4]) == ("full_attention", "sliding_attention")
    route = [(base, 0, 1.0), (deep, 5, 1.0), (deep, 4, 1.0)]
    resident = ResidentModel([base, deep])
    resident.write(lend([base, deep], route))
    assert resident.model.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert torch.equal(written(resident.model), written(by_hand([base, deep], route)))


def test_parents_run_in_the_dtype_of_the_recipe(llama: Any) -> None:
    route = [(str(llama.one), 1, 1.0), (str(llama.base), 0, 1.0)]
    resident = ResidentModel(llama.all)
    half = replace(lend(llama.all, route), dtype="bfloat16")
    resident.write(half)
    assert logits(resident.model).dtype == torch.bfloat16
    assert torch.equal(logits(resident.model), logits(by_hand(llama.all, route, torch.bfloat16)))
    resident.write(lend(llama.all, route))
    assert torch.equal(logits(resident.model), logits(by_hand(llama.all, route)))


def test_the_fingerprint_tells_routes_apart(llama: Any) -> None:
    base, one, _ = llama.all
    resident = ResidentModel(llama.all)
    own = [(base, layer, 1.0) for layer in range(4)]
    swapped = [own[1], own[0], *own[2:]]
    scaled = [*own[:3], (base, 3, 1.1)]
    foreign = [*own[:3], (one, 3, 1.0)]
    prints = [resident.write(lend(llama.all, route)) for route in (own, swapped, scaled, foreign, own[:3])]
    assert len(set(prints)) == 5
    # a route through one model's own stack is that model
    assert prints[0] == resident.write(passthrough(base))
    with torch.no_grad():
        resident._tensors[one]["model.layers.3.mlp.up_proj.weight"][0, 0] += 1
    with pytest.raises(InfrastructureError, match=r"layer 3 of '.*one' has changed in memory"):
        resident.write(lend(llama.all, foreign))


def sequences(count: int = 9) -> list[Likelihood]:
    """Return texts with a common beginning of 40 tokens, in pairs that share more."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda n: tuple(torch.randint(2, 97, (n,), generator=generator).tolist())  # noqa: E731
    root = draw(40)
    stems = [root + draw(70) for _ in range(count)]
    return [Likelihood(stem + draw(4 + place), (5, 7, 9)) for place, stem in enumerate(stems) for _ in range(2)]


def population(models: Sequence[str], count: int) -> list[list[LayerCall]]:
    """Return routes over six layers that differ from the first in one of their last two hops."""
    base, one, two = models
    start = [(base, 0, 1.0), (one, 1, 0.9), (base, 2, 1.0), (two, 3, 1.0), (base, 1, 1.0), (base, 3, 1.0)]
    found = [start]
    for place in range(1, count):
        changed = list(start)
        changed[4 + place % 2] = ((one, two)[place % 2], place % 4, 1.0 + place / 100)
        found.append(changed)
    return found


@pytest.mark.parametrize(
    ("family", "limit"),
    [("llama", 2**28), ("llama", 2**18), ("llama", 100), ("gemma2", 2**28), ("gpt2", 2**28), ("gpt_neox", 2**28)],
)
def test_candidates_that_begin_alike_share_their_layers(family: str, limit: int, families: Any) -> None:
    """The same answers to the last bit, however much or little memory there is."""
    parents = families(family)
    plain, sharing = ResidentModel(parents.all, share_bytes=0), ResidentModel(parents.all, share_bytes=limit)
    texts = sequences()
    if family in ("gemma2", "gpt2"):  # a window of 32 tokens; a context of 64
        texts = [Likelihood(text.inputs[:22] + text.inputs[-6:], text.targets) for text in texts]
    forest = PackedBatches(pack_sequences(texts, 200, 400), torch.device("cpu"))
    run = shared = 0
    for route in population(parents.all, 4):
        recipe = lend(parents.all, route)
        assert plain.write(recipe) == sharing.write(recipe)
        assert forest.score(plain.model) == forest.score(sharing.model)
        before, after = plain.work, sharing.work
        assert before is not None
        assert after is not None
        assert (before.shared, before.run) == (0, after.run + after.shared)
        run, shared = run + after.run, shared + after.shared
        assert torch.equal(written(plain.model), written(sharing.model))
        assert sharing._routes is not None
        assert sharing._routes.store is not None
        assert sharing._routes.store.bytes <= limit
    saving = shared / (run + shared)
    if limit == 2**18:
        assert 0.0 < saving < 14 / 24
    else:  # 4 routes of 6 layers; the second and fourth begin with five layers of the first, the third with four
        assert saving == pytest.approx(14 / 24 if limit > 100 else 0.0)


def test_another_text_or_another_merge_shares_nothing(llama: Any) -> None:
    resident = ResidentModel(llama.all, share_bytes=2**28)
    base = str(llama.base)
    route = tuple(("merged", layer, 1.0) for layer in range(4))
    merge = llama.recipe("ties")
    resident.write(replace(merge, route=route))
    logits(resident.model)
    with torch.no_grad():
        resident.model(PROMPT + 1)
    assert resident.work is not None
    assert resident.work.shared == 0
    resident.write(replace(llama.recipe("task_arithmetic"), route=route))
    logits(resident.model)
    assert resident.work.shared == 0
    resident.write(replace(merge, route=(*route, (base, 0, 1.0))))
    logits(resident.model)
    assert (resident.work.run, resident.work.shared) == (38, 4 * 38)


def test_hidden_states_are_those_of_the_route(llama: Any) -> None:
    """transformers hooks a model once to hand them out; a stack that is pointed elsewhere is hooked again."""
    resident = ResidentModel(llama.all, share_bytes=2**28)
    base, one, _ = llama.all
    for route in ([(base, 0, 1.0), (one, 1, 1.0)], [(base, 0, 1.0), (one, 2, 1.0), (one, 2, 1.0)]):
        resident.write(lend(llama.all, route))
        with torch.no_grad():
            given = resident.model(PROMPT, output_hidden_states=True).hidden_states
            expected = by_hand(llama.all, route)(PROMPT, output_hidden_states=True).hidden_states
        assert len(given) == len(expected) == len(route) + 1
        assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))


def test_written_answers_share_their_steps_and_a_timed_pass_shares_nothing(llama: Any) -> None:
    """The same tokens after the same beginning: every step of the second candidate is known but for its last layer."""
    base, one, _ = llama.all
    route = [(base, 0, 1.0), (one, 1, 1.0), (base, 2, 1.0), (base, 3, 1.0)]
    resident = ResidentModel(llama.all, share_bytes=2**28)
    forced = {
        "min_new_tokens": 12,
        "max_new_tokens": 12,
        "do_sample": False,
        "prefix_allowed_tokens_fn": lambda *_: [7],
    }
    texts = []
    for scale in (1.0, 1.5):
        resident.write(lend(llama.all, [*route[:3], (base, 3, scale)]))
        texts.append(resident.model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT), **forced))
    assert torch.equal(*texts)
    tokens = 2 * (19 + 11)
    assert resident.work is not None
    assert (resident.work.run, resident.work.shared) == (tokens, 3 * tokens)
    with computed_alone(resident.model):
        logits(resident.model)
        logits(resident.model)
    assert (resident.work.run, resident.work.shared) == (tokens + 2 * 4 * 38, 3 * tokens)


def refused(models: Sequence[str], route: Sequence[LayerCall], **more: Any) -> str:
    with pytest.raises((WeightsError, CandidateError)) as caught:
        ResidentModel(models).write(replace(lend(models, route), **more))
    return str(caught.value)


def test_a_kind_of_layers_that_the_network_has_no_positions_for_is_refused(tmp_path: Path) -> None:
    base = str(make_model(tmp_path / "base", "gemma3_text", 0))  # four layers, all of them sliding
    deep = str(make_model(tmp_path / "deep", "gemma3_text", 1, layers=6))
    assert "layers of type full_attention" in refused([base, deep], [(base, 0, 1.0), (deep, 0, 1.0)])
    assert "layers of type" not in str(ResidentModel([deep, base]).write(lend([deep, base], [(base, 0, 1.0)])))


def test_bad_routes_are_refused(llama: Any, tmp_path: Path) -> None:
    base, one, _ = llama.all
    assert "at least one hop" in refused(llama.all, [])
    assert f"hop 1: '{one}' has layers 0 to 3, got layer 4" in refused(llama.all, [(base, 0, 1.0), (one, 4, 1.0)])
    assert "got layer -1" in refused(llama.all, [(base, -1, 1.0)])
    assert "finite number, got nan" in refused(llama.all, [(base, 0, float("nan"))])
    assert "passthrough of several models makes none" in refused(llama.all, [("merged", 0, 1.0)])
    assert "unknown source 'merge'. Near: merged" in refused(
        llama.all, [("merge", 0, 1.0)], method="linear", parameters=(("weight", 1.0),)
    )


def test_layers_that_cannot_meet_are_refused_with_those_that_can(llama: Any, tmp_path: Path) -> None:
    base, one, _ = llama.all
    wide = str(make_model(tmp_path / "wide", "llama", hidden_size=32))
    other = str(make_model(tmp_path / "other", "mistral"))
    turned = str(make_model(tmp_path / "turned", "llama", rope_theta=500.0))
    thick = str(make_model(tmp_path / "thick", "llama", intermediate_size=40))
    for model, words in (
        (wide, "width of the hidden state: 32, not 16"),
        (other, "architecture: mistral, not llama"),
        (turned, "rope_"),
        (thick, "other names or shapes"),
    ):
        message = refused([base, one, model], [(base, 0, 1.0), (model, 0, 1.0)])
        assert words in message
        assert message.endswith(f"those of '{base}', '{one}'")


def test_layers_that_depend_on_their_place_are_refused(tmp_path: Path) -> None:
    model = str(make_model(tmp_path / "odd", "gpt2", scale_attn_by_inverse_layer_idx=True))
    assert "scale_attn_by_inverse_layer_idx=True" in refused([model], [(model, 0, 1.0)])


def test_other_kinds_of_layers_are_refused_by_name(llama: Any, tmp_path: Path) -> None:
    import shutil

    from evomerge.engine import find_parents

    folder = Path(shutil.copytree(llama.base, tmp_path / "hybrid"))
    config = json.loads((folder / "config.json").read_text())
    config["layer_types"] = ["full_attention", "linear_attention"] * 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="layers of type linear_attention"):
        find_parents([str(folder)]).steps(lend([str(folder)], [(str(folder), 0, 1.0)]))
