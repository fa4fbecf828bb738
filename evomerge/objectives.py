"""The scalarised objective: a weighted mean of fitness, by which controllers, races and reports rank.

A size of the model (layers, parameters, seconds) has units of its own: it
counts with the weight that the search file gives it, which states what a layer or a second is worth in units of the
scores, and is left out everywhere where the file gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.candidate import Objective
from evomerge.metric_kinds import is_size


@dataclass(frozen=True)
class Scalarisation:
    """The weighted mean over m objectives.

    >>> Scalarisation((3.0, 1.0)).scalarise([0.5, 0.1])
    0.4
    """

    relative: tuple[float, ...]  # (m,) weights of 0 or more, one of them above 0; of any sum

    @property
    def weights(self) -> np.ndarray:
        """The weights (m,), summing to 1."""
        relative = np.array(self.relative, dtype=float)
        return np.asarray(relative / relative.sum())

    def scalarise(self, fitness: Sequence[float] | np.ndarray) -> float:
        """Return the weighted mean of a fitness (m,); higher is better."""
        return float(np.dot(fitness, self.weights))

    def variance(self, stderr: Sequence[float] | np.ndarray) -> float:
        """Return the variance of the weighted mean, of independent objectives with these standard errors (m,)."""
        return float(np.dot(self.weights**2, np.square(stderr)))


@dataclass(frozen=True)
class Objectives:
    """The objectives of a search, with their goals and weights."""

    entries: Sequence[Objective]  # (m,)

    @property
    def scalarisation(self) -> Scalarisation:
        """The weighted mean of these objectives; of equal weights where all weights are 0, as of sizes alone."""
        relative = tuple(objective.weight for objective in self.entries)  # (m,)
        return Scalarisation(relative if any(relative) else (1.0,) * len(relative))

    def weights(self) -> np.ndarray:
        """Return the weight of each objective in the scalarised fitness, (m,), summing to 1."""
        return self.scalarisation.weights

    def scalarise(self, fitness: Sequence[float] | np.ndarray) -> float:
        """Return the scalarised fitness: the weighted mean of a candidate's fitness (m,), higher is better."""
        return self.scalarisation.scalarise(fitness)

    def scores(self) -> list[Objective]:
        """Return the objectives whose plain mean has a unit: all but sizes, unless there are only sizes."""
        return [objective for objective in self.entries if not is_size(objective.kind)] or list(self.entries)

    def left_out(self) -> list[Objective]:
        """Return the objectives that do not count in the scalarised fitness: sizes without a weight."""
        return [entry for entry, weight in zip(self.entries, self.weights(), strict=True) if weight == 0.0]
