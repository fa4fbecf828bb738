"""mergekit itself evaluates our recipes: the value it finds for each tensor is the gene's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import yaml

from evomerge.recipe import evaluate_setting
from evomerge.space import build_space

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    config = pytest.importorskip("mergekit.config")

MODULES = {"attention": (".self_attn.",), "mlp": (".mlp.",)}


def tensors(layers: int) -> list[tuple[str, int, float]]:
    """Name, layer and depth of tensors of a model, as mergekit's planner numbers them; layer -1 is outside."""
    rows = [("model.embed_tokens.weight", -1, 0.0), ("lm_head.weight", -1, 0.0)]
    for layer in range(layers):
        t = layer / (layers - 1) if layers > 1 else 1
        for part in ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight"):
            rows.append((f"model.layers.{layer}.{part}", layer, t))
    return rows


def module_of(name: str) -> str:
    return "attention" if ".self_attn." in name else "mlp" if ".mlp." in name else "other"


def evaluated(merge, model: str, parameter: str, name: str, t: float) -> float:
    """What mergekit finds for one tensor: the model's own setting, else the merge's."""
    own = next(entry.parameters or {} for entry in merge.models if str(entry.model) == model)
    for scope in (own, merge.parameters or {}):
        if parameter in scope:
            value = config.evaluate_setting(name, scope[parameter], t, validate=float)
            if value is not None:
                return value
    raise KeyError(parameter)


@pytest.mark.parametrize("layers", [1, 2, 5, 8, 50])
@pytest.mark.parametrize("depth", ["layer", {"blocks": 1}, {"blocks": 3}, {"knots": 3}, None])
@pytest.mark.parametrize("grouped", [False, True])
def test_mergekit_gives_each_tensor_the_value_of_its_gene(layers, depth, grouped):
    if isinstance(depth, dict) and depth.get("blocks", 0) > layers:
        pytest.skip("more blocks than layers is refused")
    per = ["model", *([depth] if depth else []), *([{"modules": ["attention", "mlp", "other"]}] if grouped else [])]
    document = {
        "merge_method": "ties",
        "base_model": "o/b",
        "models": [{"model": "o/x"}, {"model": "o/y"}],
        "parameters": {"weight": {"search": [0.0, 1.5], "per": per}, "lambda": 1.0},
    }
    space = build_space(document, layers=layers, modules=MODULES)
    genotype = np.random.default_rng(layers).random(space.dimension)
    genes, recipe = space.phenotype(genotype), space.decode(genotype)
    merge = config.MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(recipe.to_mergekit())))
    for name, layer, t in tensors(layers):
        for source in recipe.models:
            expected = value_by_definition(genes, source.model[-1], layer, t, layers, depth, module_of(name) * grouped)
            assert evaluated(merge, source.model, "weight", name, t) == pytest.approx(expected, rel=1e-12, abs=1e-12)
            ours = evaluate_setting(dict(source.parameters)["weight"], name, t)
            assert ours == evaluated(merge, source.model, "weight", name, t)  # to the last bit


def value_by_definition(genes, model, layer, t, layers, depth, module):
    """The readable twin: what a layer's value should be, straight from the meaning of the axes."""

    def gene(label: str) -> float:
        return genes[".".join(part for part in ("weight", model, label, module) if part)]

    if depth is None:
        return gene("")
    first = max(layer, 0)  # tensors outside the layers follow the first
    if depth == "layer":
        return gene(f"layer{first}")
    if "blocks" in depth:
        return gene(f"block{first * depth['blocks'] // layers}")
    return float(np.interp(t, np.linspace(0, 1, depth["knots"]), [gene(f"knot{k}") for k in range(depth["knots"])]))
