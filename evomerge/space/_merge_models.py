"""The models of a merge, which can carry parameters: each entry of `models`, and each source of each slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.merge import Method, Parameter
from evomerge.space._markers import is_number
from evomerge.space._mergekit_schema import short_names
from evomerge.space._problems import Place, Problem
from evomerge.space._validation import covers


@dataclass
class MergeModel:
    """A model or source that can carry parameters of its own; `parameters` fills while the merge is expanded."""

    place: Place
    entry: Mapping[str, Any]
    name: str  # short, for genes
    is_base: bool
    layers: int | None  # None: not known, or searched
    slice: int | None = None  # index of its slice
    parameters: dict[str, Any] = field(default_factory=dict)  # plain forms with placeholders

    def takes_part(self, method: Method) -> bool:
        """True where the method gives this model coefficients: a base that it starts from has none."""
        return not (self.is_base and method.base != "none")  # its own task vector is zero; slerp starts at it


def merge_models(document: Mapping[str, Any], layers: int | None, place: Place) -> list[MergeModel]:
    """Return the models of a merge of good form, in order of appearance, once per slice that uses them."""
    base = document.get("base_model")
    rows: list[tuple[Place, Mapping[str, Any], bool, int | None, int | None]] = []
    for index, entry in enumerate(document.get("models") or ()):
        rows.append(((*place, "models", index), entry, entry["model"] == base, layers, None))
    for index, part in enumerate(document.get("slices") or ()):
        own_base = part.get("base_model") or base  # a slice's base_model wins over the merge's, as in mergekit
        for number, entry in enumerate(part["sources"]):
            at = (*place, "slices", index, "sources", number)
            rows.append((at, entry, entry["model"] == own_base, _slice_layers(entry), index))
    names = short_names(list(dict.fromkeys(entry["model"] for _, entry, *_ in rows)))
    return [MergeModel(at, entry, names[entry["model"]], is_base, n, part) for at, entry, is_base, n, part in rows]


def model_problems(
    document: Mapping[str, Any], methods: list[Method], models: list[MergeModel], place: Place
) -> Iterator[Problem]:
    """Yield where the number of models, or the base, does not fit a possible method."""
    base, slices = document.get("base_model"), document.get("slices") or ()
    groups: dict[Place, list[MergeModel]] = {}  # one group per slice, as each slice is a merge of its own
    for model in models:
        groups.setdefault(model.place[:-1], []).append(model)
    for method in methods:
        if method.base == "required" and not base and not (slices and all(part.get("base_model") for part in slices)):
            yield Problem(place, f"{method.name} needs a base_model; name the models' common ancestor")
        for at, group in groups.items():
            yield from _count_problems(method, at, sum(model.takes_part(method) for model in group))
        # several methods: `_for_method` drops the base from recipes of those without one
        if base and not slices and methods == [method] and method.base == "none" and not any(t.is_base for t in models):
            # mergekit would average it in as one more model, which has no weight in the file
            advice = "list it under models with its own parameters, or remove base_model"
            yield Problem((*place, "base_model"), f"{method.name} starts from no base; {advice}")


def missing_problems(
    template: Mapping[str, Any], methods: list[Method], models: list[MergeModel], place: Place
) -> Iterator[Problem]:
    """Yield, per method and required parameter, the first model that has no value for some tensor."""
    for method in methods:
        for parameter in method.parameters:
            if parameter.default is not None:  # mergekit has a default of its own: not required
                continue
            bare = next((t for t in models if t.takes_part(method) and not _given(parameter, t, template)), None)
            if bare is not None:
                low, high = parameter.search or (0.0, 1.0)
                text = f"{method.name} needs {parameter.name} for every tensor ({parameter.summary}); "
                text += f"write a number, or {{search: [{low:g}, {high:g}]}}"
                yield Problem(bare.place if parameter.per_model else place, text)


def _given(parameter: Parameter, model: MergeModel, template: Mapping[str, Any]) -> bool:
    levels: list[Mapping[str, Any]] = [template.get("parameters", {})]
    if model.slice is not None:
        levels.append(template["slices"][model.slice].get("parameters", {}))
    if parameter.per_model:
        levels.append(model.parameters)
    return any(covers(level.get(parameter.name)) for level in levels)


def _count_problems(method: Method, place: Place, count: int) -> Iterator[Problem]:
    fewest, most = method.models
    if count < fewest or (most is not None and count > most):
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}" if most else f"at least {fewest}"
        besides = " besides the base" if method.base != "none" else ""
        yield Problem(place, f"{method.name} merges {wanted} model{'s' * (wanted != '1')}{besides}, got {count}")


def _slice_layers(source: Mapping[str, Any]) -> int | None:
    first, end = source["layer_range"]
    # searched bounds: depth known after decoding only
    return int(end - first) if is_number(first) and is_number(end) else None
