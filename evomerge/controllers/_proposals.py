"""Bookkeeping shared by all controllers: which proposals were made, and which were observed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evomerge.errors import InputError
from evomerge.pareto import Bounds

# Constraint domination (Deb 2000) for rank-based controllers: an infeasible point gets this fitness, lowered by its
# violation, so that it ranks below every feasible one and above points with a larger violation.
MISSED = -1e12
HUGE = 1e100  # fitness is cut here: the libraries square values, which must not overflow


class Proposals:
    """Counts proposals and refuses a tell that cannot be right. Memory grows only with unobserved proposals."""

    def __init__(self, objectives: int, bounds: Bounds | None = None) -> None:
        """Start without proposals.

        Args:
            objectives: values of a fitness.
            bounds: for rank-based controllers: infeasible fitness becomes `MISSED` or less; None: no constraint.
        """
        self._bounds = bounds
        self.proposed = 0
        self.waiting: set[int] = set()  # proposed, not observed
        self._objectives = objectives

    def hand_out(self, count: int) -> range:
        """Return the indices of `count` new proposals."""
        indices = range(self.proposed, self.proposed + count)
        self.proposed += count
        self.waiting.update(indices)
        return indices

    def take_back(self, index: int, fitness: Sequence[float] | None) -> tuple[float, ...] | None:
        """Return the fitness as floats of at most `HUGE` size, having checked it; the proposal no longer waits.

        Raises:
            InputError: the proposal was never made or was observed before, or the fitness is not m finite numbers.
        """
        if not 0 <= index < self.proposed:
            raise InputError(f"proposal {index} was never made; {self.proposed} proposals, from 0 on, have been")
        if index not in self.waiting:
            raise InputError(f"proposal {index} was observed before; each proposal is observed once")
        values = None if fitness is None else tuple(float(value) for value in fitness)
        if values is not None:
            if len(values) != self._objectives:
                raise InputError(f"fitness of proposal {index} must have {self._objectives} values, got {len(values)}")
            if not all(math.isfinite(value) for value in values):
                raise InputError(f"fitness of proposal {index} must be finite, got {values}; pass None for a failure")
        self.waiting.discard(index)
        if values is None:
            return None
        return bounded(values, self._bounds)


def bounded(fitness: Sequence[float], bounds: Bounds | None) -> tuple[float, ...]:
    """Return a fitness (m,) of at most `HUGE` size; one that misses the bounds as `MISSED` and less, see there."""
    if bounds is not None and (miss := float(bounds.violation(fitness))) > 0.0:
        return (max(MISSED * (1.0 + miss), -HUGE),) * len(fitness)
    return tuple(min(max(value, -HUGE), HUGE) for value in fitness)
