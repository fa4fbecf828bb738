"""The same YAML gives the same weights as mergekit 0.1.5, through its own run_merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.engine import export
from evomerge.recipe import recipe_from_mapping
from tests.pico import make_model

mergekit_config = pytest.importorskip("mergekit.config")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # mergekit's own
    pytest.mark.slow,
]

# Bit for bit, except where a scalar of the whole tensor comes first: our sum of weights (linear) and our angle (slerp)
# are float64, mergekit's float32. Two units in the last place of weights below 2.
ROUNDING = {"linear": 2.4e-7, "slerp": 2.4e-7}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def by_mergekit(document: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    config = mergekit_config.MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(document)))
    run_merge(config, str(out), MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False))
    return weights_of(out)


def by_us(document: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    export(recipe_from_mapping(document), out)
    return weights_of(out)


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].shape == theirs[name].shape
        assert ours[name].dtype == theirs[name].dtype
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


FILTERED = [{"filter": "mlp", "value": [0.1, 0.9, 0.3]}, {"filter": "self_attn", "value": 0.35}, {"value": [0.8, 0.2]}]


def models(parents: Any, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {
        "models": [
            {"model": str(parents.one), "parameters": first},
            {"model": str(parents.two), "parameters": second},
        ]
    }


def documents(parents: Any) -> dict[str, dict[str, Any]]:
    base = str(parents.base)
    weighted = models(parents, {"weight": FILTERED, "density": [0.2, 0.9]}, {"weight": 0.6, "density": 0.45})
    plain = models(parents, {"weight": FILTERED}, {"weight": [0.6, 1.0]})
    return {
        "linear": {"merge_method": "linear", **plain},
        "linear with the base under the global weight": {
            "merge_method": "linear", "base_model": base, **plain, "parameters": {"weight": 0.5, "normalize": True}
        },
        "linear with the base listed": {
            "merge_method": "linear",
            "base_model": base,
            "models": [{"model": base, "parameters": {"weight": 0.2}}, *plain["models"]],
            "parameters": {"normalize": False},
        },
        "task_arithmetic": {
            "merge_method": "task_arithmetic", "base_model": base, **plain, "parameters": {"lambda": [0.5, 1.1]}
        },
        "task_arithmetic normalised": {
            "merge_method": "task_arithmetic", "base_model": base, **plain, "parameters": {"normalize": True}
        },
        "ties": {"merge_method": "ties", "base_model": base, **weighted},
        "ties with strengths": {
            "merge_method": "ties", "base_model": base, **weighted, "parameters": {"normalize": False, "lambda": 0.8}
        },
        "ties with the base listed and a global density": {
            "merge_method": "ties",
            "base_model": base,
            "models": [{"model": base}, *plain["models"]],
            "parameters": {"density": FILTERED},
        },
        "slerp": {
            "merge_method": "slerp",
            "base_model": base,
            "models": [{"model": base}, {"model": str(parents.one)}],
            "parameters": {"t": FILTERED},
        },
        "passthrough scaled": {
            "merge_method": "passthrough",
            "models": [{"model": str(parents.two), "parameters": {"scale": FILTERED}}],
        },
    }  # fmt: skip


NAMES = [
    "linear",
    "linear with the base under the global weight",
    "linear with the base listed",
    "task_arithmetic",
    "task_arithmetic normalised",
    "ties",
    "ties with strengths",
    "ties with the base listed and a global density",
    "slerp",
    "passthrough scaled",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_models_with_filters_and_gradients(name: str, tied: bool, families: Any, tmp_path: Path) -> None:
    document = {**documents(families("llama", tied))[name], "dtype": "float32"}
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert largest_difference(ours, theirs) <= ROUNDING.get(document["merge_method"], 0.0)


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "mistral"])
@pytest.mark.parametrize("name", ["ties", "slerp"])
def test_other_architectures(name: str, family: str, families: Any, tmp_path: Path) -> None:
    document = {**documents(families(family))[name], "dtype": "float32"}
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert largest_difference(ours, theirs) <= ROUNDING.get(document["merge_method"], 0.0)


def test_slices_of_merges(llama: Any, tmp_path: Path) -> None:
    """Two slices (3 layers, then 1: a one-layer slice stands at the end of its gradient), precedence at each level."""
    base, one, two = llama.all

    def part(first: int, end: int, shift: int, **more: Any) -> dict[str, Any]:
        return {
            "sources": [
                {"model": base, "layer_range": [first, end]},
                {"model": one, "layer_range": [first + shift, end + shift], "parameters": {"weight": FILTERED}},
                {"model": two, "layer_range": [first, end]},
            ],
            **more,
        }

    document = {
        "merge_method": "ties",
        "base_model": base,
        "slices": [
            part(0, 3, 1, parameters={"weight": [0.3, 0.9], "density": 0.5}),
            part(2, 3, 0, parameters={"density": [0.2, 0.7]}),
        ],
        "parameters": {"weight": {"value": [0.9, 0.1]}, "density": 0.9, "lambda": [0.5, 1.5]},
        "dtype": "float32",
    }
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert largest_difference(ours, theirs) <= ROUNDING.get(document["merge_method"], 0.0)


def test_frankenmerge(llama: Any, tmp_path: Path) -> None:
    """Layers repeated and stacked: embeddings come from the first slice, final norm and head from the last."""
    _, one, two = llama.all
    document = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": one, "layer_range": [0, 3]}]},
            {"sources": [{"model": two, "layer_range": [1, 4]}]},
            {"sources": [{"model": one, "layer_range": [3, 4], "parameters": {"scale": 0.5}}]},
        ],
        "dtype": "float32",
    }
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert largest_difference(ours, theirs) == 0
    assert torch.equal(ours["model.embed_tokens.weight"], weights_of(llama.one)["model.embed_tokens.weight"])
    assert "model.layers.6.mlp.up_proj.weight" in ours


def test_bfloat16_parents_merged_in_float32(families: Any, tmp_path: Path) -> None:
    parents = families("llama", False, torch.bfloat16)
    # not ties: among bfloat16 task vectors many entries have one magnitude, and mergekit's sort breaks ties at random
    document = {**documents(parents)["task_arithmetic"], "dtype": "float32", "out_dtype": "bfloat16"}
    ours, theirs = by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")
    assert largest_difference(ours, theirs) == 0


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_keeps_the_share_and_the_norm_of_mergekit(method: str, tmp_path: Path) -> None:
    """Masks differ between the tools; what is kept and how it is scaled does not."""
    base = make_model(tmp_path / "base", seed=0, intermediate_size=512)
    one = make_model(tmp_path / "one", seed=1, noise_from=base, intermediate_size=512)
    document = {
        "merge_method": method,
        "base_model": str(base),
        "models": [{"model": str(one), "parameters": {"weight": 1.0, "density": 0.3}}],
        "parameters": {"normalize": False},
        "dtype": "float32",
    }
    start = weights_of(base)
    for merged in (by_us(document, tmp_path / "ours"), by_mergekit(document, tmp_path / "theirs")):
        for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.3.mlp.down_proj.weight"):
            delta, full = merged[name] - start[name], weights_of(one)[name] - start[name]
            kept = float((delta != 0).float().mean())
            assert abs(kept - 0.3) < 4 * (0.3 * 0.7 / delta.numel()) ** 0.5
            assert float(delta.abs().sum()) == pytest.approx(float(full.abs().sum()), rel=1e-3)
