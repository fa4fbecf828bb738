"""A recipe as a table: which value every parameter has for every model at every depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge.merge import CATALOGUE
from evomerge.recipe import Conditional, Parameters, Recipe, Scalar, Slice, evaluate_setting
from evomerge.space import short_names

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("parameter", "model", "layer", "module", "value")
ALL = "all"  # module: the value does not depend on the part of a layer
OUTSIDE = -1  # layer: embedding, final norm and head


def coefficients_frame(recipe: Recipe, layers: int, modules: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """Return one row per parameter, model, layer and part of a layer.

    Values are resolved as merging does: a model's own setting before its slice's before the recipe's, filters and
    gradients over depth included. Parameters of the whole merge (lambda) have the model ''.

    Args:
        recipe: what is merged.
        layers: hidden layers of the base, for recipes without slices.
        modules: attention and mlp -> parts of tensor names by which they are found in this architecture.
    """
    import pandas as pd

    names = short_names(list(recipe.references()))
    kinds = {p.name: p.per_model for p in CATALOGUE[recipe.method].parameters} if recipe.method in CATALOGUE else {}
    rows: list[tuple[Any, ...]] = []
    for layer, depth, part in _layers(recipe, layers):
        above = [part.parameters, recipe.parameters]
        for parameter in sorted(_named(part, recipe)):
            # passthrough's scale may stand under its one source
            own = any(parameter in dict(source.parameters) for source in part.sources)
            whole = not own and not kinds.get(parameter, True)
            for source in [None] if whole else part.sources:
                # task vectors start at the base: it has no coefficient
                if source is not None and source.model == (part.base or recipe.base):
                    continue
                # innermost first: the first that has a value wins
                scopes = above if source is None else [source.parameters, *above]
                # one row where no filter distinguishes modules
                for module, value in _values(parameter, scopes, depth, layer, modules or {}):
                    rows.append((parameter, names[source.model] if source else "", layer, module, value))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _layers(recipe: Recipe, layers: int) -> Iterator[tuple[int, float, Slice]]:
    """Yield (layer of the merged model or OUTSIDE, depth in [0, 1] within its slice, slice)."""
    parts = list(recipe.slices) or [Slice(recipe.models)]
    yield OUTSIDE, 0.0, parts[0]  # mergekit's rule, see `weights.steps`
    merged_layer = 0
    for part in parts:
        first, end = (part.sources[0].layers or (0, layers)) if recipe.slices else (0, layers)
        length = end - first
        for index in range(length):
            # mergekit's depth: 0 to 1 within each slice
            yield merged_layer, index / (length - 1) if length > 1 else 1.0, part
            merged_layer += 1


def _named(part: Slice, recipe: Recipe) -> set[str]:
    scopes: list[Parameters] = [recipe.parameters, part.parameters, *(s.parameters for s in part.sources)]
    return {name for scope in scopes for name, _ in scope}


def _values(
    parameter: str, scopes: Sequence[Parameters], depth: float, layer: int, modules: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Scalar]]:
    """Yield (module, value); a single row for all modules where no filter distinguishes them."""
    settings = [dict(scope)[parameter] for scope in scopes if parameter in dict(scope)]
    filters = [f for setting in settings for f in _filters(setting)]
    # modules are parts of layers only
    parts = {ALL: ""} if not filters or layer == OUTSIDE else _parts(filters, modules)
    for module, tensor in parts.items():
        for setting in settings:
            value = evaluate_setting(setting, tensor, depth)
            if value is not None:  # None: no filter of this setting matches, so the next scope decides
                yield module, value
                break


def _filters(setting: Any) -> list[str]:
    conditions = [c for c in setting if isinstance(c, Conditional)] if isinstance(setting, tuple) else []
    return [c.filter for c in conditions if c.filter not in (None, "*")]


def _parts(filters: Sequence[str], modules: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return module -> a text in which filters find what they would find in the names of its tensors."""
    known = {name: tuple(parts) for name, parts in modules.items()}
    owned = {part for parts in known.values() for part in parts}  # parts of names that belong to a module
    found = {
        name: " ".join(parts) for name, parts in known.items() if any(f in part for f in filters for part in parts)
    }
    found |= {f: f for f in filters if not any(f in part for part in owned)}
    return {**found, "other": ""}  # the empty text matches no filter, like tensors that no filter names
