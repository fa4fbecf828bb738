"""Markers: `{search: [low, high], per: [...], ...}`, which stand in a merge where a number or a name would stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evomerge.errors import near
from evomerge.recipe import Scalar
from evomerge.space._genes import Gene
from evomerge.space._problems import Place, Problem

MODULES = ("attention", "mlp", "other")  # other: embeddings, norms, heads, and all other tensors
MARKER_KEYS = {
    "search": "[low, high] for a range, a list of names, or {choices: [...]}",
    "per": "one gene per model, layer, {blocks: N}, {knots: N}, {modules: [...]} or {filters: [...]}",
    "scale": "log: uniform on a log scale",
    "integer": "true: whole numbers only",
    "start": "value of the first candidate, in the parameter's units",
}
_HUGE = 2**63  # larger ints come from typing errors, and float() of the largest raises OverflowError
MOST_PARTS = 10_000  # blocks or knots along the depth
PER_WORDS = ("model", "layer", "blocks", "knots", "modules", "filters")


@dataclass(frozen=True)
class Depth:
    """How a value varies over the layers: one per layer, one per block of layers, or a curve through knots."""

    form: Literal["layer", "blocks", "knots"]
    count: int = 0  # number of blocks or knots; 0 for layers: the model has the number


@dataclass(frozen=True)
class Marker:
    """A searched value and the axes along which it has genes of its own."""

    gene: Gene  # range, choices and start; `GeneTable` gives it a name
    per_model: bool = False
    depth: Depth | None = None
    modules: tuple[str, ...] = ()  # at most one of modules and filters is set: both choose tensors by name
    filters: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        """True where every value is a number, so that a curve over depth can be drawn through them."""
        return self.gene.kind != "choice" or all(is_number(choice) for choice in self.gene.choices)


# Values are kept to six digits: a range narrower than this fraction of its ends has no two values.
NARROWEST = 1e-6


def is_marker(value: Any) -> bool:
    """True for what must be read as a marker: a mapping with the key `search`."""
    return isinstance(value, Mapping) and "search" in value


def is_number(value: Any) -> bool:
    """True for float and for an int that a float can hold, and not for bool, which Python counts among the ints."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < _HUGE
    return isinstance(value, float)


def is_whole(value: Any) -> bool:
    """True for a finite number without a fraction."""
    return is_number(value) and math.isfinite(value) and value == int(value)


def read_marker(raw: Mapping[str, Any], place: Place) -> tuple[Marker | None, list[Problem]]:
    """Return the marker in `raw`, or None with all its problems."""
    problems = [
        Problem((*place, key), f"unknown key of a search marker. {near(key, MARKER_KEYS)}")
        for key in raw  # every unknown key is reported, not only the first
        if key not in MARKER_KEYS
    ]
    gene = _read_gene(raw, place, problems)
    axes = _read_per(raw.get("per"), (*place, "per"), problems)
    if problems or gene is None:
        return None, problems
    return Marker(gene, **axes), []


def _read_gene(raw: Mapping[str, Any], place: Place, problems: list[Problem]) -> Gene | None:
    search = raw["search"]
    if isinstance(search, Mapping):
        extra = [key for key in search if key != "choices"]
        if extra or "choices" not in search:
            got = ", ".join(search) or "nothing"
            problems.append(Problem((*place, "search"), f"must be [low, high] or {{choices: [...]}}, got keys: {got}"))
            return None
        return _read_choices(search["choices"], raw, (*place, "search", "choices"), place, problems)
    if not isinstance(search, Sequence) or isinstance(search, str) or not search:
        text = f"must be [low, high], a list of names, or {{choices: [...]}}, got {search!r}"
        problems.append(Problem((*place, "search"), text))
        return None
    # two numbers are a range; a list of three is reported, as it may mean choices
    if all(is_number(entry) for entry in search):
        return _read_range(search, raw, place, problems)
    return _read_choices(search, raw, (*place, "search"), place, problems)


def _read_range(search: Sequence[float], raw: Mapping[str, Any], place: Place, problems: list[Problem]) -> Gene | None:
    def wrong(key: str, message: str) -> None:
        problems.append(Problem((*place, key), message))

    before = len(problems)  # problems found so far belong to other markers
    integer, log = raw.get("integer", False), raw.get("scale") == "log"
    if len(search) != 2:
        wrong("search", f"a range is [low, high], got {len(search)} numbers; for a choice write {{choices: [...]}}")
        return None
    low, high = search
    if not (math.isfinite(low) and math.isfinite(high)):
        wrong("search", f"low and high must be finite, got {list(search)}")
    elif low > high:
        wrong("search", f"low {low:g} is above high {high:g}; write [{high:g}, {low:g}]")
    elif low == high:
        wrong("search", f"low and high are both {low:g}; write the number {low:g} instead, or a range")
    elif abs(high - low) <= NARROWEST * max(abs(low), abs(high)):
        wrong(
            "search", f"low {low!r} and high {high!r} agree in all digits that are kept; write a single number instead"
        )
    elif log and low <= 0:
        wrong("search", f"scale: log needs a low above 0, got {low:g}")
    if not isinstance(integer, bool):
        wrong("integer", f"must be true or false, got {integer!r}")
    elif integer and math.isfinite(low + high) and not (is_whole(low) and is_whole(high)):
        wrong("search", f"integer: true needs whole numbers, got {list(search)}")
    if raw.get("scale", "log") not in ("log", "linear"):  # the default passes too; only a wrong word is reported
        wrong("scale", f"must be log or linear, got {raw['scale']!r}")
    start = raw.get("start") if len(problems) == before else None  # nothing lies in an impossible range
    if start is not None and not (is_number(start) and low <= start <= high):
        wrong("start", f"must be a number in [{low:g}, {high:g}], got {start!r}")
    elif start is not None and integer is True and not is_whole(start):
        wrong("start", f"must be a whole number, got {start!r}")
    if len(problems) > before:
        return None
    return Gene("", "int" if integer else "float", float(low), float(high), log, start=start)


