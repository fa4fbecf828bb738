"""From a merge with markers to a template and its genes: every marker becomes plain mergekit forms with placeholders.

`settings` turns one setting into plain forms; this module decides which settings there are, and which of them move to
the models: a setting with `per: model` anywhere in it goes under each model's own parameters, where a
model's own setting wins, as in mergekit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import near
from evomerge.merge import CATALOGUE, Method
from evomerge.space._genes import Gene
from evomerge.space._markers import is_marker, read_marker
from evomerge.space._merge_models import MergeModel, merge_models, missing_problems, model_problems
from evomerge.space._mergekit_schema import DTYPES
from evomerge.space._parameter_expansion import SettingReader
from evomerge.space._problems import Place, Problem
from evomerge.space._template import GeneTable, ParameterSite, definition
from evomerge.space._validation import covers
from evomerge.space.routes._request import only_lends

_WORDS = {"merge_method": tuple(CATALOGUE), "dtype": DTYPES, "out_dtype": DTYPES}


@dataclass(frozen=True)
class Expansion:
    """A merge with placeholders in place of its markers; complete only where there are no problems."""

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
        routed: a route decides which layers run; then passthrough may list any number of models that lend layers.
    """
    builder = _Builder(document, modules, place)
    if not builder.methods:  # no name is a known method, so that no parameter could be checked
        return Expansion(builder.template, (), tuple(builder.problems))
    models = merge_models(document, layers, place)
    # a route lends layers of any number of models
    counted = [method for method in builder.methods if not (routed and only_lends(document))]
    builder.report(*model_problems(document, counted, models, place))
    for model in models:
        builder.own_parameters(model)  # models first: their own settings win over those of slices and of the merge
    builder.slice_parameters(models)
    shared = ParameterSite((*place, "parameters"), "", (), layers=layers if document.get("models") else None)
    builder.shared_parameters(document, builder.template, models, shared)
    builder.fill_in(models)
    if not builder.problems:  # otherwise the parameter may only be misspelt
        builder.report(*missing_problems(builder.template, builder.methods, models, place))
    names = [method.name for method in builder.methods]
    return Expansion(builder.template, builder.genes.genes(names), tuple(builder.problems))


