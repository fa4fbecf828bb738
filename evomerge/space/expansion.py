"""From a merge with markers to a template and its genes: every marker becomes plain mergekit forms with gaps.

A gap (`Ref`) says which gene's value goes there. What a marker's axes become:

- `model`: the value moves from the merge's (or slice's) parameters to those of each model; a model's own setting wins.
- `layer`, `{blocks: N}`: a gradient with exactly one entry per layer. `{knots: N}`: a gradient of N entries. mergekit
  evaluates gradients at depth 0 for tensors outside the layers, so embeddings, final norm and
  head take the first entry.
- `{modules: [...]}`, `{filters: [...]}`: a list of {filter, value}, whose last entry has no filter and is for the rest.

Everything that is wrong is collected as problems; a template is complete only where there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evomerge.errors import MergeError, near
from evomerge.merge.catalogue import CATALOGUE, Method
from evomerge.merge.parameters import Parameter
from evomerge.space.form import DTYPES, short_names
from evomerge.space.genes import Gene
from evomerge.space.markers import Depth, Marker, is_marker, is_number, read_marker
from evomerge.space.problems import Place, Problem

REST = "other"  # the name of what no module or filter names


@dataclass(frozen=True)
class Ref:
    """A gap in a template: the value of gene number `gene` goes here."""

    gene: int


@dataclass(frozen=True)
class Expansion:
    """A merge in which each marker has become plain forms with gaps, and the genes that fill them."""

    template: dict[str, Any]
    genes: tuple[Gene, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Spot:
    """Where a setting takes effect, and what is known there."""

    place: Place
    parameter: str
    prefix: str = ""  # 'slice0' within slices
    model: str = ""  # short name where the setting belongs to one model
    layers: int | None = None  # of the slice or model; None where not known
    methods: tuple[str, ...] = ()  # those among the possible methods in which the setting has an effect


@dataclass
class _Target:
    """A model or source that can carry parameters of its own."""

    place: Place
    entry: Mapping[str, Any]
    prefix: str
    name: str
    is_base: bool
    layers: int | None
    parameters: dict[str, Any] = field(default_factory=dict)  # what goes into the template


def expand(
    document: Mapping[str, Any],
    layers: int | None = None,
    modules: Mapping[str, tuple[str, ...]] | None = None,
    place: Place = (),
) -> Expansion:
    """Return template, genes and problems of a merge whose form is good (`form.check_form`).

    Args:
        document: mergekit document with markers.
        layers: hidden layers of the base; None checks all that can be checked without knowing.
        modules: parts of tensor names per module of this architecture; None likewise.
        place: where `document` stands, for problems.
    """
    builder = _Builder(document, layers, modules, place)
    builder.build()
    return Expansion(builder.template, builder.finished_genes(), tuple(builder.problems))


class _Builder:
    """Gathers genes and problems while it walks one document."""

    def __init__(
        self,
        document: Mapping[str, Any],
        layers: int | None,
        modules: Mapping[str, tuple[str, ...]] | None,
        place: Place,
    ) -> None:
        self.document, self.layers, self.modules, self.place = document, layers, modules, place
        self.template: dict[str, Any] = {}
        self.problems: dict[Problem, None] = {}  # a dict keeps order and drops what several models repeat
        self._genes: list[Gene] = []
        self._active: list[set[str]] = []  # per gene: the methods in which it has an effect
        self._known: dict[tuple[Place, str], int] = {}
        self.methods: tuple[str, ...] = ()

    def problem(self, place: Place, message: str) -> None:
        self.problems[Problem(place, message)] = None

    def build(self) -> None:
        for key, value in self.document.items():
            if key not in ("parameters", "models", "slices"):
                self.template[key] = self._word(key, value) if is_marker(value) else value
        method = self.document["merge_method"]
        self.methods = (method,) if isinstance(method, str) else self.methods or tuple(CATALOGUE)
        targets = self._targets()
        self._check_models(targets)
        for target in targets:
            self._own_parameters(target)
        parts = self.template.get("slices", [])
        for index, part in enumerate(self.document.get("slices") or ()):
            at = (*self.place, "slices", index)
            own = [target for target in targets if target.place[: len(at)] == at]
            self._shared_parameters(part, at, parts[index], own, f"slice{index}", own[0].layers)
        shared_layers = self.layers if "models" in self.document else None
        self._shared_parameters(self.document, self.place, self.template, targets, "", shared_layers)
        self._fill_in(targets)
        self._check_required(targets)

    def finished_genes(self) -> tuple[Gene, ...]:
        """Return the genes, each with the methods under which it is active where that is not all of them."""
        order = {name: index for index, name in enumerate(self.methods)}
        genes = []
        for gene, active in zip(self._genes, self._active, strict=True):
            partly = bool(active) and active != set(self.methods)
            names = tuple(sorted(active, key=order.__getitem__))
            genes.append(replace(gene, when=("merge_method", names)) if partly else gene)
        return tuple(genes)

    # models and slices -------------------------------------------------------------------------------------------

    def _targets(self) -> list[_Target]:
        references: list[str] = []
        rows: list[tuple[Place, Mapping[str, Any], str, bool, int | None]] = []
        base = self.document.get("base_model")
        for index, entry in enumerate(self.document.get("models") or ()):
            rows.append(((*self.place, "models", index), entry, "", entry["model"] == base, self.layers))
        if self.document.get("slices"):
            self.template["slices"] = []
        for index, part in enumerate(self.document.get("slices") or ()):
            rest = {key: value for key, value in part.items() if key not in ("sources", "parameters")}
            self.template["slices"].append({**rest, "sources": []})
            for number, entry in enumerate(part["sources"]):
                at = (*self.place, "slices", index, "sources", number)
                is_base = entry["model"] == part.get("base_model", base)
                rows.append((at, entry, f"slice{index}", is_base, _slice_layers(entry)))
        references = list(dict.fromkeys(entry["model"] for _, entry, *_ in rows))
        names = short_names(references)
        return [_Target(at, entry, prefix, names[entry["model"]], is_base, n) for at, entry, prefix, is_base, n in rows]

    def _check_models(self, targets: list[_Target]) -> None:
        groups: dict[Place, list[_Target]] = {}
        for target in targets:
            groups.setdefault(target.place[:-1], []).append(target)
        for method in map(CATALOGUE.__getitem__, self.methods):
            has_base = self.document.get("base_model") is not None
            slices = self.document.get("slices") or ()
            if method.base == "required" and not has_base and not (slices and all("base_model" in s for s in slices)):
                self.problem(self.place, f"{method.name} needs a base_model; name the models' common ancestor")
            for at, group in groups.items():
                self._check_count(method, at, sum(not (t.is_base and method.base != "none") for t in group))
            only = self.methods == (method.name,) and method.base == "none"
            if only and has_base and "models" in self.document and not any(target.is_base for target in targets):
                advice = "list it under models with its own weight, or remove base_model"
                self.problem((*self.place, "base_model"), f"{method.name} has no base; {advice}")

    def _check_count(self, method: Method, place: Place, count: int) -> None:
        fewest, most = method.models
        if count < fewest or (most is not None and count > most):
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}" if most else f"at least {fewest}"
            besides = " besides the base" if method.base != "none" else ""
            self.problem(place, f"{method.name} merges {wanted} model{'s' * (wanted != '1')}{besides}, got {count}")

    def _fill_in(self, targets: list[_Target]) -> None:
        for target in targets:
            entry: dict[str, Any] = {"model": target.entry["model"]}
            if "layer_range" in target.entry:
                entry["layer_range"] = self._layer_range(target)
            if target.parameters:
                entry["parameters"] = target.parameters
            if "slices" in self.template:
                self.template["slices"][target.place[len(self.place) + 1]]["sources"].append(entry)
            else:
                self.template.setdefault("models", []).append(entry)

    def _layer_range(self, target: _Target) -> list[Any]:
        result: list[Any] = []
        extremes: list[float] = []
        for word, bound in zip(("first", "end"), target.entry["layer_range"], strict=True):
            at = (*target.place, "layer_range", len(result))
            if not is_marker(bound):
                result.append(int(bound))
                extremes.append(bound)
                continue
            marker, problems = read_marker(bound, at)
            self.problems.update(dict.fromkeys(problems))
            if marker is None:
                continue
            if marker.gene.kind != "int" or marker.gene.low < 0 or set(bound) & {"per"}:
                self.problem(
                    at, "a bound of layers needs {search: [low, high], integer: true} with low >= 0, without per"
                )
                continue
            extremes.append(marker.gene.high if word == "first" else marker.gene.low)
            name = ".".join((target.prefix, "layer_range", target.name, word))
            result.append(self._ref(name, marker, at, self.methods))
        if len(extremes) == 2 and extremes[0] >= extremes[1]:
            self.problem((*target.place, "layer_range"), "first can reach end; keep the ranges of first and end apart")
        return result

    # words -------------------------------------------------------------------------------------------------------

    def _word(self, key: str, value: Mapping[str, Any]) -> Ref | None:
        """Return the gap for a searched merge_method or dtype."""
        place = (*self.place, key)
        known = {"merge_method": tuple(CATALOGUE), "dtype": DTYPES, "out_dtype": DTYPES}.get(key)
        if known is None:
            self.problem(place, f"{key} cannot be searched; give one value")
            return None
        marker, problems = read_marker(value, place)
        self.problems.update(dict.fromkeys(problems))
        if marker is None:
            return None
        what = key.replace("merge_method", "merge method")
        unknown = [choice for choice in marker.gene.choices if choice not in known]
        for choice in unknown:
            self.problem((*place, "search"), f"unknown {what} {choice!r}. {near(str(choice), known)}")
        if marker.gene.kind != "choice" or "per" in value:
            self.problem(
                place, f"a {what} is searched as a list of names, without per: {{search: [{', '.join(known[:2])}]}}"
            )
            return None
        if unknown:
            return None
        names = tuple(str(choice) for choice in marker.gene.choices)
        if key == "merge_method":
            self.methods = names
        return self._ref(key, marker, place, ())

    # parameters --------------------------------------------------------------------------------------------------

    def _own_parameters(self, target: _Target) -> None:
        for name, setting in (target.entry.get("parameters") or {}).items():
            place = (*target.place, "parameters", name)
            spot = self._spot(place, name, target, own=True)
            if spot is not None:
                target.parameters[name] = self._setting(setting, spot)

    def _shared_parameters(
        self,
        part: Mapping[str, Any],
        place: Place,
        template: dict[str, Any],
        targets: list[_Target],
        prefix: str,
        layers: int | None,
    ) -> None:
        shared: dict[str, Any] = {}
        for name, setting in (part.get("parameters") or {}).items():
            at = (*place, "parameters", name)
            spot = self._spot(at, name, None, prefix=prefix, layers=layers)
            if spot is None:
                continue
            if _any_per_model(setting):
                self._spread(setting, spot, targets)
            else:
                shared[name] = self._setting(setting, spot)
        if shared:
            template["parameters"] = shared

    def _spread(self, setting: Any, spot: Spot, targets: list[_Target]) -> None:
        """Give each model the setting under its own parameters; what it says itself wins, as in mergekit."""
        name = spot.parameter
        if spot.methods and not any(_parameter(method, name).per_model for method in spot.methods):
            known = sorted({p.name for m in self.methods for p in CATALOGUE[m].parameters if p.per_model})
            advice = f"Parameters per model: {', '.join(known)}." if known else "Remove model from per."
            self.problem(spot.place, f"{name} is one value for all models; `per: model` does not apply. {advice}")
            return
        for target in targets:
            own = self._spot(spot.place, name, target, prefix=spot.prefix, layers=spot.layers)
            if own is None or (not own.methods and spot.methods):  # a base that no method gives parameters
                continue
            if name not in target.parameters and name not in (target.entry.get("parameters") or {}):
                target.parameters[name] = self._setting(setting, own)
            elif not _covers(target.entry.get("parameters", {}).get(name)):
                text = f"{name} is also set for {target.name!r}, but for some filters only; add an entry without filter"
                self.problem((*target.place, "parameters", name), text)

    def _spot(
        self,
        place: Place,
        name: str,
        target: _Target | None,
        *,
        own: bool = False,
        prefix: str = "",
        layers: int | None = None,
    ) -> Spot | None:
        """Return the spot of a parameter, or None with a problem where no possible method knows it there."""
        entries = [CATALOGUE[method] for method in self.methods]
        knowing = [entry for entry in entries if any(p.name == name for p in entry.parameters)]
        if not knowing and not any(name in entry.ignored for entry in entries):
            known = list(dict.fromkeys(p.name for entry in entries for p in entry.parameters))
            self.problem(place, f"unknown parameter of {' or '.join(self.methods)}. {near(name, known)}")
            return None
        if target is None:
            return Spot(place, name, prefix, "", layers, tuple(entry.name for entry in knowing))
        per_model = [entry for entry in knowing if _parameter(entry.name, name).per_model]
        if own and knowing and not per_model:
            self.problem(place, f"{name} is one value for all models; move it to the merge's own parameters")
            return None
        active = tuple(entry.name for entry in per_model if not (target.is_base and entry.base != "none"))
        if own:
            return Spot(place, name, target.prefix, target.name, target.layers, active)
        return Spot(place, name, prefix, target.name, layers, active)

    def _setting(self, setting: Any, spot: Spot) -> Any:
        """Return a setting in mergekit's plain forms, with gaps where it was searched."""
        if is_marker(setting):
            return self._marker(setting, spot)
        if isinstance(setting, Mapping):
            return self._conditionals([setting], spot)
        if isinstance(setting, list):
            if any(isinstance(entry, Mapping) and not is_marker(entry) for entry in setting):
                return self._conditionals(setting, spot)
            return self._gradient(setting, spot)
        self._check_value(setting, spot)
        return setting

    def _conditionals(self, entries: list[Any], spot: Spot) -> list[dict[str, Any]]:
        result = []
        single = spot.place[-1] == spot.parameter and len(entries) == 1
        for index, entry in enumerate(entries):
            at = spot.place if single and not isinstance(entry, list) else (*spot.place, index)
            if not isinstance(entry, Mapping) or "value" not in entry or set(entry) - {"filter", "value"}:
                self.problem(
                    at, f"each entry of a list with filters must be {{filter: ..., value: ...}}, got {entry!r}"
                )
                continue
            pattern = entry.get("filter")
            if pattern is not None and (not isinstance(pattern, str) or not pattern):
                self.problem((*at, "filter"), f"must be a part of tensor names, got {pattern!r}")
                continue
            group = REST if pattern in (None, "*") else pattern
            value, inner = entry["value"], replace(spot, place=(*at, "value"))
            if is_marker(value):
                plain = self._marker(value, inner, group=group)
            elif isinstance(value, list):
                plain = self._gradient(value, inner, group=group)
            else:
                self._check_value(value, inner)
                plain = value
            result.append({"value": plain} if pattern is None else {"filter": pattern, "value": plain})
        return result

    def _gradient(self, entries: list[Any], spot: Spot, group: str = "") -> list[Any]:
        if not entries:
            self.problem(spot.place, "an empty list has no value; give numbers, or remove the parameter")
        result = []
        for index, entry in enumerate(entries):
            inner = replace(spot, place=(*spot.place, index))
            if is_marker(entry):
                result.append(self._marker(entry, inner, depth=f"knot{index}", group=group))
            else:
                self._check_value(entry, inner)
                result.append(entry)
        return result

    # markers -----------------------------------------------------------------------------------------------------

    def _marker(self, raw: Mapping[str, Any], spot: Spot, *, depth: str = "", group: str = "") -> Any:
        """Return the plain forms of a marker: a gap, a gradient of gaps, or a list of filters over them."""
        marker, problems = read_marker(raw, spot.place)
        self.problems.update(dict.fromkeys(problems))
        if marker is None or not self._marker_fits(marker, spot, depth, group):
            return None
        if self._integer_parameter(spot) and marker.gene.kind == "float":
            marker = replace(marker, gene=replace(marker.gene, kind="int"))
        groups = [(word, parts) for word, parts in self._groups(marker, spot)]
        if not groups:
            return self._curve(marker, spot, depth, group)
        result = []
        for word, parts in groups:
            value = self._curve(marker, spot, depth, word)
            result += [{"filter": part, "value": value} if part else {"value": value} for part in parts]
        return result

    def _groups(self, marker: Marker, spot: Spot) -> list[tuple[str, tuple[str, ...]]]:
        """Return the modules or filters, each with the parts of tensor names that find it; '' for the rest, last."""
        if marker.filters:
            return [*((name, (name,)) for name in marker.filters), (REST, ("",))]
        rows: list[tuple[str, tuple[str, ...]]] = []
        for name in sorted(marker.modules, key=lambda word: word == REST):
            parts = ("",) if name == REST else (name,) if self.modules is None else self.modules.get(name, ())
            if not parts:
                known = ", ".join([*(self.modules or ()), REST])
                self.problem(spot.place, f"no tensor of this architecture belongs to module {name!r}; it has: {known}")
            rows.append((name, parts))
        return rows

    def _curve(self, marker: Marker, spot: Spot, depth: str, group: str) -> Any:
        def gap(label: str) -> Ref:
            name = ".".join(part for part in (spot.prefix, spot.parameter, spot.model, label, group) if part)
            return self._ref(name, marker, spot.place, spot.methods)

        if marker.depth is None:
            return gap(depth)
        if marker.depth.form == "knots":
            return [gap(f"knot{index}") for index in range(marker.depth.count)]
        layers = self._layers_for(marker.depth, spot)
        if marker.depth.form == "layer":
            return [gap(f"layer{layer}") for layer in range(layers)]
        blocks = marker.depth.count
        return [gap(f"block{layer * blocks // layers}") for layer in range(layers)]

    def _layers_for(self, depth: Depth, spot: Spot) -> int:
        if spot.layers is None:
            if spot.prefix:
                self.problem(spot.place, f"per {depth.form} needs a slice whose layer_range is fixed; use {{knots: N}}")
            elif self.document.get("slices"):
                self.problem(spot.place, f"per {depth.form} is per slice; move this into the parameters of the slices")
            return max(depth.count, 1)
        if depth.count > spot.layers:
            text = f"{depth.count} blocks do not fit in {spot.layers} layers; write {{blocks: {spot.layers}}} or fewer"
            self.problem(spot.place, text)
            return depth.count
        return spot.layers

    def _marker_fits(self, marker: Marker, spot: Spot, depth: str, group: str) -> bool:
        before = len(self.problems)
        if depth and (marker.depth or marker.modules or marker.filters):
            self.problem(
                spot.place, "an entry of a gradient cannot itself vary over depth or modules; only `per: model`"
            )
        elif group and (marker.modules or marker.filters):
            self.problem(spot.place, "this value has a filter already; remove modules and filters from its `per`")
        if marker.per_model and not spot.model:
            self.problem(spot.place, "`per: model` needs models beside it")
        elif marker.per_model and self._inside_model(spot.place):
            self.problem(spot.place, "`per: model` is said inside one model already; remove model from per")
        if (marker.depth or depth) and not marker.numeric:
            self.problem(
                spot.place, "names cannot vary over depth, as mergekit picks them by rounding; use modules or filters"
            )
        if (
            marker.modules
            and REST not in marker.modules
            and any(_parameter(method, spot.parameter).default is None for method in spot.methods)
        ):
            self.problem(
                spot.place,
                f"{spot.parameter} has no default; add other to modules, for all tensors that are in neither",
            )
        if not spot.methods:
            self.problem(spot.place, f"{spot.parameter} changes nothing here; give a number, or remove it")
        self._check_range(marker, spot)
        return len(self.problems) == before

    def _inside_model(self, place: Place) -> bool:
        return "models" in place[len(self.place) :] or "sources" in place[len(self.place) :]

    def _check_range(self, marker: Marker, spot: Spot) -> None:
        gene = marker.gene
        for method in spot.methods:
            parameter = _parameter(method, spot.parameter)
            words = parameter.choices or (("true", "false") if isinstance(parameter.default, bool) else ())
            if words and gene.kind != "choice":
                self.problem(spot.place, f"{parameter.name} is no number; write {{search: [{', '.join(words)}]}}")
                return
            at = (*spot.place, "search")
            for value in gene.choices or (gene.low, gene.high):
                if not self._check_value(value, replace(spot, place=at)):
                    return
            if isinstance(parameter.default, bool) and not all(isinstance(choice, bool) for choice in gene.choices):
                self.problem(at, f"{parameter.name} must be true or false, got {list(gene.choices)}")
                return

    def _check_value(self, value: Any, spot: Spot) -> bool:
        for method in spot.methods:
            try:
                _parameter(method, spot.parameter).check(value, f"{method}: {spot.parameter}")
            except MergeError as error:
                self.problem(spot.place, str(error))
                return False
            except TypeError:  # a list or mapping where a value belongs
                self.problem(spot.place, f"{spot.parameter} must be a single value here, got {value!r}")
                return False
        return True

    def _integer_parameter(self, spot: Spot) -> bool:
        defaults = [_parameter(method, spot.parameter).default for method in spot.methods]
        return any(isinstance(default, int) and not isinstance(default, bool) for default in defaults)

    def _ref(self, name: str, marker: Marker, place: Place, methods: tuple[str, ...]) -> Ref:
        """Return the gap of the gene of this name and place, made at its first mention."""
        if (place, name) not in self._known:
            taken = {gene.name for gene in self._genes}
            unique, number = name, 2
            while unique in taken:  # two entries of one list can carry the same filter
                unique, number = f"{name}_{number}", number + 1
            self._known[place, name] = len(self._genes)
            self._genes.append(replace(marker.gene, name=unique))
            self._active.append(set())
        index = self._known[place, name]
        self._active[index].update(methods)
        return Ref(index)

    # completeness ------------------------------------------------------------------------------------------------

    def _check_required(self, targets: list[_Target]) -> None:
        """Report parameters that a method needs and that some model or slice has no value for."""
        if self.problems:
            return  # what looks missing may only be misspelt
        for method in map(CATALOGUE.__getitem__, self.methods):
            for parameter in method.parameters:
                if parameter.default is None:
                    self._check_given(method, parameter, targets)

    def _check_given(self, method: Method, parameter: Parameter, targets: list[_Target]) -> None:
        slices = self.template.get("slices", [])
        for target in targets:
            if target.is_base and method.base != "none":
                continue
            index = target.place[len(self.place) + 1]
            levels = [self.template, slices[index] if slices else {}]
            levels += [{"parameters": target.parameters}] if parameter.per_model else []
            if not any(_covers(level.get("parameters", {}).get(parameter.name)) for level in levels):
                example = (
                    f"{parameter.name}: {{search: [{parameter.search[0]:g}, {parameter.search[1]:g}]}}"
                    if parameter.search
                    else ""
                )
                at = target.place if parameter.per_model else self.place
                needed = f"{method.name} needs {parameter.name} ({parameter.summary}) for every tensor"
                text = f"{needed}; write a number" + (f" or {example}" if example else "")
                self.problem(at, text)
                return


def _parameter(method: str, name: str) -> Parameter:
    return next(parameter for parameter in CATALOGUE[method].parameters if parameter.name == name)


def _any_per_model(setting: Any) -> bool:
    if is_marker(setting):
        per = setting.get("per")
        return per == "model" or (isinstance(per, list) and "model" in per)
    if isinstance(setting, Mapping):
        return any(_any_per_model(value) for value in setting.values())
    return isinstance(setting, list) and any(_any_per_model(entry) for entry in setting)


def _covers(setting: Any) -> bool:
    """True where a setting has a value for every tensor, whatever its name."""
    if setting is None:
        return False
    if isinstance(setting, Mapping) and not is_marker(setting):
        return setting.get("filter") in (None, "*")
    if isinstance(setting, list) and any(isinstance(entry, Mapping) and not is_marker(entry) for entry in setting):
        return any(isinstance(entry, Mapping) and entry.get("filter") in (None, "*") for entry in setting)
    return True


def _slice_layers(source: Mapping[str, Any]) -> int | None:
    bounds = source["layer_range"]
    return int(bounds[1] - bounds[0]) if all(is_number(bound) for bound in bounds) else None