def _read_choices(
    choices: Any, raw: Mapping[str, Any], at: Place, place: Place, problems: list[Problem]
) -> Gene | None:
    if not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2:
        problems.append(Problem(at, f"must be a list of at least two choices, got {choices!r}"))
        return None
    if not all(isinstance(choice, (bool, int, float, str)) for choice in choices):
        problems.append(Problem(at, f"choices must be names or numbers, got {list(choices)!r}"))
        return None
    if len({(isinstance(choice, bool), choice) for choice in choices}) < len(choices):  # True and 1 are two choices
        problems.append(Problem(at, f"a choice is listed twice: {list(choices)!r}; keep one"))
        return None
    for key in ("scale", "integer"):
        if key in raw:
            problems.append(Problem((*place, key), f"{key} belongs to a range [low, high], not to a choice"))
    gene = Gene("", "choice", choices=tuple(choices), start=raw.get("start"))
    if gene.start is not None and gene.start not in gene.choices:
        problems.append(Problem((*place, "start"), f"must be one of {list(choices)}, got {gene.start!r}"))
    return gene


def _read_per(raw: Any, place: Place, problems: list[Problem]) -> dict[str, Any]:
    """Return the fields of `Marker` that `per` sets."""
    axes: dict[str, Any] = {}
    items = raw if isinstance(raw, Sequence) and not isinstance(raw, str) else [] if raw is None else [raw]
    if raw is not None and not items:
        problems.append(Problem(place, f"must list some of {', '.join(PER_WORDS)}, got an empty list; remove `per`"))
    for index, item in enumerate(items):
        at = (*place, index) if items is raw else place  # a single item need not be written as a list
        found = _read_axis(item, at, problems)
        for key, value in found.items():
            # modules are shorthand for filters, so that one excludes the other
            taken = {"modules", "filters"} & set(axes) if key in ("modules", "filters") else {key} & set(axes)
            if taken:
                what = {"per_model": "model", "depth": "layer, blocks or knots"}.get(key, "modules or filters")
                problems.append(Problem(at, f"only one of {what} can be given; keep one"))
            axes[key] = value
    return axes


def _read_axis(item: Any, place: Place, problems: list[Problem]) -> dict[str, Any]:
    if item == "model":
        return {"per_model": True}
    if item == "layer":
        return {"depth": Depth("layer")}
    # a bare word gets value None and is reported below
    word, value = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, None)
    if word not in PER_WORDS:
        problems.append(Problem(place, f"unknown item {item!r} of `per`. {near(str(word), PER_WORDS)}"))
        return {}
    if word in ("model", "layer"):
        problems.append(Problem(place, f"write `{word}` alone, without a value"))
        return {}
    if word in ("blocks", "knots"):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            problems.append(Problem(place, f"write {{{word}: N}} with a whole number N of at least 1, got {value!r}"))
            return {}
        if value > MOST_PARTS:  # labels are made before the number of layers is known: a slip must not fill the memory
            text = f"{word}: must be at most {MOST_PARTS}, which is more than any model has layers"
            problems.append(Problem(place, text))
            return {}
        return {"depth": Depth(word, int(value))}
    return _read_groups(word, value, place, problems)


def _read_groups(word: str, value: Any, place: Place, problems: list[Problem]) -> dict[str, tuple[Scalar, ...]]:
    example = "{modules: [attention, mlp, other]}" if word == "modules" else "{filters: [self_attn, mlp]}"
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) and entry for entry in value):
        problems.append(Problem(place, f"write a list of names, as in {example}, got {value!r}"))
        return {}
    unknown = [entry for entry in value if word == "modules" and entry not in MODULES]
    for entry in unknown:
        problems.append(Problem(place, f"unknown module {entry!r}. {near(entry, MODULES)}"))
    if word == "filters" and {"*", "other"} & set(value):  # mergekit's '*' would shadow the entry added for the rest
        problems.append(Problem(place, "the rest ('other') is added by itself; list only parts of tensor names"))
    if len(set(value)) < len(value):
        problems.append(Problem(place, f"a name is listed twice: {value}; keep one"))
    return {} if unknown else {word: tuple(value)}
