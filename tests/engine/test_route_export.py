"""Routes as ordinary checkpoints: the same network as the resident's, with entry scales folded into the weights."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.engine import ResidentModel, export
from evomerge.engine._merge_plan import Fold
from evomerge.engine.route._fold import Branches, fold_of
from evomerge.errors import WeightsError
from evomerge.recipe import recipe_from_mapping
from evomerge.scoring.batched._likelihood import PackedBatches
from evomerge.scoring.batched._packing import pack_sequences
from tests.engine.test_route import LayerCall, lend, logits, sequences, written
from tests.pico import FAMILIES, fingerprint_of, make_model

ORDER = (("merged", 0), ("one", 1), ("merged", 1), ("two", 1), ("two", 1), ("one", 3))
SCALES = (1.0, 1.3, 0.8, 1.0, 0.6, 1.4)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def routed(parents: Any, scales: Sequence[float] = SCALES) -> Any:
    """Return a recipe that goes through a merge and its parents."""
    names = {"merged": "merged", "one": str(parents.one), "two": str(parents.two)}
    hops = tuple((names[source], layer, scale) for (source, layer), scale in zip(ORDER, scales, strict=True))
    return replace(parents.recipe("ties"), route=hops)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.log_softmax(-1) - other.log_softmax(-1)).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_route_is_the_resident_one(family: str, families: Any, tmp_path: Path) -> None:
    parents = families(family)
    resident = ResidentModel(parents.all)
    plain = routed(parents, (1.0,) * 6)
    report = export(plain, tmp_path / "plain", shard_bytes=20_000)
    assert resident.write(plain) == report.fingerprint == fingerprint_of(str(tmp_path / "plain"))
    loaded = load(tmp_path / "plain")
    assert torch.equal(logits(resident.model), logits(loaded))
    assert torch.equal(written(resident.model), written(loaded))
    before = logits(resident.model)
    scaled = routed(parents)
    report = export(scaled, tmp_path / "scaled")
    assert resident.write(scaled) == report.resident_fingerprint != report.fingerprint
    assert report.fingerprint == fingerprint_of(str(tmp_path / "scaled"))
    given = logits(load(tmp_path / "scaled"))
    bound = 1e-3 if family in ("phi3", "mixtral", "gpt_neox") else 1e-4  # whose norms have an epsilon of 1e-5
    assert difference(logits(resident.model), given) < bound < 0.01 < difference(before, given)
    found = re.search(r"of 504 log likelihoods.*more than (\S+) nats", " ".join(report.findings))
    assert found is not None
    assert float(found.group(1)) < bound


def test_fourteen_layers_say_the_same_before_and_after_their_export(llama: Any, tmp_path: Path) -> None:
    """Log likelihoods through shared prefixes, and answers written with a cache, of 14 visits of 3 x 4 layers."""
    base, one, two = llama.all
    pattern = [(base, 0), (one, 1), (base, 1), (two, 2), (one, 2), (one, 2), (base, 2)]
    route: list[LayerCall] = [
        (model, layer, 1.0 + 0.05 * (place % 5 - 2)) for place, (model, layer) in enumerate(pattern)
    ]
    route += [(two, 3, 0.9), (two, 0, 1.1), (base, 3, 1.0), (one, 3, 1.2), (base, 3, 1.0), (one, 0, 0.8), (two, 3, 1.0)]
    assert len(route) == 14
    resident = ResidentModel(llama.all)
    resident.write(lend(llama.all, route))
    export(lend(llama.all, route), tmp_path / "out")
    loaded = load(tmp_path / "out")
    assert loaded.config.num_hidden_layers == len(loaded.model.layers) == 14
    forest = PackedBatches(pack_sequences(sequences(), 200, 400), torch.device("cpu"))
    ours, theirs = forest.score(resident.model), forest.score(loaded)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=2e-4)
    assert [first for _, first in ours] == [first for _, first in theirs]
    assert torch.equal(written(resident.model), written(loaded))


def test_the_branches_are_divided_by_all_scales_so_far(llama: Any, tmp_path: Path) -> None:
    base = str(llama.base)
    route = [(base, 0, 2.0), (base, 0, 0.25), (base, 1, 8.0)]
    export(lend(llama.all, route), tmp_path / "out")
    written_, own = load_file(tmp_path / "out" / "model.safetensors"), load_file(llama.base / "model.safetensors")
    for slot, layer, product in ((0, 0, 2.0), (1, 0, 0.5), (2, 1, 4.0)):
        for name in ("self_attn.o_proj", "mlp.down_proj"):  # powers of two, so exact
            expected = own[f"model.layers.{layer}.{name}.weight"] / product
            assert torch.equal(written_[f"model.layers.{slot}.{name}.weight"], expected)
        for name in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm"):
            expected = own[f"model.layers.{layer}.{name}.weight"]
            assert torch.equal(written_[f"model.layers.{slot}.{name}.weight"], expected)
    assert torch.equal(written_["lm_head.weight"], own["lm_head.weight"])


def test_a_norm_that_adds_one_is_folded_with_it() -> None:
    branches = Branches(norms=(r"\.behind\.",), offset=1.0, outputs=(r"\.last\.",), inputs=(r"\.first\.",))
    assert fold_of(branches, "layers.0.behind.weight", 2.0) == Fold(0.5, 1.0)
    assert fold_of(branches, "layers.0.last.bias", 4.0) == Fold(0.25)
    assert fold_of(branches, "layers.0.first.weight", 4.0) == Fold(4.0)
    assert fold_of(branches, "layers.0.other.weight", 4.0) is None
    assert fold_of(branches, "layers.0.last.bias", 1.0) is None


def test_sixteen_bit_weights(families: Any, tmp_path: Path) -> None:
    parents = families("llama", False, torch.bfloat16)
    recipe = routed(parents)
    resident = ResidentModel(parents.all)
    report = export(recipe, tmp_path / "out")
    assert resident.write(recipe) == report.resident_fingerprint
    assert load(tmp_path / "out").dtype == torch.bfloat16
    assert difference(logits(resident.model).float(), logits(load(tmp_path / "out")).float()) < 0.1


def test_lists_about_layers_follow_the_route(families: Any, tmp_path: Path) -> None:
    gemma, moe = families("gemma2"), families("qwen3_moe")
    export(lend(gemma.all, [(str(gemma.one), layer, 1.0) for layer in (1, 1, 0, 3, 2)]), tmp_path / "gemma")
    config = json.loads((tmp_path / "gemma" / "config.json").read_text())
    kinds = json.loads((gemma.one / "config.json").read_text())["layer_types"]
    assert config["num_hidden_layers"] == 5
    assert config["layer_types"] == [kinds[1], kinds[1], kinds[0], kinds[3], kinds[2]]
    # its first layer has no experts
    export(lend(moe.all, [(str(moe.one), layer, 1.0) for layer in (2, 0, 3, 0)]), tmp_path / "moe")
    assert json.loads((tmp_path / "moe" / "config.json").read_text())["mlp_only_layers"] == [1, 3]


@pytest.mark.parametrize(
    ("scale", "words"), [(0.0, "0 zeroes the hidden state"), (-0.5, "-0.5 flips the sign of the hidden state")]
)
def test_scales_that_are_not_positive_are_refused(scale: float, words: str, llama: Any, tmp_path: Path) -> None:
    base = str(llama.base)
    recipe = lend(llama.all, [(base, 0, 1.0), (base, 1, scale)])
    ResidentModel(llama.all).write(recipe)  # it can be run
    with pytest.raises(WeightsError, match=f"hop 1: an entry scale of {words}"):
        export(recipe, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_fold_that_the_epsilon_spoils_is_measured_and_refused(llama: Any, tmp_path: Path) -> None:
    """Embeddings so small that the epsilon of the first norm is not: dividing them further changes the output."""
    model = make_model(tmp_path / "small", "llama", 0)
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 1e-2  # a mean square of 1e-6, the epsilon itself
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    recipe = lend([str(model)], [(str(model), 0, 3.0), (str(model), 1, 1.0)])
    with pytest.raises(WeightsError, match=r"differ by up to [\d.]+ nats, more than 0.001: the epsilon"):
        export(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_a_family_that_is_not_known_is_refused(llama: Any) -> None:
    from evomerge.checkpoints import read_layout
    from evomerge.engine.route._fold import folded
    from evomerge.engine.route._routes import LayerCall as Place

    layout = read_layout(str(llama.base))
    strange = replace(layout, config={**layout.config, "model_type": "lama"})
    with pytest.raises(WeightsError, match=r"cannot be folded into a lama model.*Near: llama"):
        folded([], [Place("merged", 0, 2.0)], strange)
    assert folded([], [Place("merged", 0, 1.0)], strange) == []


def test_a_mergekit_document_makes_the_same_checkpoint(llama: Any, tmp_path: Path) -> None:
    base, one, two = llama.all
    route = [(base, 0, 1.0), (one, 1, 2.0), (one, 2, 1.0), (two, 2, 0.25), (base, 2, 2.0), (base, 3, 1.0)]
    document = yaml.safe_load((export_folder(llama, route, tmp_path / "ours") / "mergekit_config.yml").read_text())
    assert [part["sources"][0]["layer_range"] for part in document["slices"]] == [[0, 1], [1, 3], [2, 3], [2, 4]]
    assert document["slices"][1]["sources"][0]["parameters"]["scale"][0] == {"filter": "self_attn.o_proj", "value": 0.5}
    assert "parameters" not in document["slices"][3]["sources"][0]
    report = export(recipe_from_mapping(document), tmp_path / "again")
    assert report.fingerprint == fingerprint_of(str(tmp_path / "ours"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
def test_mergekit_makes_the_same_checkpoint(llama: Any, tmp_path: Path) -> None:
    from tests.engine.test_against_mergekit import by_mergekit, largest_difference

    base, one, _ = llama.all
    route = [(base, 0, 1.0), (one, 1, 2.0), (one, 1, 0.75), (base, 3, 1.0)]
    ours = load_file(export_folder(llama, route, tmp_path / "ours") / "model.safetensors")
    document = yaml.safe_load((tmp_path / "ours" / "mergekit_config.yml").read_text())
    assert largest_difference(ours, by_mergekit({**document, "dtype": "float32"}, tmp_path / "theirs")) < 1e-7


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ([("one", 0, 1.0), ("base", 1, 1.0)], "embeddings of the first slice's model"),
        ([("base", 0, 1.0), ("one", 1, 1.0)], "final norm and head of the last slice's model"),
        ([("merged", 0, 1.0), ("base", 1, 1.0)], r"cannot name the result of another merge \(ties\)"),
        ([("base", 0, 1.0), ("base", 1, -1.0)], "flips the sign of the hidden state"),
    ],
)
def test_what_mergekit_cannot_express_is_refused(route: list[LayerCall], words: str, llama: Any) -> None:
    from evomerge.engine import find_parents, route_to_mergekit

    names = {"merged": "merged", "one": str(llama.one), "base": str(llama.base)}
    hops = tuple((names[source], layer, scale) for source, layer, scale in route)
    with pytest.raises(WeightsError, match=words):
        route_to_mergekit(replace(llama.recipe("ties"), route=hops), find_parents(llama.all).layouts)


def export_folder(llama: Any, route: Sequence[LayerCall], folder: Path) -> Path:
    return export(lend(llama.all, route), folder).folder
