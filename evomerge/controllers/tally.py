"""The bookkeeping that every controller shares: which proposals were handed out, and which were told."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evomerge.errors import InputError

HUGE = 1e100  # fitness is cut here: the libraries square values, which must not overflow


class Tally:
    """Counts proposals and refuses a tell that cannot be right. Memory grows only with what waits to be told."""

    def __init__(self, objectives: int) -> None:
        self.asked = 0
        self.waiting: set[int] = set()  # asked, not told
        self._objectives = objectives

    def hand_out(self, count: int) -> range:
        """Return the indices of `count` new proposals."""
        indices = range(self.asked, self.asked + count)
        self.asked += count
        self.waiting.update(indices)
        return indices

    def take_back(self, index: int, fitness: Sequence[float] | None) -> tuple[float, ...] | None:
        """Return the fitness as floats of at most `HUGE` size, having checked it; the proposal no longer waits.

        Raises:
            InputError: the proposal was never asked or was told before, or the fitness is not m finite numbers.
        """
        if not 0 <= index < self.asked:
            raise InputError(f"proposal {index} was never asked; {self.asked} proposals, from 0 on, have been")
        if index not in self.waiting:
            raise InputError(f"proposal {index} was told before; each proposal is told once")
        values = None if fitness is None else tuple(float(value) for value in fitness)
        if values is not None:
            if len(values) != self._objectives:
                raise InputError(f"fitness of proposal {index} must have {self._objectives} values, got {len(values)}")
            if not all(math.isfinite(value) for value in values):
                raise InputError(f"fitness of proposal {index} must be finite, got {values}; tell None for a failure")
        self.waiting.discard(index)
        return None if values is None else tuple(min(max(value, -HUGE), HUGE) for value in values)
