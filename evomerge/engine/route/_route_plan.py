"""Merge plan of a route: every layer call becomes a layer of its own, under the ordinary names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evomerge.checkpoints import Layout
from evomerge.engine._merge_plan import Input, TensorOp, donor_of
from evomerge.engine.route._fold import folded
from evomerge.engine.route._routes import MERGED, LayerCall, read_route
from evomerge.recipe import Recipe


def route_steps(recipe: Recipe, layouts: Mapping[str, Layout], merged: Sequence[TensorOp]) -> list[TensorOp]:
    """Return the merge plan, (tensors,), of a recipe with a route; layers are numbered in the route's order.

    Its entry scales are folded into the weights.

    Args:
        recipe: with a route.
        layouts: of every model that the recipe names.
        merged: steps of the recipe's merge, from which come the layers of 'merged' and what is outside the layers.

    Raises:
        CandidateError, WeightsError: see route.read_route and route_fold.folded.
    """
    home = layouts[donor_of(recipe)]
    by_layer: dict[int | None, list[TensorOp]] = {}  # None: outside the layers
    for step in merged:
        by_layer.setdefault(home.layer_of(step.name), []).append(step)
    dtype = recipe.out_dtype or recipe.dtype or home.dtype
    steps = [step for step in by_layer[None] if home.before_layers(step.name)]
    hops = read_route(recipe, layouts)
    for slot, hop in enumerate(hops):
        # an unmerged source is copied
        own = by_layer[hop.layer] if hop.source == MERGED else _of_parent(hop, layouts, dtype, recipe)
        # a layer visited twice is stored twice
        steps += [replace(step, name=home.in_layer(step.name, slot)) for step in own]
    steps += [step for step in by_layer[None] if not home.before_layers(step.name)]
    return folded(steps, hops, home)  # a checkpoint has no entry scales, so weights take them


def _of_parent(hop: LayerCall, layouts: Mapping[str, Layout], dtype: str, recipe: Recipe) -> list[TensorOp]:
    """Return the steps, (tensors of the layer,), that copy one layer of one model in its shapes."""
    found, layout = [], layouts[hop.source]
    for name in layout.by_layer[hop.layer]:
        inputs = (Input(hop.source, name),)
        if name in layout.buffers:
            info = layout.buffers[name]
            found.append(TensorOp(name, info.shape, info.dtype, "", inputs, None, {}, "vector"))
            continue
        via = recipe.dtype if recipe.out_dtype else None
        shape, role = layout.tensors[name].shape, layout.role_of(name)
        found.append(TensorOp(name, shape, dtype, "passthrough", inputs, None, {}, role, via))
    return found