class _Builder:
    """Gathers template, genes and problems while it walks one document."""

    def __init__(
        self, document: Mapping[str, Any], modules: Mapping[str, tuple[str, ...]] | None, place: Place
    ) -> None:
        self.document, self.place = document, place
        self.problems: dict[Problem, None] = {}  # a dict as an ordered set
        self.genes = GeneTable()
        self._reader = SettingReader(self.genes, modules, self.problems)
        method = document["merge_method"]
        self.methods = [CATALOGUE[method]] if isinstance(method, str) else []  # `_word` sets those of a searched method
        # before the parameters, which depend on the possible methods
        self.template = {key: self._word(key, value) for key, value in document.items() if key not in _TREES}

    def report(self, *problems: Problem) -> None:
        """Add problems that are not known yet."""
        self.problems.update(dict.fromkeys(problems))

    def own_parameters(self, model: MergeModel) -> None:
        """Read the parameters of one model or source."""
        for name, setting in (model.entry.get("parameters") or {}).items():
            place = (*model.place, "parameters", name)
            site = self._model_site(place, name, model, model.layers, own=True)
            if site is not None and self._depth_is_known(setting, site):
                model.parameters[name] = self._reader.read(setting, site)

    def slice_parameters(self, models: list[MergeModel]) -> None:
        """Read the parameters of the slices."""
        for index, part in enumerate(self.document.get("slices") or ()):
            own = [model for model in models if model.slice == index]
            rest = {key: value for key, value in part.items() if key not in ("sources", "parameters")}
            self.template.setdefault("slices", []).append({**rest, "sources": []})
            place = (*self.place, "slices", index, "parameters")
            site = ParameterSite(place, "", (), f"slice{index}", layers=own[0].layers)
            self.shared_parameters(part, self.template["slices"][index], own, site)

    def shared_parameters(
        self, part: Mapping[str, Any], template: dict[str, Any], models: list[MergeModel], outer: ParameterSite
    ) -> None:
        """Read the parameters of a slice or of the whole merge; some move to the models in it."""
        for name, setting in (part.get("parameters") or {}).items():
            accepting = self._methods_with((*outer.place, name), name)
            if accepting is None:
                continue
            methods = tuple(method.name for method in accepting)
            site = ParameterSite((*outer.place, name), name, methods, outer.prefix, layers=outer.layers)
            if _says(setting, "model"):
                self._spread(setting, site, models)
            elif self._depth_is_known(setting, site):
                template.setdefault("parameters", {})[name] = self._reader.read(setting, site)

    def fill_in(self, models: list[MergeModel]) -> None:
        """Put the models and sources into the template, with the parameters that they have by now."""
        for model in models:
            entry: dict[str, Any] = {"model": model.entry["model"]}
            if model.slice is not None:
                entry["layer_range"] = self._layer_range(model)
            if model.parameters:
                entry["parameters"] = model.parameters
            parent = self.template if model.slice is None else self.template["slices"][model.slice]
            parent.setdefault("models" if model.slice is None else "sources", []).append(entry)

    def _spread(self, setting: Any, site: ParameterSite, models: list[MergeModel]) -> None:
        """Give each model the setting under its own parameters."""
        name = site.parameter
        if site.methods and not any(definition(method, name).per_model for method in site.methods):
            known = sorted({p.name for method in self.methods for p in method.parameters if p.per_model})
            advice = f"per-model parameters: {', '.join(known)}" if known else "remove model from per"
            self.report(Problem(site.place, f"{name} is one value for all models; {advice}"))
        elif self._depth_is_known(setting, site):
            for model in models:
                own = self._model_site(site.place, name, model, site.layers, prefix=site.prefix)
                if own is None or (site.methods and not own.methods):
                    continue  # no possible method has coefficients for this base
                if name not in model.parameters:  # a model's own setting, or its slice's, wins over the shared one
                    model.parameters[name] = self._reader.read(setting, own)
                # 0: inherited from a slice, already checked
                elif not covers((model.entry.get("parameters") or {}).get(name, 0)):
                    text = "set here for some filters only, and for all models elsewhere; add an entry without filter"
                    self.report(Problem((*model.place, "parameters", name), text))

    def _model_site(
        self, place: Place, name: str, model: MergeModel, layers: int | None, *, own: bool = False, prefix: str = ""
    ) -> ParameterSite | None:
        """Return the site of a parameter for one model, or None, with a problem, where it cannot be set there."""
        accepting = self._methods_with(place, name)
        if accepting is None:
            return None
        # mergekit reads other parameters from the merge only
        per_model = [method for method in accepting if definition(method.name, name).per_model]
        if own and accepting and not per_model:
            self.report(Problem(place, f"{name} is one value for all models; move it to the merge's own parameters"))
            return None
        active = tuple(method.name for method in per_model if model.takes_part(method))
        # gene names of two slices must differ
        prefix = f"slice{model.slice}" if own and model.slice is not None else prefix
        return ParameterSite(place, name, active, prefix, model.name, layers)

    def _methods_with(self, place: Place, name: str) -> list[Method] | None:
        """Return the possible methods that have this parameter; None, with a problem, where it is unknown to all."""
        accepting = [method for method in self.methods if any(p.name == name for p in method.parameters)]
        # mergekit accepts these and does nothing
        if not accepting and not any(name in method.ignored for method in self.methods):
            known = list(dict.fromkeys(p.name for method in self.methods for p in method.parameters))
            methods = " or ".join(method.name for method in self.methods)
            self.report(Problem(place, f"unknown parameter of {methods}. {near(name, known)}"))
            return None
        return accepting

    def _depth_is_known(self, setting: Any, site: ParameterSite) -> bool:
        """Report a setting per layer or block where there is no one run of layers to spread it over."""
        stepwise = _says(setting, "layer") or _says(setting, "blocks")
        if not stepwise or site.layers is not None or not self.document.get("slices"):  # knots work at any depth
            return True
        advice = "use {knots: N}" if site.prefix else "move this into the parameters of each slice, or use {knots: N}"
        self.report(Problem(site.place, f"per layer or block needs one fixed layer_range; {advice}"))
        return False

    def _layer_range(self, model: MergeModel) -> list[Any]:
        bounds: list[Any] = []
        reach: list[float] = []  # the largest first and the smallest end
        for word, bound in zip(("first", "end"), model.entry["layer_range"], strict=True):
            place = (*model.place, "layer_range", len(bounds))
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
            reach.append(marker.gene.high if word == "first" else marker.gene.low)  # the worst case of the two bounds
            name = f"slice{model.slice}.layer_range.{model.name}.{word}"
            bounds.append(self.genes.placeholder(name, marker, place, ()))
        if reach[0] >= reach[1]:  # every genotype has to decode to a slice with at least one layer
            text = "first can reach end; keep the ranges of first and end apart"
            self.report(Problem((*model.place, "layer_range"), text))
        return bounds

    def _word(self, key: str, value: Any) -> Any:
        """Return a key's value, or the placeholder of a searched merge method or dtype."""
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
        return self.genes.placeholder(key, marker, place, ())


_TREES = ("parameters", "models", "slices")  # these can hold markers deeper down


def _says(setting: Any, word: str) -> bool:
    """True where some marker in a setting has `word` among its `per`."""
    if is_marker(setting):
        per = setting.get("per")
        items = per if isinstance(per, list) else [per]
        return any(item == word or (isinstance(item, Mapping) and word in item) for item in items)
    if isinstance(setting, Mapping):
        return any(_says(value, word) for value in setting.values())
    return isinstance(setting, list) and any(_says(entry, word) for entry in setting)
