"""Expands one parameter's setting: markers become mergekit's plain forms, with placeholders. A marker's axes become:

- `model`: nothing here; `expansion` asks for the setting once per model.
- `layer`, `{blocks: N}`: a gradient with exactly one entry per layer. `{knots: N}`: a gradient of N entries. mergekit
  evaluates gradients at depth 0 for tensors outside the layers, so embeddings, final norm and head take the first
  entry.
- `{modules: [...]}`, `{filters: [...]}`: a list of {filter, value}, whose last entry has no filter and is for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from evomerge.space._markers import Marker, is_marker, read_marker
from evomerge.space._problems import Problem
from evomerge.space._template import GeneTable, ParameterSite
from evomerge.space._validation import REST, marker_problems, value_problems, whole_numbers_only


class SettingReader:
    """Turns settings into plain forms, and adds genes and problems to the tables that it was given."""

    def __init__(
        self, genes: GeneTable, modules: Mapping[str, tuple[str, ...]] | None, problems: dict[Problem, None]
    ) -> None:
        self._genes = genes
        self._modules = modules  # None: not known yet; then a module's name stands for the parts of tensor names
        self._problems = problems  # a dict keeps the order and drops duplicates: settings are read once per model

    def read(self, setting: Any, site: ParameterSite) -> Any:
        """Return a setting in plain forms: a value, a gradient, or a list of {filter, value}."""
        if is_marker(setting):
            return self._marker(setting, site)
        if isinstance(setting, Mapping):
            return self._conditionals([(site, setting)])
        if not isinstance(setting, list):
            return self._value(setting, site)
        # a list of filters, not a gradient
        if any(isinstance(entry, Mapping) and not is_marker(entry) for entry in setting):
            return self._conditionals((_inside(site, index), entry) for index, entry in enumerate(setting))
        return self._gradient(setting, site)

    def _report(self, problems: Iterable[Problem]) -> None:
        self._problems.update(dict.fromkeys(problems))

    def _value(self, value: Any, site: ParameterSite) -> Any:
        self._report(value_problems(value, site))
        return value

    def _conditionals(self, entries: Iterable[tuple[ParameterSite, Any]]) -> list[dict[str, Any]]:
        result = []
        for site, entry in entries:
            if not isinstance(entry, Mapping) or "value" not in entry or set(entry) - {"filter", "value"}:
                text = f"each entry of a list with filters must be {{filter: ..., value: ...}}, got {entry!r}"
                self._report([Problem(site.place, text)])
                continue
            pattern, value, inner = entry.get("filter"), entry["value"], _inside(site, "value")
            if pattern is not None and (not isinstance(pattern, str) or not pattern):
                self._report([Problem((*site.place, "filter"), f"must be a part of tensor names, got {pattern!r}")])
                continue
            group = REST if pattern in (None, "*") else pattern
            if is_marker(value):
                plain = self._marker(value, inner, group=group)
            else:
                plain = self._gradient(value, inner, group) if isinstance(value, list) else self._value(value, inner)
            result.append({"value": plain} if pattern is None else {"filter": pattern, "value": plain})
        return result

    def _gradient(self, entries: list[Any], site: ParameterSite, group: str = "") -> list[Any]:
        if not entries:
            self._report([Problem(site.place, "an empty list has no value; give numbers, or remove the parameter")])
        return [
            self._marker(entry, _inside(site, index), depth=f"knot{index}", group=group)
            if is_marker(entry)
            else self._value(entry, _inside(site, index))
            for index, entry in enumerate(entries)
        ]

    def _marker(self, raw: Mapping[str, Any], site: ParameterSite, *, depth: str = "", group: str = "") -> Any:
        """Return a placeholder, a gradient of placeholders, or a list of filters over them."""
        marker, problems = read_marker(raw, site.place)
        self._report(problems)
        if marker is None:
            return None
        # the marker's form is right; now whether it fits here
        wrong = list(marker_problems(marker, site, depth, group))
        self._report(wrong)
        if wrong:
            return None
        if whole_numbers_only(site) and marker.gene.kind == "float":  # the parameter is whole, whatever the range says
            marker = replace(marker, gene=replace(marker.gene, kind="int"))
        if not marker.modules and not marker.filters:
            return self._curve(marker, site, depth, group)
        result = []
        for word, parts in self._groups(marker, site):
            value = self._curve(marker, site, depth, word)
            result += [{"filter": part, "value": value} if part else {"value": value} for part in parts]
        return result

    def _groups(self, marker: Marker, site: ParameterSite) -> list[tuple[str, tuple[str, ...]]]:
        """Return each module or filter with the parts of tensor names that find it; '' finds the rest, and is last."""
        if marker.filters:
            # mergekit takes the first entry that matches
            return [*((name, (name,)) for name in marker.filters), (REST, ("",))]
        rows: list[tuple[str, tuple[str, ...]]] = []
        for name in sorted(marker.modules, key=lambda word: word == REST):  # the entry without filter has to be last
            parts = ("",) if name == REST else (name,) if self._modules is None else self._modules.get(name, ())
            if not parts:
                known = ", ".join([*(self._modules or ()), REST])
                text = f"no tensor of this architecture belongs to module {name!r}; it has: {known}"
                self._report([Problem(site.place, text)])
            rows.append((name, parts))
        return rows

    def _curve(self, marker: Marker, site: ParameterSite, depth: str, group: str) -> Any:
        """Return one placeholder, or a gradient of placeholders where the marker varies over depth."""
        labels = [depth] if marker.depth is None else self._depth_labels(marker.depth.form, marker.depth.count, site)
        placeholders = [
            self._genes.placeholder(site.name(label, group), marker, site.place, site.methods) for label in labels
        ]
        return placeholders if marker.depth else placeholders[0]

    def _depth_labels(self, form: str, count: int, site: ParameterSite) -> list[str]:
        if form == "knots":
            return [f"knot{index}" for index in range(count)]
        if site.layers is None:  # not known yet: any number of labels gives the same problems
            return [f"{form}0"] * max(count, 1)
        if count > site.layers:
            text = f"{count} blocks do not fit in {site.layers} layers; write {{blocks: {site.layers}}} or fewer"
            self._report([Problem(site.place, text)])
        if form == "layer":
            # (layers,) labels, all distinct: one gene per layer
            return [f"layer{layer}" for layer in range(site.layers)]
        # (layers,) equal labels share a gene
        return [f"block{layer * count // site.layers}" for layer in range(site.layers)]


def _inside(site: ParameterSite, step: str | int) -> ParameterSite:
    return replace(site, place=(*site.place, step))
