"""From a merge with markers to a template and its genes: every marker becomes plain mergekit forms with gaps.

How one setting is turned into plain forms is `settings`' affair; here stands which settings there are, and which of
them move to the models: a setting with `per: model` anywhere in it goes under each model's own parameters, where a
model's own setting wins, as in mergekit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import near
from evomerge.merge.catalogue import CATALOGUE, Method
from evomerge.space.fit import covers
from evomerge.space.form import DTYPES
from evomerge.space.gaps import GeneTable, Spot, definition
from evomerge.space.genes import Gene
from evomerge.space.markers import is_marker, read_marker
from evomerge.space.problems import Place, Problem
from evomerge.space.route_request import only_lends
from evomerge.space.settings import SettingReader
from evomerge.space.targets import Target, find_targets, missing_problems, model_problems

_WORDS = {"merge_method": tuple(CATALOGUE), "dtype": DTYPES, "out_dtype": DTYPES}


@dataclass(frozen=True)
class Expansion:
    """A merge in which each marker has become plain forms with gaps; complete only where there are no problems."""

    template: dict[str, Any]
    genes: tuple[Gene, ...]
    problems: tuple[Problem, ...]


def expand(
    document: Mapping[str, Any],
    layers: int | None = None,
    modules: Mapping[str, tuple[str, ...]] | None = None,
    place: Place = (),
    *,
    routed: bool = False,
) -> Expansion:
    """Return template, genes and problems of a merge whose form is good (`form.check_form`).

    Args:
        document: mergekit document with markers.
        layers: hidden layers of the base; None checks all that can be checked without knowing.
        modules: parts of tensor names per module of this architecture; None likewise.
        place: where `document` stands, for problems.
        routed: a route says which layers run; then passthrough may list any number of models, which lend their layers.
    """
    builder = _Builder(document, modules, place)
    if not builder.methods:  # none of the names is a method: no parameter could be right
        return Expansion(builder.template, (), tuple(builder.problems))
    targets = find_targets(document, layers, place)
    counted = [method for method in builder.methods if not (routed and only_lends(document))]
    builder.report(*model_problems(document, counted, targets, place))
    for target in targets:
        builder.own_parameters(target)
    builder.slice_parameters(targets)
    shared = Spot((*place, "parameters"), "", (), layers=layers if document.get("models") else None)
    builder.shared_parameters(document, builder.template, targets, shared)
    builder.fill_in(targets)
    if not builder.problems:  # else what looks missing may only be misspelt
        builder.report(*missing_problems(builder.template, builder.methods, targets, place))
    names = [method.name for method in builder.methods]
    return Expansion(builder.template, builder.genes.genes(names), tuple(builder.problems))


class _Builder:
    """Gathers template, genes and problems while it walks one document."""

    def __init__(
        self, document: Mapping[str, Any], modules: Mapping[str, tuple[str, ...]] | None, place: Place
    ) -> None:
        self.document, self.place = document, place
        self.problems: dict[Problem, None] = {}
        self.genes = GeneTable()
        self._reader = SettingReader(self.genes, modules, self.problems)
        method = document["merge_method"]
        self.methods = [CATALOGUE[method]] if isinstance(method, str) else []
        self.template = {key: self._word(key, value) for key, value in document.items() if key not in _TREES}

    def report(self, *problems: Problem) -> None:
        """Add problems that are not known yet."""
        self.problems.update(dict.fromkeys(problems))

    def own_parameters(self, target: Target) -> None:
        """Read what one model or source says itself."""
        for name, setting in (target.entry.get("parameters") or {}).items():
            place = (*target.place, "parameters", name)
            spot = self._model_spot(place, name, target, target.layers, own=True)
            if spot is not None and self._depth_is_known(setting, spot):
                target.parameters[name] = self._reader.read(setting, spot)

    def slice_parameters(self, targets: list[Target]) -> None:
        """Read what the slices say themselves."""
        for index, part in enumerate(self.document.get("slices") or ()):
            own = [target for target in targets if target.slice == index]
            rest = {key: value for key, value in part.items() if key not in ("sources", "parameters")}
            self.template.setdefault("slices", []).append({**rest, "sources": []})
            place = (*self.place, "slices", index, "parameters")
            spot = Spot(place, "", (), f"slice{index}", layers=own[0].layers)
            self.shared_parameters(part, self.template["slices"][index], own, spot)

    def shared_parameters(
        self, part: Mapping[str, Any], template: dict[str, Any], targets: list[Target], around: Spot
    ) -> None:
        """Read the parameters of a slice or of the whole merge; some move to the models in it."""
        for name, setting in (part.get("parameters") or {}).items():
            knowing = self._knowing((*around.place, name), name)
            if knowing is None:
                continue
            methods = tuple(method.name for method in knowing)
            spot = Spot((*around.place, name), name, methods, around.prefix, layers=around.layers)
            if _says(setting, "model"):
                self._spread(setting, spot, targets)
            elif self._depth_is_known(setting, spot):
                template.setdefault("parameters", {})[name] = self._reader.read(setting, spot)

    def fill_in(self, targets: list[Target]) -> None:
        """Put the models and sources into the template, with the parameters that they have by now."""
        for target in targets:
            entry: dict[str, Any] = {"model": target.entry["model"]}
            if target.slice is not None:
                entry["layer_range"] = self._layer_range(target)
            if target.parameters:
                entry["parameters"] = target.parameters
            parent = self.template if target.slice is None else self.template["slices"][target.slice]
            parent.setdefault("models" if target.slice is None else "sources", []).append(entry)

    def _spread(self, setting: Any, spot: Spot, targets: list[Target]) -> None:
        """Give each model the setting under its own parameters."""
        name = spot.parameter
        if spot.methods and not any(definition(method, name).per_model for method in spot.methods):
            known = sorted({p.name for method in self.methods for p in method.parameters if p.per_model})
            advice = f"per model there are: {', '.join(known)}" if known else "remove model from per"
            self.report(Problem(spot.place, f"{name} is one value for all models; {advice}"))
        elif self._depth_is_known(setting, spot):
            for target in targets:
                own = self._model_spot(spot.place, name, target, spot.layers, prefix=spot.prefix)
                if own is None or (spot.methods and not own.methods):
                    continue  # a base that no possible method gives coefficients
                if name not in target.parameters:
                    target.parameters[name] = self._reader.read(setting, own)
                elif not covers((target.entry.get("parameters") or {}).get(name, 0)):
                    text = "set here for some filters only, and for all models elsewhere; add an entry without filter"
                    self.report(Problem((*target.place, "parameters", name), text))

    def _model_spot(
        self, place: Place, name: str, target: Target, layers: int | None, *, own: bool = False, prefix: str = ""
    ) -> Spot | None:
        """Return the spot of a parameter for one model, or None, with a problem, where it cannot be set there."""
        knowing = self._knowing(place, name)
        if knowing is None:
            return None
        per_model = [method for method in knowing if definition(method.name, name).per_model]
        if own and knowing and not per_model:
            self.report(Problem(place, f"{name} is one value for all models; move it to the merge's own parameters"))
            return None
        active = tuple(method.name for method in per_model if target.takes_part(method))
        prefix = f"slice{target.slice}" if own and target.slice is not None else prefix
        return Spot(place, name, active, prefix, target.name, layers)

    def _knowing(self, place: Place, name: str) -> list[Method] | None:
        """Return the possible methods that have this parameter; None, with a problem, where no one has heard of it."""
        knowing = [method for method in self.methods if any(p.name == name for p in method.parameters)]
        if not knowing and not any(name in method.ignored for method in self.methods):
            known = list(dict.fromkeys(p.name for method in self.methods for p in method.parameters))
            who = " or ".join(method.name for method in self.methods)
            self.report(Problem(place, f"unknown parameter of {who}. {near(name, known)}"))
            return None
        return knowing

    def _depth_is_known(self, setting: Any, spot: Spot) -> bool:
        """Report a setting per layer or block where there is no one run of layers to spread it over."""
        stepwise = _says(setting, "layer") or _says(setting, "blocks")
        if not stepwise or spot.layers is not None or not self.document.get("slices"):
            return True
        advice = "use {knots: N}" if spot.prefix else "move this into the parameters of each slice, or use {knots: N}"
        self.report(Problem(spot.place, f"per layer or block needs one fixed layer_range; {advice}"))
        return False

    def _layer_range(self, target: Target) -> list[Any]:
        bounds: list[Any] = []
        reach: list[float] = []  # the largest first and the smallest end
        for word, bound in zip(("first", "end"), target.entry["layer_range"], strict=True):
            place = (*target.place, "layer_range", len(bounds))
            if not is_marker(bound):
                bounds.append(int(bound))
                reach.append(bound)
                continue
            marker, problems = read_marker(bound, place)
            if marker is not None and (marker.gene.kind != "int" or marker.gene.low < 0 or "per" in bound):
                text = "a bound needs {search: [low, high], integer: true} with low of at least 0, and no per"
                problems = [Problem(place, text)]
            self.report(*problems)
            if marker is None or problems:
                return []
            reach.append(marker.gene.high if word == "first" else marker.gene.low)
            name = f"slice{target.slice}.layer_range.{target.name}.{word}"
            bounds.append(self.genes.gap(name, marker, place, ()))
        if reach[0] >= reach[1]:
            text = "first can reach end; keep the ranges of first and end apart"
            self.report(Problem((*target.place, "layer_range"), text))
        return bounds

    def _word(self, key: str, value: Any) -> Any:
        """Return a key's value, or the gap for a searched merge method or dtype."""
        if not is_marker(value):
            return value
        place, known = (*self.place, key), _WORDS.get(key, ())
        if not known:
            self.report(Problem(place, f"{key} cannot be searched; give one value"))
            return None
        marker, problems = read_marker(value, place)
        what = key.replace("_", " ")
        if marker is not None and (marker.gene.kind != "choice" or "per" in value):
            example = f"{{search: [{', '.join(known[:2])}]}}"
            problems = [Problem(place, f"a {what} is searched as a list of names, without per: {example}")]
        elif marker is not None:
            unknown = [str(choice) for choice in marker.gene.choices if choice not in known]
            at = (*place, "search")
            problems = [Problem(at, f"unknown {what} {name!r}. {near(name, known)}") for name in unknown]
        self.report(*problems)
        if marker is not None and key == "merge_method":
            self.methods = [CATALOGUE[str(choice)] for choice in marker.gene.choices if choice in CATALOGUE]
        if marker is None or problems:
            return None
        return self.genes.gap(key, marker, place, ())


_TREES = ("parameters", "models", "slices")  # what may hold markers deeper down


def _says(setting: Any, word: str) -> bool:
    """True where some marker in a setting has `word` among its `per`."""
    if is_marker(setting):
        per = setting.get("per")
        items = per if isinstance(per, list) else [per]
        return any(item == word or (isinstance(item, Mapping) and word in item) for item in items)
    if isinstance(setting, Mapping):
        return any(_says(value, word) for value in setting.values())
    return isinstance(setting, list) and any(_says(entry, word) for entry in setting)
