"""Whether values and markers fit the parameters that they are for, as the catalogue describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from evomerge.errors import MergeError
from evomerge.space._markers import Marker, is_marker, is_number
from evomerge.space._problems import Problem
from evomerge.space._template import ParameterSite

REST = "other"  # names the tensors that no module or filter matches


def value_problems(value: Any, site: ParameterSite) -> list[Problem]:
    """Return what is wrong with one value of a parameter, of the first method that refuses it."""
    for method, parameter in site.definitions:
        single = isinstance(value, (bool, str)) or is_number(value)
        if not single:
            return [Problem(site.place, f"{site.parameter} must be a single value here, got {value!r}")]
        try:
            parameter.check(value, f"{method.name}: {site.parameter}")
        except MergeError as error:
            return [Problem(site.place, str(error))]
    return []


def marker_problems(marker: Marker, site: ParameterSite, depth: str, group: str) -> Iterator[Problem]:
    """Yield what is wrong with a well-formed marker at this site.

    Args:
        marker: what stands there.
        site: where it takes effect.
        depth: the name of its entry where it stands in a gradient, else empty.
        group: the filter under which it stands, else empty.
    """
    if not site.methods:
        yield Problem(site.place, f"{site.parameter} has no effect here; write a number, or remove it")
    # mergekit's gradients hold numbers only, no nested forms
    if depth and (marker.depth or marker.modules or marker.filters):
        yield Problem(site.place, "an entry of a gradient cannot itself vary over depth or modules; only `per: model`")
    elif group and (marker.modules or marker.filters):
        yield Problem(site.place, "this value has a filter already; remove modules and filters from its `per`")
    if marker.per_model and ("models" in site.place or "sources" in site.place):
        yield Problem(site.place, "`per: model` stands inside one model; remove model from per")
    if (marker.depth or depth) and not marker.numeric:
        reason = "mergekit picks names by rounding the depth; use modules or filters"
        yield Problem(site.place, f"names cannot vary over depth, as {reason}")
    if marker.modules and REST not in marker.modules and any(p.default is None for _, p in site.definitions):
        text = f"{site.parameter} has no default; add other to modules, for tensors that belong to neither"
        yield Problem(site.place, text)
    yield from _range_problems(marker, site)


def whole_numbers_only(site: ParameterSite) -> bool:
    """True where the parameter of some method is a whole number."""
    # bool is an int
    return any(isinstance(p.default, int) and not isinstance(p.default, bool) for _, p in site.definitions)


def covers(setting: Any) -> bool:
    """True where a setting has a value for every tensor, whatever its name."""
    if setting is None:
        return False
    if isinstance(setting, Mapping) and not is_marker(setting):
        return setting.get("filter") in (None, "*")  # mergekit's two spellings of an entry for all other tensors
    if isinstance(setting, list) and any(isinstance(entry, Mapping) and not is_marker(entry) for entry in setting):
        return any(isinstance(entry, Mapping) and entry.get("filter") in (None, "*") for entry in setting)
    return True


def _range_problems(marker: Marker, site: ParameterSite) -> list[Problem]:
    gene, at = marker.gene, replace(site, place=(*site.place, "search"))
    for _, parameter in site.definitions:
        switch = isinstance(parameter.default, bool)
        words = parameter.choices or (("true", "false") if switch else ())
        if words and gene.kind != "choice":
            text = f"{parameter.name} is no number; write {{search: [{', '.join(words)}]}}"
            return [Problem(at.place, text)]
        if switch and not all(isinstance(choice, bool) for choice in gene.choices):
            return [Problem(at.place, f"{parameter.name} must be true or false, got {list(gene.choices)}")]
    for value in gene.choices or (gene.low, gene.high):  # the ends suffice: a parameter's own range has no holes
        if problems := value_problems(value, at):
            return problems
    return []
