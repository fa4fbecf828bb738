"""A gene: one coordinate of the unit cube, and the value in the user's units that it stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import InputError
from evomerge.recipe import Scalar

SIGNIFICANT_DIGITS = 6  # digits kept of a decoded number: enough for any coefficient, and recipes stay short
_GUARD_DIGITS = 10  # digits behind the leading one of the range below which a difference is rounding noise


@dataclass(frozen=True)
class Gene:
    """One coordinate of the search space.

    `value` and `coordinate` are each other's inverse on every value that a gene can take: exactly, so that a recipe
    survives encoding and decoding.
    """

    name: str  # as in 'weight.add.block2'
    kind: Literal["float", "int", "choice"]  # a number, a whole number, or one of `choices`
    low: float = 0.0  # smallest value, in the parameter's units; unused for a choice
    high: float = 1.0  # largest value, likewise
    log: bool = False  # equal steps of the coordinate multiply the value
    choices: tuple[Scalar, ...] = ()  # the search file's order, which decides the coordinates; () for numbers
    start: Scalar | None = None  # initial value of the search, where the user gave one
    when: tuple[str, tuple[str, ...]] | None = None  # active only where that choice gene has one of these values

    def value(self, coordinate: float) -> Scalar:
        """Return the value at a coordinate in [0, 1]: numbers to SIGNIFICANT_DIGITS, whole numbers as int.

        Args:
            coordinate: in [0, 1].
        """
        if self.kind == "choice":
            # coordinate 1 belongs to the last choice, whose interval is closed
            return self.choices[min(int(coordinate * len(self.choices)), len(self.choices) - 1)]
        if self.kind == "int":
            return self._whole(coordinate)
        if self.log:
            exact = math.exp((1 - coordinate) * math.log(self.low) + coordinate * math.log(self.high))
            # rounding can leave the range by a digit
            return min(max(float(f"{exact:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high)
        exact = (1 - coordinate) * self.low + coordinate * self.high
        # without the guard, a value near zero in a wide range would carry digits that `coordinate` cannot restore
        exact = round(exact, _GUARD_DIGITS - 1 - math.floor(math.log10(max(abs(self.low), abs(self.high)))))
        rounded = float(f"{exact:.{SIGNIFICANT_DIGITS}g}") + 0.0  # + 0.0: minus zero is zero
        return min(max(rounded, self.low), self.high)

    def extent(self) -> str:
        """Return the gene's values as text: '0.1 to 1, log', or its choices."""
        if self.kind == "choice":
            return ", ".join(str(choice) for choice in self.choices)
        return f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")

    def coordinate(self, value: Scalar) -> float:
        """Return the coordinate in [0, 1] that stands for `value`.

        Raises:
            InputError: this gene cannot take the value.
        """
        if self.kind == "choice":
            for index, choice in enumerate(self.choices):
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):  # True == 1 in Python
                    return (index + 0.5) / len(self.choices)  # the middle of the interval, farthest from its neighbours
            raise InputError(f"{self.name} must be one of {list(self.choices)}, got {value!r}")
        if isinstance(value, (bool, str)) or not self.low <= value <= self.high:
            raise InputError(f"{self.name} must be a number in [{self.low:g}, {self.high:g}], got {value!r}")
        low, high = (self.low - 0.5, self.high + 0.5) if self.kind == "int" else (self.low, self.high)  # as in `_whole`
        if self.log:
            span = math.log(high) - math.log(low)
            return (math.log(value) - math.log(low)) / span if span else 0.0  # neighbouring floats have one logarithm
        return (value - low) / (high - low)

    def _whole(self, coordinate: float) -> int:
        # every whole number owns the stretch from half below to half above itself
        low, high = self.low - 0.5, self.high + 0.5
        exact = (1 - coordinate) * low + coordinate * high
        if self.log:
            exact = math.exp((1 - coordinate) * math.log(low) + coordinate * math.log(high))
        return int(min(max(math.floor(exact + 0.5), self.low), self.high))  # coordinate 1 would round up to high + 1
