"""What the quality benchmark searches: real merges, scored live or from a table, and synthetic landscapes.

A problem gives a genotype's fitness (m,), measured on the search items, and its truth (m,), on what was held out. The
same genotype always gets the same answers, as in a search with pinned items.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from scipy.special import expit

from evomerge.pareto import hypervolume

sys.path.insert(0, str(Path(__file__).parent))
from experts_table import GENES, ExpertsTable

HERE = Path(__file__).parent
# Live problems: search file, and the reference point: the worst parent per objective, see examples/README.md
LIVE = {
    "experts": ("experts_depth.yaml", (0.55, 0.09, 0.07)),
    "tuning": ("experts_tuning.yaml", (0.09, 0.07, 0.31)),
}
TRUTH_ITEMS = 100  # held-out ones per task
HULL_POINTS = 2000  # of the known front, drawn to compute its hypervolume


class Problem(Protocol):
    name: str
    genes: int
    items: int  # behind each measured score
    quick: bool  # whether truths cost next to nothing
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
    quick: bool = True
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

    name = "experts-grid"
    genes = GENES
    quick = True
    reference = (0.55, 0.09, 0.07)  # the worst parent in add, sort and reverse, see examples/README.md

    def __init__(self) -> None:
        self._table = ExpertsTable.load()
        self.items = self._table.search.shape[2]
        self._search = self._table.search.mean(axis=2)
        self._held = self._table.holdout.mean(axis=2)
        self.ceiling = hypervolume(self._held, self.reference)

    def measured(self, genotype: np.ndarray) -> np.ndarray:
        return np.asarray(self._search[self._table.row(genotype)])

    def truth(self, genotype: np.ndarray) -> np.ndarray:
        return np.asarray(self._held[self._table.row(genotype)])


class LiveExperts:
    """Real merges of the example experts, written and answered by the real worker when they are asked for.

    The seed draws which questions are search items and which are held out, as in a search; a candidate's measured
    score is over the former, its truth over `TRUTH_ITEMS` of the latter per task.
    """

    quick = False

    def __init__(self, name: str, seed: int) -> None:
        from evomerge.commands._prepare import prepare
        from evomerge.config import load_search_file

        self.name = name
        file, self.reference = LIVE[name]
        self.ceiling = float(np.prod(1.0 - np.array(self.reference)))  # a model without mistakes
        self._prepared = prepare(replace(load_search_file(HERE / file), seed=seed))
        self.genes = self._prepared.space.dimension
        self.items = len(next(iter(self._prepared.plan.search.values())))
        held_out = {task: items[:TRUTH_ITEMS] for task, items in self._prepared.plan.holdout.items()}
        self._items = {"search": self._prepared.plan.search, "holdout": held_out}
        self._worker = self._prepared.spec.build()
        self._known: dict[tuple[str, bytes], np.ndarray] = {}

    def measured(self, genotype: np.ndarray) -> np.ndarray:
        return self._answered(genotype, "search")

    def truth(self, genotype: np.ndarray) -> np.ndarray:
        return self._answered(genotype, "holdout")

    def _answered(self, genotype: np.ndarray, split: Literal["search", "holdout"]) -> np.ndarray:
        from evomerge.candidate import Answers, Candidate, Job
        from evomerge.scoring import values_of

        key = (split, np.ascontiguousarray(genotype, dtype=float).tobytes())
        if key not in self._known:
            job = Job(Candidate(0, self._prepared.space.decode(genotype)), split, self._items[split])
            answers = {one.task: one.responses for one in self._worker.evaluate(job) if isinstance(one, Answers)}
            means = [
                np.mean(list(values_of(answers[objective.task], objective).values()))
                for objective in self._prepared.objectives
            ]
            self._known[key] = np.array(means, dtype=float)
        return self._known[key]


def problem(name: str, seed: int) -> Problem:
    """Return a problem; a synthetic one has another landscape for each seed, a live one other questions."""
    if name in LIVE:
        return LiveExperts(name, seed)
    if name == "experts-grid":
        return Experts()
    genes, tasks = SHAPES[name]
    return Hull(name, genes, tasks, items=60, seed=seed)


# genes and objectives of each
SHAPES = {"experts": (12, 3), "hull-10-3": (10, 3), "hull-24-2": (24, 2), "experts-grid": (5, 3), "tuning": (15, 3)}
REPORTED = ("experts", "hull-10-3", "hull-24-2")
NAMES = tuple(SHAPES)
