"""A route as a mergekit document: slices of passthrough, entry scales as scales of the branches' last linear maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.checkpoints import Layout, text_config
from evomerge.engine._merge_plan import donor_of, merged_part
from evomerge.engine.route._fold import FAMILIES, cumulative
from evomerge.engine.route._routes import MERGED, LayerCall, merged_origins, read_route
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe

_ELSEWHERE = "Export a folder (--as hf) or a recipe (--as recipe) instead"


def route_to_mergekit(recipe: Recipe, layouts: Mapping[str, Layout]) -> dict[str, Any]:
    """Return the mergekit document that makes the checkpoint of a recipe with a route.

    mergekit's passthrough takes each slice from one model, what comes before the layers from the first slice's model
    and what comes after them from the last one's.

    Args:
        recipe: with a route.
        layouts: of every model that the recipe names.

    Raises:
        WeightsError: mergekit cannot express the route; says why.
    """
    hops = read_route(recipe, layouts)
    models = _models(recipe, hops, layouts)
    donor = donor_of(recipe)  # mergekit takes these tensors from the outer slices instead
    for index, what in ((0, "embeddings of the first"), (-1, "final norm and head of the last")):
        if models[index][0] != donor:
            raise WeightsError(
                f"mergekit takes the {what} slice's model, '{models[index][0]}', this recipe takes those of '{donor}'. "
                f"{_ELSEWHERE}"
            )
    filters = _filters(hops, layouts[donor])
    slices: list[dict[str, Any]] = []
    end: tuple[str, int, float] | None = None  # what the next hop must be to go on with the last slice
    for (model, layer), product in zip(models, cumulative(hops) if filters else [1.0] * len(hops), strict=True):
        if end == (model, layer, product):
            slices[-1]["sources"][0]["layer_range"][1] += 1  # consecutive layers of one model are one slice
        else:
            slices.append({"sources": [_source(model, layer, product, filters)]})
        end = (model, layer + 1, product)
    document = merged_part(recipe).to_mergekit()
    for key in ("models", "slices", "base_model", "parameters"):  # passthrough takes none of the merge's own
        document.pop(key, None)
    return {**document, "merge_method": "passthrough", "slices": slices}


def _models(recipe: Recipe, hops: tuple[LayerCall, ...], layouts: Mapping[str, Layout]) -> list[tuple[str, int]]:
    """Return the (model, layer) of every hop, (hops,); 'merged' is a model where nothing is merged."""
    body = merged_part(recipe)
    # such a merge is its one model unchanged
    single = body.method == "passthrough" and not body.parameters and not any(s.parameters for s in body.models)
    merged = merged_origins(recipe, layouts)
    found = []
    for index, hop in enumerate(hops):
        if hop.source == MERGED and not (single and body.models):
            raise WeightsError(
                f"route, hop {index}: mergekit's passthrough cannot name the result of another merge ({body.method}). "
                f"{_ELSEWHERE}, or merge first and search routes over the merged folder"
            )
        # mergekit knows no 'merged' source
        found.append(merged[hop.layer] if hop.source == MERGED else (hop.source, hop.layer))
    return found


def _filters(hops: tuple[LayerCall, ...], layout: Layout) -> tuple[str, ...]:
    """Return the filters under which entry scales are written, none where all scales are 1."""
    if all(hop.scale == 1.0 for hop in hops):
        return ()
    family = str(text_config(layout.config).get("model_type"))
    branches = FAMILIES.get(family)
    if branches is None or not branches.filters:
        raise WeightsError(f"the entry scales of a {family} model cannot be written as scales of tensors. {_ELSEWHERE}")
    return branches.filters


def _source(model: str, layer: int, product: float, filters: tuple[str, ...]) -> dict[str, Any]:
    source: dict[str, Any] = {"model": model, "layer_range": [layer, layer + 1]}
    if product != 1.0:
        # mergekit's scale multiplies, folding divides
        scaled = [{"filter": word, "value": 1.0 / product} for word in filters]
        source["parameters"] = {"scale": [*scaled, {"value": 1.0}]}
    return source
