"""The forms that values in a file can have, as data: one table says what is allowed, what it means, and its default.

Checking walks the table; documentation can be printed from it. A form's `read` returns the value in its plain type and
appends what is wrong to a list, so that all mistakes of a file are found in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from evomerge.errors import near
from evomerge.space import Place, Problem, is_number, is_whole


class Form(Protocol):
    """What a value must look like."""

    def read(self, value: Any, place: Place, problems: list[Problem]) -> Any:
        """Return the value in its plain type; what is wrong is appended to `problems`."""
        ...


@dataclass(frozen=True)
class Text:
    """A word or a path; one of `words` where they are given, of which `later` ones are not available yet."""

    words: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    what: str = "name"

    def read(self, value: Any, place: Place, problems: list[Problem]) -> str:
        """Return the text."""
        if not isinstance(value, str) or not value:
            problems.append(Problem(place, f"must be a {self.what}, got {value!r}"))
        elif value in self.later:
            text = f"{self.what} {value!r} is not available in this version. Known: {', '.join(self.words)}."
            problems.append(Problem(place, text))
        elif self.words and value not in self.words:
            problems.append(Problem(place, f"unknown {self.what} {value!r}. {near(value, self.words)}"))
        return str(value)


@dataclass(frozen=True)
class Number:
    """A finite number, or a whole number, within bounds; `open_low` and `open_high` leave the bound itself out."""

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    open_low: bool = False
    open_high: bool = False

    def read(self, value: Any, place: Place, problems: list[Problem]) -> Any:
        """Return the number as int or float."""
        good = is_number(value) and math.isfinite(value) and (is_whole(value) or not self.integer)
        if good:
            above = value > self.low if self.open_low else value >= self.low
            good = above and (value < self.high if self.open_high else value <= self.high)
        if not good:
            problems.append(Problem(place, f"must be a {self}, got {value!r}"))
            return None
        return int(value) if self.integer else float(value)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'of at least'} {self.low:g}" if self.low > -math.inf else ""
        high = f"{'below' if self.open_high else 'of at most'} {self.high:g}" if self.high < math.inf else ""
        return " ".join(
            ["whole number" if self.integer else "number", " and ".join(part for part in (low, high) if part)]
        ).strip()


@dataclass(frozen=True)
class Moment:
    """A point in time as ISO 8601 writes it, with its offset from UTC: a machine's own time zone is anyone's guess."""

    def read(self, value: Any, place: Place, problems: list[Problem]) -> str:
        """Return the text."""
        if wrong := wrong_moment(value):
            problems.append(Problem(place, wrong))
        return str(value)


def wrong_moment(value: Any) -> str:
    """Return what is wrong with a point in time, or ''."""
    example = "as in 2030-06-01T18:00:00+02:00 or 2030-06-01T16:00:00Z"
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))  # Python 3.10 does not know the Z
    except ValueError:
        return f"must be a date and time, {example}, got {value!r}"
    return "" if moment.tzinfo is not None else f"must say its offset from UTC, {example}, got {value!r}"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, value: Any, place: Place, problems: list[Problem]) -> bool:
        """Return the bool."""
        if not isinstance(value, bool):
            problems.append(Problem(place, f"must be true or false, got {value!r}"))
        return bool(value)


@dataclass(frozen=True)
class Many:
    """A list of at least one entry of one form."""

    entry: Form
    example: str

    def read(self, value: Any, place: Place, problems: list[Problem]) -> tuple[Any, ...]:
        """Return the entries as a tuple."""
        if not isinstance(value, list) or not value:
            problems.append(
                Problem(place, f"must be a list of at least one entry, as in {self.example}, got {value!r}")
            )
            return ()
        return tuple(self.entry.read(entry, (*place, index), problems) for index, entry in enumerate(value))


@dataclass(frozen=True)
class Free:
    """A mapping that is passed on unchanged; its reader checks it."""

    example: str

    def read(self, value: Any, place: Place, problems: list[Problem]) -> dict[str, Any]:
        """Return the mapping."""
        if not isinstance(value, Mapping):
            problems.append(Problem(place, f"must be a mapping, as in {self.example}, got {value!r}"))
            return {}
        return dict(value)


@dataclass(frozen=True)
class Anything:
    """A value of any form, which its reader checks."""

    def read(self, value: Any, place: Place, problems: list[Problem]) -> Any:
        """Return the value."""
        return value


@dataclass(frozen=True)
class Either:
    """One of several forms, told apart by the type of the value."""

    number: Form | None = None
    text: Form | None = None
    many: Form | None = None
    mapping: Form | None = None
    what: str = ""

    def read(self, value: Any, place: Place, problems: list[Problem]) -> Any:
        """Return what the form of this type of value returns."""
        kind = (
            self.number if is_number(value)
            else self.text if isinstance(value, str)
            else self.many if isinstance(value, list)
            else self.mapping if isinstance(value, Mapping)
            else None
        )  # fmt: skip
        if kind is None:
            problems.append(Problem(place, f"must be {self.what}, got {value!r}"))
            return None
        return kind.read(value, place, problems)


@dataclass(frozen=True)
class Key:
    """One key of a section; null counts as not given."""

    name: str
    form: Form
    about: str  # meaning and unit, for people
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Section:
    """A mapping with known keys."""

    keys: tuple[Key, ...]
    example: str

    def read(self, value: Any, place: Place, problems: list[Problem]) -> dict[str, Any]:
        """Return every key's value, defaults where it is not given."""
        if not isinstance(value, Mapping):
            problems.append(Problem(place, f"must be a mapping, as in {self.example}, got {value!r}"))
            return {key.name: key.default for key in self.keys}
        names = [key.name for key in self.keys]
        problems += [
            Problem((*place, name), f"unknown key. {near(name, names)}") for name in value if name not in names
        ]
        return {key.name: self._read_key(key, value.get(key.name), place, problems) for key in self.keys}

    def _read_key(self, key: Key, value: Any, place: Place, problems: list[Problem]) -> Any:
        if value is not None:
            return key.form.read(value, (*place, key.name), problems)
        if key.required:
            problems.append(Problem(place, f"{key.name} is missing: {key.about}"))
        return key.default
