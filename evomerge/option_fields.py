"""Options as data: frozen dataclasses whose fields state their meaning and range.

The row of a controller or metric names such a dataclass. The search file, its JSON Schema, the documentation and the
check of Python arguments all read it, so an option is written down once.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from evomerge.errors import InputError, near


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field with its meaning and range, in the words of `annotated_types` and pydantic.

    Args:
        default: value where the option is not given; None: the reader decides; without a default, it is required.
        help: meaning and unit, for help texts.
        ge: lowest value.
        gt: bound that values must exceed.
        le: highest value.
        lt: bound that values must stay below.
        choices: the only texts allowed; empty: any text.

    >>> @dataclass(frozen=True)
    ... class Options:
    ...     step: float = option(0.1, "first step, as a fraction of each range", gt=0, le=1)
    >>> Options().step
    0.1
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, **bounds})


@dataclass(frozen=True)
class NoOptions:
    """For controllers and metrics without options."""


@dataclass(frozen=True)
class Option:
    """One field of an options dataclass."""

    name: str
    kind: type  # bool, int, float or str; what else is annotated is passed on unchecked, as `object`
    default: Any
    help: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = False

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, beginning with 'must be', or ''.

        >>> Option("step", float, 0.1, gt=0, le=1).problem(0)
        'must be a number above 0 and of at most 1, got 0'
        """
        return "" if value is None or self._holds(value) else f"must be {self.expected}, got {value!r}"

    @property
    def expected(self) -> str:
        """The values allowed, in words: 'a whole number of at least 2'."""
        if self.kind in (int, float):
            low = "" if self.ge is None else f"of at least {self.ge:g}"
            low = low if self.gt is None else f"above {self.gt:g}"
            high = "" if self.le is None else f"of at most {self.le:g}"
            high = high if self.lt is None else f"below {self.lt:g}"
            noun = "a whole number" if self.kind is int else "a number"
            return " ".join([noun, " and ".join(part for part in (low, high) if part)]).strip()
        if self.kind is str:
            return f"one of {', '.join(self.choices)}" if self.choices else "a text"
        return "true or false"

    def _holds(self, value: Any) -> bool:
        if self.kind in (int, float):
            # bool is a subclass of int, and YAML's yes and no are no numbers
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            # 3.0 counts as whole
            return good and (self.kind is float or value == int(value)) and self._in_range(float(value))
        if self.kind is str:
            return isinstance(value, str) and (not self.choices or value in self.choices)
        return self.kind is not bool or isinstance(value, bool)

    def _in_range(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


def options_of(options: type) -> dict[str, Option]:
    """Return the options that a dataclass describes, by name, in its order.

    A field without `option` is an option too: its type is checked, and it has no range.
    """
    hints = typing.get_type_hints(options)  # resolves the strings of `from __future__ import annotations`
    found = {}
    for field in dataclasses.fields(options):
        required = field.default is dataclasses.MISSING
        default = None if required else field.default
        described = {key: field.metadata[key] for key in _DESCRIPTION if key in field.metadata}
        found[field.name] = Option(field.name, _kind(hints[field.name]), default, required=required, **described)
    return found


def read_options(options: type, given: Mapping[str, Any], owner: str) -> Any:
    """Return an instance of an options dataclass with the given values; None stands for the default.

    Args:
        options: the dataclass.
        given: values by name.
        owner: the options' owner, for messages: "controller 'cma-es'".

    Raises:
        InputError: an option is unknown or out of its range.
    """
    known = options_of(options)
    values = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{owner} has no option {name!r}. {near(name, known)}")
        if problem := known[name].problem(value):
            raise InputError(f"{name} of {owner} {problem}")
        if value is not None:  # None stands for the default
            values[name] = known[name].kind(value) if known[name].kind in (int, float) else value
    return options(**values)


_DESCRIPTION = ("help", "ge", "gt", "le", "lt", "choices")


def _kind(annotation: Any) -> type:
    """Return the plain type of an annotation, without its None."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        annotation = parts[0] if len(parts) == 1 else object  # a union of several types is not checked
    return annotation if annotation in (bool, int, float, str) else object
