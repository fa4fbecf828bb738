"""Routes: the sequence of layers that a network runs, checked against the models that the layers come from.

A route is a sequence of hops. The hidden states (..., tokens, width) are multiplied by a hop's entry scale, then go
through its layer. What is outside the layers (embeddings, final norm, head) is the merged model's.

Source: data-flow search, Akiba et al. 2024, "Evolutionary Optimization of Model Merging Recipes", arXiv:2403.13187.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evomerge.checkpoints import LAYER_COUNT_KEYS, Layout, config_difference, text_config
from evomerge.engine._merge_plan import donor_of, layer_sources, lends_only
from evomerge.errors import CandidateError, WeightsError, near
from evomerge.recipe import Recipe

MERGED = "merged"  # the source that is the result of the recipe's merge
# Layers whose state is what attention caches: keys and values that grow. Other states are written in place.
ROUTED_TYPES = ("full_attention", "sliding_attention")
# Settings under which a layer's computation depends on its position in the stack, with the values that do no harm.
_PLACED: Mapping[str, tuple[Any, ...]] = {
    "scale_attn_by_inverse_layer_idx": (None, False),
    "num_kv_shared_layers": (None, 0),
    "use_cross_layer_attention": (None, False),
    "add_cross_attention": (None, False),
}


@dataclass(frozen=True)
class LayerCall:
    """One hop of a route: hidden states (..., tokens, width) are scaled and go through a layer of a source."""

    source: str  # 'merged', or a model as the recipe writes it
    layer: int  # index in the source
    scale: float = 1.0  # factor of the hidden state on entering the layer


def read_route(recipe: Recipe, layouts: Mapping[str, Layout]) -> tuple[LayerCall, ...]:
    """Return the hops of a recipe's route, (hops,), after checking that its layers can follow each other.

    Args:
        recipe: whose `route` is not None.
        layouts: of every model that the recipe names.

    Raises:
        CandidateError: the route is empty, or a scale is not a finite number.
        WeightsError: a source or layer does not exist, or layers of different networks would meet.
    """
    if not recipe.route:
        raise CandidateError("route: expected at least one hop [source, layer, scale], got none; no layer would run")
    hops = tuple(LayerCall(*hop) for hop in recipe.route)
    home = layouts[donor_of(recipe)]  # embeddings, norm and head come from this model
    sources = list(dict.fromkeys(hop.source for hop in hops))  # each checked once, in order
    known = _known(recipe)
    for source in sources:
        if source not in known:
            raise WeightsError(f"route: {_unknown(source, recipe, known)}")
        if source != MERGED:
            _check_meets(home, layouts[source], [layouts[model] for model in known if model != MERGED])
    # 'merged' has the merge's own depth, which slices may change
    depths = {source: _depth(source, recipe, layouts) for source in sources}
    for index, hop in enumerate(hops):
        if not 0 <= hop.layer < depths[hop.source]:
            raise WeightsError(
                f"route, hop {index}: '{hop.source}' has layers 0 to {depths[hop.source] - 1}, got layer {hop.layer}"
            )
        if not math.isfinite(hop.scale):
            raise CandidateError(f"route, hop {index}: the scale must be a finite number, got {hop.scale}")
    _check_routable(home)
    return hops


def layer_origins(recipe: Recipe, layouts: Mapping[str, Layout]) -> list[tuple[str, int]]:
    """Return for every layer of a recipe's result the (model, layer) whose entries in per-layer lists it takes."""
    if recipe.route is None:
        return layer_sources(recipe, layouts)
    merged = merged_origins(recipe, layouts)
    return [merged[layer] if source == MERGED else (source, layer) for source, layer, _ in recipe.route]


def merged_origins(recipe: Recipe, layouts: Mapping[str, Layout]) -> list[tuple[str, int]]:
    """Return for every layer of 'merged' the first (model, layer) that it is made of; [] if no hop goes there."""
    if not any(source == MERGED for source, _, _ in recipe.route or ()):
        return []
    return layer_sources(recipe, layouts)


def scale_name(slot: int) -> str:
    """Return the name under which an entry scale other than 1 stands in a fingerprint."""
    return f"entry scale of layer {slot}"


