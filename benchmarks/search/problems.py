"""What the quality benchmark searches: synthetic landscapes with a known front, and the table of real merges.

A problem gives a genotype's fitness (m,), measured on the search items, and its truth (m,), on what was held out. The
same genotype always gets the same answers, as in a search with pinned items.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.special import expit

from evomerge.pareto.hypervolume import hypervolume

sys.path.insert(0, str(Path(__file__).parent))
from experts_table import GENES, ExpertsTable

HULL_POINTS = 2000  # of the known front, drawn to compute its hypervolume


class Problem(Protocol):
    name: str
    genes: int
    reference: tuple[float, ...]  # of the hypervolume, in fitness units
    ceiling: float  # hypervolume of the best possible front of truths

    def measured(self, genotype: np.ndarray) -> np.ndarray: ...

    def truth(self, genotype: np.ndarray) -> np.ndarray: ...


@dataclass
class Hull:
    """Abilities fall with the distance from each task's optimum; the front is the convex hull of the optima.

    Every one of `items` has a difficulty; a candidate's answers are right or wrong by chance. The truth is the expected
    score over the same items.
    """

    name: str
    genes: int
    tasks: int
    items: int
    seed: int
    steepness: float = 40.0
    peak: float = 2.0
    reference: tuple[float, ...] = ()
    ceiling: float = 0.0
    _optima: np.ndarray = field(default_factory=lambda: np.empty(0))
    _difficulties: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        self._optima = generator.uniform(0.15, 0.85, (self.tasks, self.genes))
        self._difficulties = generator.standard_normal((self.tasks, self.items))
        self.reference = (0.0,) * self.tasks
        mixtures = generator.dirichlet(np.ones(self.tasks), HULL_POINTS)
        self.ceiling = hypervolume(np.array([self.truth(mix @ self._optima) for mix in mixtures]), self.reference)

    def measured(self, genotype: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(np.ascontiguousarray(genotype).tobytes(), digest_size=8).digest()
        chance = np.random.default_rng([int.from_bytes(key, "big"), self.seed])
        return np.asarray((chance.random((self.tasks, self.items)) < self._chances(genotype)).mean(axis=1))

    def truth(self, genotype: np.ndarray) -> np.ndarray:
        return np.asarray(self._chances(genotype).mean(axis=1))

    def _chances(self, genotype: np.ndarray) -> np.ndarray:
        distance = ((genotype - self._optima) ** 2).mean(axis=1)  # (tasks,)
        return np.asarray(expit((self.peak - self.steepness * distance)[:, None] - self._difficulties))


class Experts:
    """Real merges of the example experts, answered beforehand on a grid, see `experts_table`."""

    name = "experts"
    genes = GENES
    reference = (0.55, 0.09, 0.07)  # the worst parent in add, sort and reverse, see examples/README.md

    def __init__(self) -> None:
        self._table = ExpertsTable.load()
        self._search = self._table.search.mean(axis=2)
        self._held = self._table.holdout.mean(axis=2)
        self.ceiling = hypervolume(self._held, self.reference)

    def measured(self, genotype: np.ndarray) -> np.ndarray:
        return np.asarray(self._search[self._table.row(genotype)])

    def truth(self, genotype: np.ndarray) -> np.ndarray:
        return np.asarray(self._held[self._table.row(genotype)])


def problem(name: str, seed: int) -> Problem:
    """Return a problem; a synthetic one has another landscape for each seed."""
    if name == "experts":
        return Experts()
    genes, tasks = {"hull-10-3": (10, 3), "hull-24-2": (24, 2)}[name]
    return Hull(name, genes, tasks, items=60, seed=seed)


NAMES = ("experts", "hull-10-3", "hull-24-2")
