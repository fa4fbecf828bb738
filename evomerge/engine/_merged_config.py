"""The configuration of a merged model: its donor's, with the number of layers, their kinds and the dtype adapted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from evomerge.checkpoints import Layout, layer_count_key, text_config
from evomerge.engine._merge_plan import donor_of
from evomerge.engine.route._routes import layer_origins, per_layer
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe


def merged_config(recipe: Recipe, layouts: Mapping[str, Layout]) -> dict[str, Any]:
    """Return config.json of the merged model.

    Lists with one entry per layer, (layers,), such as `layer_types` (windowed attention or full), take each entry from
    the layer's first source.

    Raises:
        WeightsError: the configuration does not say how many layers there are, and their number changes.
    """
    donor = layouts[donor_of(recipe)]  # lends everything that no layer decides
    config = copy.deepcopy(dict(donor.config))
    inner = text_config(config)
    assert isinstance(inner, dict)
    _set_dtype(config, recipe.out_dtype or recipe.dtype or donor.dtype)  # from_pretrained(dtype="auto") reads it
    if donor.embedding is not None and "vocab_size" in inner:
        inner["vocab_size"] = donor.tensors[donor.embedding].shape[0]  # the layout has the rows after alignment
    chosen = layer_origins(recipe, layouts)
    # the donor's own layers in their own order: nothing to adapt
    if chosen == [(chosen[0][0], layer) for layer in range(donor.layers)]:
        return config
    key = layer_count_key(config)
    if key is None:
        raise WeightsError(
            f"config.json of '{donor.reference}' does not say how many layers it has; expected num_hidden_layers"
        )
    inner[key] = len(chosen)  # a route may visit a layer twice
    for name, value in inner.items():
        if per_layer(name, value, donor.layers):
            inner[name] = [_entry(layouts[model], name, layer) for model, layer in chosen]
    if "mlp_only_layers" in inner:
        # this list names layers by number, so it is written anew
        plain = [slot for slot, (model, layer) in enumerate(chosen) if _without_experts(layouts[model], layer)]
        inner["mlp_only_layers"], inner["decoder_sparse_step"] = plain, 1
    return config


def _without_experts(layout: Layout, layer: int) -> bool:
    """Return whether a layer has one MLP where others have experts, as the configuration numbers them."""
    config = text_config(layout.config)
    every = int(config.get("decoder_sparse_step") or 1)
    return layer in (config.get("mlp_only_layers") or ()) or (layer + 1) % every != 0


def _set_dtype(config: dict[str, Any], dtype: str) -> None:
    # transformers 5 renamed torch_dtype to dtype
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    for key in keys:
        config[key] = dtype
    inner = config.get("text_config")
    if isinstance(inner, dict):
        for key in ("dtype", "torch_dtype"):
            if key in inner:
                inner[key] = dtype


def _entry(layout: Layout, name: str, layer: int) -> Any:
    values = text_config(layout.config).get(name)
    if not isinstance(values, list) or len(values) != layout.layers:
        raise WeightsError(
            f"config.json of '{layout.reference}': expected {name} with {layout.layers} entries, got {values!r}"
        )
    return values[layer]
