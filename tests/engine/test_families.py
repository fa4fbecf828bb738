"""Models of twelve families, known only by their parameters' names: layout, writing in place, export, mergekit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.checkpoints import read_layout
from evomerge.engine import ResidentModel, export
from evomerge.errors import WeightsError
from evomerge.recipe import passthrough, recipe_from_mapping
from tests.engine.test_against_mergekit import by_mergekit, by_us, largest_difference
from tests.pico import FAMILIES, fingerprint_of, make_model

PROMPT = torch.arange(2, 40).reshape(2, 19)
TIED = [pytest.param(False, id="untied"), pytest.param(True, id="tied")]

# family -> (stack, tensors per layer, matrices per layer that are not routers, filters of attention and mlp)
FACTS: dict[str, tuple[str, int, int, tuple[str, ...]]] = {
    "llama": ("model.layers", 9, 7, (".self_attn.", ".mlp.")),
    "mistral": ("model.layers", 9, 7, (".self_attn.", ".mlp.")),
    "qwen2": ("model.layers", 12, 7, (".self_attn.", ".mlp.")),
    "qwen3": ("model.layers", 11, 7, (".self_attn.", ".mlp.")),
    "gemma2": ("model.layers", 11, 7, (".self_attn.", ".mlp.")),
    "gemma3_text": ("model.layers", 13, 7, (".self_attn.", ".mlp.")),
    "phi3": ("model.layers", 6, 4, (".self_attn.", ".mlp.")),
    "gpt_neox": ("gpt_neox.layers", 12, 4, (".attention.", ".mlp.")),
    "gpt2": ("transformer.h", 12, 4, (".attn.", ".mlp.")),
    "olmo2": ("model.layers", 11, 7, (".self_attn.", ".mlp.")),
    "mixtral": ("model.layers", 16, 13, (".self_attn.", ".block_sparse_moe.")),
    "qwen3_moe": ("model.layers", 18, 13, (".self_attn.", ".mlp.")),
}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT).logits


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layout_is_read_from_names(family: str, tied: bool, families: Any) -> None:
    layout = read_layout(str(families(family, tied).base))
    stack, tensors, matrices, filters = FACTS[family]
    last = [name for name in layout.tensors if layout.layer_of(name) == 3]
    assert (layout.stack, layout.layers, layout.tied) == (stack, 4, tied)
    assert len(last) == tensors
    assert sum(layout.role_of(name) == "matrix" for name in last) == matrices
    assert sum(layout.role_of(name) == "router" for name in last) == (family in ("mixtral", "qwen3_moe"))
    assert (layout.modules["attention"], layout.modules["mlp"]) == tuple((word,) for word in filters)
    vocab = [name for name in layout.tensors if layout.role_of(name) == "vocab"]
    assert len(vocab) == 1 + (not tied)
    assert layout.embedding in vocab
    assert all(layout.tensors[name].shape == (97, 16) for name in vocab)
    for words in filters:  # every layer has both groups
        assert all(any(words in n for n in layout.by_layer[layer]) for layer in range(4))


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("family", FAMILIES)
def test_resident_export_and_transformers_agree(family: str, tied: bool, families: Any, tmp_path: Path) -> None:
    parents = families(family, tied)
    resident = ResidentModel(parents.all)
    recipe = parents.recipe("ties")
    report = export(recipe, tmp_path / "out", shard_bytes=20_000)
    assert resident.write(recipe) == report.fingerprint == fingerprint_of(str(tmp_path / "out"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours, theirs = resident.model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert torch.equal(logits(resident.model), logits(loaded))
    merged = logits(loaded)
    for parent in parents.all[:2]:
        resident.write(passthrough(parent))
        expected = logits(AutoModelForCausalLM.from_pretrained(parent).eval())
        assert torch.equal(logits(resident.model), expected)
        assert not torch.equal(merged, expected)


# Where mergekit 0.1.5 reads another form of the family than transformers 5 writes, or none; see the tests below.
NOT_IN_MERGEKIT = {("phi3", True), ("gpt_neox", False), ("gpt_neox", True)}
STACKED = ("mixtral", "qwen3_moe")
DENSE = [family for family in FAMILIES if family not in STACKED]


def plain(document: dict[str, Any], method: str) -> dict[str, Any]:
    """Return a recipe that mergekit reads: without the parameters that a method does not have."""
    if method == "task_arithmetic":
        for entry in document["models"]:
            entry["parameters"].pop("density")
    return {**document, "dtype": "float32"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("family", DENSE)
def test_as_mergekit(family: str, tied: bool, method: str, families: Any, tmp_path: Path) -> None:
    if (family, tied) in NOT_IN_MERGEKIT:
        pytest.skip(
            f"mergekit 0.1.5 does not read {family}, {'tied' if tied else 'untied'}, as transformers 5 writes it"
        )
    document = plain(families(family, tied).recipe(method).to_mergekit(), method)
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert largest_difference(ours, theirs) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_gpt_neox_with_the_tables_that_its_old_checkpoints_store(method: str, families: Any, tmp_path: Path) -> None:
    """mergekit asks for causal masks and rotary tables; here they are copied, there they are merged."""
    import shutil

    from safetensors.torch import load_file, save_file

    made = families("gpt_neox", False)
    moved: dict[str, str] = {}
    tables: set[str] = set()
    for folder in made.all:
        moved[folder] = str(shutil.copytree(folder, tmp_path / Path(folder).name))
        (path, *rest) = sorted(Path(moved[folder]).glob("*.safetensors"))
        tensors = {name: tensor for file in (path, *rest) for name, tensor in load_file(file).items()}
        for file in (*rest, Path(moved[folder]) / "model.safetensors.index.json"):
            file.unlink(missing_ok=True)
        for layer in range(4):
            stem = f"gpt_neox.layers.{layer}.attention."
            extra = {
                f"{stem}bias": torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(),
                f"{stem}masked_bias": torch.tensor(-1e9),
                f"{stem}rotary_emb.inv_freq": torch.linspace(1, 0.1, 2),
            }
            tensors |= extra
            tables |= set(extra)
        path.unlink()
        save_file(tensors, path.with_name("model.safetensors"), {"format": "pt"})
    document = plain(made.recipe(method).to_mergekit(), method)
    document["base_model"] = moved[document["base_model"]]
    for entry in document["models"]:
        entry["model"] = moved[entry["model"]]
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert tables < ours.keys()
    weights = [{name: t for name, t in found.items() if name not in tables} for found in (ours, theirs)]
    assert largest_difference(*weights) == 0
    layout = read_layout(str(tmp_path / "ours"))
    assert set(layout.buffers) == tables
    assert ResidentModel(list(moved.values())).write(recipe_from_mapping(document)) == fingerprint_of(
        str(tmp_path / "ours")
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("family", STACKED)
def test_experts_as_mergekit(family: str, tied: bool, tmp_path: Path) -> None:
    """mergekit merges stacks, here each expert is merged: the same wherever a method looks at elements alone.

    A density is a share of the stack there and of every expert here, so ties is compared at density 1.
    """
    from tests.engine.conftest import Family

    # mergekit asks for experts in every layer
    parents = Family(tmp_path, family, tied, **({"mlp_only_layers": []} if family == "qwen3_moe" else {}))
    for method in ("task_arithmetic", "ties"):
        document = plain(parents.recipe(method).to_mergekit(), method)
        for entry in document["models"]:
            entry["parameters"]["weight"] = 0.6
            entry["parameters"].update({"density": 1.0} if method == "ties" else {})
        by_us(document, tmp_path / f"ours-{method}")
        by_mergekit(document, tmp_path / f"theirs-{method}")
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(tmp_path / f"{tool}-{method}").state_dict()
            for tool in ("ours", "theirs")
        )
        assert largest_difference(ours, theirs) == 0


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_neox"])
def test_another_dtype_in_parameters_that_hold_several_tensors(family: str, families: Any, tmp_path: Path) -> None:
    parents = families(family, False)
    resident = ResidentModel(parents.all)
    before = resident.write(parents.recipe())
    half = parents.recipe(dtype="bfloat16")
    assert resident.write(half) == export(half, tmp_path / "out").fingerprint
    assert {parameter.dtype for parameter in resident.model.parameters()} == {torch.bfloat16}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(resident.model), logits(loaded))
    assert resident.write(parents.recipe()) == before


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_one_expert_alone_can_be_merged(family: str, families: Any) -> None:
    """A filter names one expert of the checkpoint; in the model it is a slice of a stack, and only that changes."""
    parents = families(family, False)
    resident = ResidentModel(parents.all)
    resident.write(passthrough(str(parents.base)))
    before = {name: tensor.clone() for name, tensor in resident.model.state_dict().items()}
    word = {"mixtral": "layers.2.block_sparse_moe.experts.1.", "qwen3_moe": "layers.2.mlp.experts.1."}[family]
    weight = [{"filter": word, "value": 1.0}, {"value": 0.0}]
    document = {
        "merge_method": "task_arithmetic",
        "base_model": str(parents.base),
        "models": [{"model": str(parents.one), "parameters": {"weight": weight}}],
    }
    resident.write(recipe_from_mapping(document))
    one = AutoModelForCausalLM.from_pretrained(parents.one).state_dict()
    for name, tensor in resident.model.state_dict().items():
        stacks = name.startswith("model.layers.2.mlp.experts.")
        for index in range(3 if stacks else 0):
            assert torch.equal(tensor[index], (one if index == 1 else before)[name][index]), (name, index)
        if not stacks:
            assert torch.equal(tensor, before[name]), name


def test_a_checkpoint_without_one_of_its_experts_is_refused(families: Any, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(families("mixtral", False).base, tmp_path / "odd"))
    tensors = load_file(folder / "model.safetensors")
    for part in ("w1", "w2", "w3"):
        tensors.pop(f"model.layers.1.block_sparse_moe.experts.2.{part}.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        WeightsError, match=r"layers.1.mlp.experts.*\(2, 48, 16\), its config.json makes it \(3, 48, 16\)"
    ):
        ResidentModel([str(folder)])


def test_experts_of_two_models_with_other_numbers_of_experts_are_refused(families: Any, tmp_path: Path) -> None:
    base = families("qwen3_moe", False).base
    other = make_model(tmp_path / "more", "qwen3_moe", num_experts=4)
    document = {
        "merge_method": "linear",
        "models": [{"model": str(m), "parameters": {"weight": 1}} for m in (base, other)],
    }
    with pytest.raises(
        WeightsError, match=r"layers.1.mlp.experts.3.*lacks it|layers.1.mlp.gate.weight.*\(3, 16\).*\(4, 16\)"
    ):
        export(recipe_from_mapping(document), tmp_path / "out")
