"""Controllers that do not learn: points of a design, drawn batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evomerge.controllers.tally import Tally
from evomerge.errors import InputError


class Design:
    """Hands out the points that `draw` gives; it never waits, and what it is told is only checked."""

    def __init__(self, draw: Callable[[int], np.ndarray], population: int, objectives: int) -> None:
        if population < 1:
            raise InputError(f"population must be 1 or more proposals, got {population}")
        self._draw = draw
        self._batch = population
        self._tally = Tally(objectives)

    def ask(self) -> list[np.ndarray]:
        """Return the next `batch` points."""
        self._tally.hand_out(self._batch)
        return [np.array(point, dtype=np.float64) for point in self._draw(self._batch)]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Check the index and the fitness; a design learns nothing."""
        self._tally.take_back(index, fitness)

    def stop(self) -> dict[str, str]:
        """Return {}: a design has no end of its own."""
        return {}