def kind_of(layout: Layout, layer: int) -> str:
    """Return the per-layer entries of a model's configuration for one layer, as text to be compared."""
    config = text_config(layout.config)
    found = {name: values[layer] for name, values in config.items() if per_layer(name, values, layout.layers)}
    return repr(sorted(found.items()))


def per_layer(name: str, value: Any, layers: int) -> bool:
    """Return whether an entry of a configuration is a list with one item per layer."""
    # a list as long as the stack may mean something else; those that describe layers say so in their names
    return isinstance(value, (list, tuple)) and len(value) == layers and ("layer" in name or "block" in name)


def _known(recipe: Recipe) -> list[str]:
    return [*([] if lends_only(recipe) else [MERGED]), *recipe.references()]


def _unknown(source: str, recipe: Recipe, known: Sequence[str]) -> str:
    if source == MERGED:
        return (
            "source 'merged' is the result of the merge, and passthrough of several models makes none; name one of "
            f"the models instead: {', '.join(known)}"
        )
    return f"unknown source '{source}'. {near(source, known)}"


def _depth(source: str, recipe: Recipe, layouts: Mapping[str, Layout]) -> int:
    return len(merged_origins(recipe, layouts)) if source == MERGED else layouts[source].layers


def _check_meets(home: Layout, other: Layout, models: Sequence[Layout]) -> None:
    """Refuse a source whose layers differ from those of `home` in shapes or width, naming the models that fit."""
    difference = _meeting_difference(home, other)
    if difference is None:
        return
    fits = [layout.reference for layout in models if _meeting_difference(home, layout) is None]
    raise WeightsError(
        f"route: layers of '{other.reference}' cannot run in '{home.reference}' ({difference}). Layers that can: those "
        f"of {', '.join(repr(name) for name in fits)}"
    )


def _meeting_difference(home: Layout, other: Layout) -> str | None:
    ours, theirs = home.config.get("model_type"), other.config.get("model_type")
    if ours != theirs:
        return f"architecture: {theirs}, not {ours}"
    width, others = _width(home), _width(other)
    if width != others:
        return f"width of the hidden state: {others}, not {width}"
    new = sorted(_types(other) - _types(home))
    if new:  # the network of the first has neither masks nor positions for them
        return f"layers of type {', '.join(new)}, of which '{home.reference}' has none"
    if not _same_shapes(home, other):
        return "its layers' tensors have other names or shapes"
    plain = [_without_layer_lists(home), _without_layer_lists(other)]  # lists per layer are compared per hop
    return config_difference(*plain)


def _width(layout: Layout) -> int | None:
    config = text_config(layout.config)
    return next((config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config), None)


def _types(layout: Layout) -> set[str]:
    return set(text_config(layout.config).get("layer_types") or ())


def _same_shapes(home: Layout, other: Layout) -> bool:
    # a layer may be of one of several makes (with experts or without): each of the other's must be one of ours
    ours, theirs = ({_make(layout, layer) for layer in range(layout.layers)} for layout in (home, other))
    return bool(theirs <= ours)


def _make(layout: Layout, layer: int) -> frozenset[tuple[str, tuple[int, ...]]]:
    names = [name for name in layout.by_layer[layer] if name in layout.tensors]
    return frozenset((layout.in_layer(name, 0), layout.tensors[name].shape) for name in names)


# Lists that name layers by their numbers, so that they differ between models of different depth.
_NUMBERED = ("mlp_only_layers", "max_window_layers", "first_k_dense_replace", "moe_layers")


def _without_layer_lists(layout: Layout) -> Layout:
    inner = {
        key: value
        for key, value in text_config(layout.config).items()
        if not per_layer(key, value, layout.layers) and key not in _NUMBERED and key not in LAYER_COUNT_KEYS
    }
    return replace(layout, config=inner)


def _check_routable(home: Layout) -> None:
    config = text_config(home.config)
    strange = sorted(_types(home) - set(ROUTED_TYPES))
    if strange:
        raise WeightsError(
            f"route: '{home.reference}' has layers of type {', '.join(strange)}, which keep a state per "
            f"position in the stack; layers of type {' and '.join(ROUTED_TYPES)} can be routed"
        )
    for name, harmless in _PLACED.items():
        if config.get(name) not in harmless:
            raise WeightsError(
                f"route: '{home.reference}' sets {name}={config[name]!r}, so its layers depend on their position in "
                "the stack and cannot be put in another order"
            )
