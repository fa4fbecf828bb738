"""What a merge method's parameter is, and the check that values fit it. No tensors here."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from evomerge.errors import MergeError, near


@dataclass(frozen=True)
class Parameter:
    """One parameter of a merge method, under mergekit's name where mergekit has it."""

    name: str  # the YAML word: weight, density, lambda, ...
    default: float | int | bool | str | None  # None: required. Its type is the parameter's type (None means float)
    per_model: bool  # True: one value per input; False: one per tensor
    low: float | None = None  # valid closed range; None: unbounded
    high: float | None = None  # likewise
    choices: tuple[str, ...] = ()  # for words
    search: tuple[float, float] | None = None  # a sensible range to search, None where searching makes no sense
    summary: str = ""  # one phrase
    extension: bool = False  # mergekit has the method but not this parameter
    statistic: str = ""  # function of evomerge.merge._model_statistics that the engine fills it in with; not for users

    @property
    def keyword(self) -> str:
        """The Python keyword of the method's function: the name, with a trailing underscore where Python owns it."""
        return f"{self.name}_" if iskeyword(self.name) else self.name

    def check(self, value: Any, where: str) -> float | int | bool | str:
        """Return `value` as this parameter's type.

        Args:
            value: what the user or the search gave.
            where: how the message names it, such as "ties: density of model 2".

        Raises:
            MergeError: wrong type, not finite, outside [low, high], or not among the choices.
        """
        if self.choices:
            if value not in self.choices:
                raise MergeError(f"{where}: unknown value {value!r}. {near(str(value), self.choices)}")
            return str(value)
        if isinstance(self.default, bool):
            if value not in (True, False):
                raise MergeError(f"{where} must be true or false, got {value!r}")
            return bool(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise MergeError(f"{where} must be a finite number, got {value!r}")
        number = float(value)
        if (self.low is not None and number < self.low) or (self.high is not None and number > self.high):
            raise MergeError(f"{where} must be {_range(self.low, self.high)}, got {value}{_hint(self, number)}")
        if isinstance(self.default, int):
            if number != int(number):
                raise MergeError(f"{where} must be a whole number, got {value}")
            return int(number)
        return number


def checked(method: str, known: Sequence[Parameter], values: Mapping[str, Any], models: int) -> dict[str, Any]:
    """Return complete, checked keyword arguments of a method: defaults filled in, per-model values as tuples.

    Args:
        method: its name, for messages.
        known: its parameters.
        values: what was given, by name.
        models: number of inputs; per-model parameters must be sequences of that length.

    Raises:
        MergeError: an unknown or missing name, a wrong count, or a value that `Parameter.check` refuses.
    """
    names = [parameter.name for parameter in known]
    for name in values:
        if name not in names:
            raise MergeError(
                f"{method} has no parameter {name!r}. {near(name, names)}"
                if names
                else f"{method} takes no parameters, got {name!r}"
            )
    arguments: dict[str, Any] = {}
    for parameter in known:
        value = values.get(parameter.name, _default(parameter, models))
        if value is None:
            raise MergeError(f"{method} needs a value for {parameter.name} ({parameter.summary})")
        arguments[parameter.keyword] = (
            _per_model(method, parameter, value, models)
            if parameter.per_model
            else parameter.check(value, f"{method}: {parameter.name}")
        )
    return arguments


def _default(parameter: Parameter, models: int) -> Any:
    if parameter.default is None or not parameter.per_model:
        return parameter.default
    return (parameter.default,) * models


def _per_model(method: str, parameter: Parameter, value: Any, models: int) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise MergeError(
            f"{method}: {parameter.name} takes one value per model, {models} here, got the single value {value!r}"
        )
    if len(value) != models:
        raise MergeError(
            f"{method}: {parameter.name} takes one value per model, {models} here, got {len(value)}: {list(value)}"
        )
    return tuple(
        parameter.check(item, f"{method}: {parameter.name} of model {index + 1}") for index, item in enumerate(value)
    )


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"in [{low}, {high}]"


def _hint(parameter: Parameter, value: float) -> str:
    if (parameter.low, parameter.high) == (0.0, 1.0) and 1 < value <= 100:
        return f". This is a fraction; did you mean {value / 100:g}?"
    return ""
