"""One parameter's setting with markers, turned into mergekit's plain forms with gaps. What a marker's axes become:

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

from evomerge.space.fit import REST, marker_problems, value_problems, whole_numbers_only
from evomerge.space.gaps import GeneTable, Spot
from evomerge.space.markers import Marker, is_marker, read_marker
from evomerge.space.problems import Problem


class SettingReader:
    """Turns settings into plain forms; genes and problems gather on the way."""

    def __init__(
        self, genes: GeneTable, modules: Mapping[str, tuple[str, ...]] | None, problems: dict[Problem, None]
    ) -> None:
        self._genes = genes
        self._modules = modules  # None: not known yet; then a module is as good as a filter
        self._problems = problems  # a dict keeps the order and drops what several models repeat

    def read(self, setting: Any, spot: Spot) -> Any:
        """Return a setting in plain forms: a value, a gradient, or a list of {filter, value}."""
        if is_marker(setting):
            return self._marker(setting, spot)
        if isinstance(setting, Mapping):
            return self._conditionals([(spot, setting)])
        if not isinstance(setting, list):
            return self._value(setting, spot)
        if any(isinstance(entry, Mapping) and not is_marker(entry) for entry in setting):
            return self._conditionals((_inside(spot, index), entry) for index, entry in enumerate(setting))
        return self._gradient(setting, spot)

    def _report(self, problems: Iterable[Problem]) -> None:
        self._problems.update(dict.fromkeys(problems))

    def _value(self, value: Any, spot: Spot) -> Any:
        self._report(value_problems(value, spot))
        return value

    def _conditionals(self, entries: Iterable[tuple[Spot, Any]]) -> list[dict[str, Any]]:
        result = []
        for spot, entry in entries:
            if not isinstance(entry, Mapping) or "value" not in entry or set(entry) - {"filter", "value"}:
                text = f"each entry of a list with filters must be {{filter: ..., value: ...}}, got {entry!r}"
                self._report([Problem(spot.place, text)])
                continue
            pattern, value, inner = entry.get("filter"), entry["value"], _inside(spot, "value")
            if pattern is not None and (not isinstance(pattern, str) or not pattern):
                self._report([Problem((*spot.place, "filter"), f"must be a part of tensor names, got {pattern!r}")])
                continue
            group = REST if pattern in (None, "*") else pattern
            if is_marker(value):
                plain = self._marker(value, inner, group=group)
            else:
                plain = self._gradient(value, inner, group) if isinstance(value, list) else self._value(value, inner)
            result.append({"value": plain} if pattern is None else {"filter": pattern, "value": plain})
        return result

    def _gradient(self, entries: list[Any], spot: Spot, group: str = "") -> list[Any]:
        if not entries:
            self._report([Problem(spot.place, "an empty list has no value; give numbers, or remove the parameter")])
        return [
            self._marker(entry, _inside(spot, index), depth=f"knot{index}", group=group)
            if is_marker(entry)
            else self._value(entry, _inside(spot, index))
            for index, entry in enumerate(entries)
        ]

    def _marker(self, raw: Mapping[str, Any], spot: Spot, *, depth: str = "", group: str = "") -> Any:
        """Return a gap, a gradient of gaps, or a list of filters over them."""
        marker, problems = read_marker(raw, spot.place)
        self._report(problems)
        if marker is None:
            return None
        wrong = list(marker_problems(marker, spot, depth, group))
        self._report(wrong)
        if wrong:
            return None
        if whole_numbers_only(spot) and marker.gene.kind == "float":
            marker = replace(marker, gene=replace(marker.gene, kind="int"))
        if not marker.modules and not marker.filters:
            return self._curve(marker, spot, depth, group)
        result = []
        for word, parts in self._groups(marker, spot):
            value = self._curve(marker, spot, depth, word)
            result += [{"filter": part, "value": value} if part else {"value": value} for part in parts]
        return result

    def _groups(self, marker: Marker, spot: Spot) -> list[tuple[str, tuple[str, ...]]]:
        """Return each module or filter with the parts of tensor names that find it; '' finds the rest, and is last."""
        if marker.filters:
            return [*((name, (name,)) for name in marker.filters), (REST, ("",))]
        rows: list[tuple[str, tuple[str, ...]]] = []
        for name in sorted(marker.modules, key=lambda word: word == REST):
            parts = ("",) if name == REST else (name,) if self._modules is None else self._modules.get(name, ())
            if not parts:
                known = ", ".join([*(self._modules or ()), REST])
                text = f"no tensor of this architecture belongs to module {name!r}; it has: {known}"
                self._report([Problem(spot.place, text)])
            rows.append((name, parts))
        return rows

    def _curve(self, marker: Marker, spot: Spot, depth: str, group: str) -> Any:
        """Return one gap, or a gradient of gaps where the marker varies over depth."""
        labels = [depth] if marker.depth is None else self._depth_labels(marker.depth.form, marker.depth.count, spot)
        gaps = [self._genes.gap(spot.name(label, group), marker, spot.place, spot.methods) for label in labels]
        return gaps if marker.depth else gaps[0]

    def _depth_labels(self, form: str, count: int, spot: Spot) -> list[str]:
        if form == "knots":
            return [f"knot{index}" for index in range(count)]
        if spot.layers is None:  # not known yet: as good as any number that fits
            return [f"{form}0"] * max(count, 1)
        if count > spot.layers:
            text = f"{count} blocks do not fit in {spot.layers} layers; write {{blocks: {spot.layers}}} or fewer"
            self._report([Problem(spot.place, text)])
        if form == "layer":
            return [f"layer{layer}" for layer in range(spot.layers)]
        return [f"block{layer * count // spot.layers}" for layer in range(spot.layers)]


def _inside(spot: Spot, step: str | int) -> Spot:
    return replace(spot, place=(*spot.place, step))
