"""Evolutionary controller with mutations of routes: insert, delete, swap and repeat layers.

They mutate the genes that switch the slots of a route (`SearchProblem.switches`); Gaussian steps mutate numbers, and
redrawing mutates choices. Without such genes it is a plain genetic algorithm over numbers and choices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.controllers._proposals import Proposals, bounded
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._registry import EvolutionOptions
from evomerge.pareto import crowding_distance, front_ranks

ON, OFF = 0.75, 0.25  # coordinates of a slot that runs and of one that does not
TOURNAMENT = 2  # parents compared for each selection
CROSSED = 0.5  # probability that a child has two parents
ONCE = 0.6  # probability that a mutation of a route is a single move
ATTEMPTS = 20  # mutations tried to get a child that was not proposed before
SHRINK = 0.97  # factor on the Gaussian step per generation, down to SMALLEST
SMALLEST = 0.01


def evolution(problem: SearchProblem, options: EvolutionOptions) -> Evolution:
    """Return an evolutionary controller.

    Args:
        problem: dimensions, seed, objectives, start, prior, which genes are choices, and which switch layers.
        options: `population`, proposals per generation, as many of which are kept as parents of the next;
            `mutation`, first step of a number, which shrinks to `SMALLEST` over the generations.

    Source: survivors by front and crowding distance as in NSGA-II, Deb et al. 2002; the moves on routes are ours.
    """
    return Evolution(problem, options.population, options.mutation)


class Evolution:
    """Keeps the best points observed so far, and proposes mutated copies of them, a generation at a time.

    It waits until a generation is observed. With one objective the highest fitness survives, with several the lower
    front rank and then the larger crowding distance. Failed points never become parents. A child that was proposed
    before is mutated again, so duplicates are rare.
    """

    def __init__(self, problem: SearchProblem, population: int, mutation: float) -> None:
        self._problem = problem
        self._population, self._step = population, mutation
        self._random = np.random.default_rng(problem.seed)
        self._proposals = Proposals(problem.objectives, problem.bounds)
        self._choices = np.array(problem.choices or (0,) * problem.dimensions)
        self._track = [gene for gene, _ in problem.switches]  # gene of each slot, in slot order
        self._layers = [layer for _, layer in problem.switches]  # layer that each slot runs
        switched = set(self._track)
        self._others = [gene for gene in range(problem.dimensions) if gene not in switched]
        self._parents: list[tuple[np.ndarray, tuple[float, ...]]] = []  # (d,) point and its fitness (m,)
        self._proposed: dict[int, np.ndarray] = {}  # current generation: proposal index -> genotype (d,)
        self._observed: dict[int, tuple[float, ...] | None] = {}
        self._seen: set[bytes] = set()  # keys of all points proposed so far
        first = [problem.start, *(one.genotype for one in problem.prior if one.fitness is None)]
        self._first = [np.array(point, dtype=np.float64) for point in dict.fromkeys(first) if point is not None]
        known = [one for one in problem.prior if one.fitness is not None]
        points = [np.array(one.genotype, dtype=np.float64) for one in known]
        self._keep(
            [(point, bounded(one.fitness or (), problem.bounds)) for point, one in zip(points, known, strict=True)]
        )

    def ask(self) -> list[np.ndarray]:
        """Return a generation, or [] while one is not observed completely."""
        if self._proposals.waiting:
            return []
        points = [self._fresh() for _ in range(self._population)]
        self._proposed = dict(zip(self._proposals.hand_out(len(points)), points, strict=True))
        self._observed = {}
        return [point.copy() for point in points]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the parents change when the generation's last one arrives."""
        self._observed[index] = self._proposals.take_back(index, fitness)
        if not self._proposals.waiting:
            self._select()

    def stop(self) -> dict[str, str]:
        """Return {}: evolution has no stopping rule of its own."""
        return {}

    def _select(self) -> None:
        """Keep the best of parents and children; ties go to the earlier point."""
        observed = ((self._proposed[index], self._observed[index]) for index in sorted(self._observed))
        pool = [*self._parents, *((point, fitness) for point, fitness in observed if fitness is not None)]
        self._step = max(self._step * SHRINK, SMALLEST)
        self._keep(pool)

    def _keep(self, pool: list[tuple[np.ndarray, tuple[float, ...]]]) -> None:
        order = ranked(np.array([fitness for _, fitness in pool])) if pool else []
        self._parents = [pool[index] for index in order[: self._population]]

    def _fresh(self) -> np.ndarray:
        """Return a point that was not proposed before, or the last of `ATTEMPTS` that all were.

        The start and the other starting points come first, unchanged.
        """
        if self._first:
            point = self._first.pop(0)
            self._seen.add(self._key(point))
            return point
        point = self._proposal()
        for _ in range(ATTEMPTS):
            key = self._key(point)
            if key not in self._seen:
                break
            point = self._mutated(point)
        self._seen.add(self._key(point))
        return point

    def _proposal(self) -> np.ndarray:
        if self._parents:
            child = self._chosen()
            if self._random.random() < CROSSED and len(self._parents) > 1:
                child = self._crossed(child, self._chosen())
            return self._mutated(child)
        if self._problem.start is None:
            return self._settled(self._random.random(self._problem.dimensions))
        return self._mutated(self._settled(np.array(self._problem.start, dtype=np.float64)))

    def _chosen(self) -> np.ndarray:
        """Return a parent by tournament selection."""
        # parents are sorted by rank, so the smallest of the drawn indices wins
        return self._parents[int(self._random.integers(len(self._parents), size=TOURNAMENT).min())][0].copy()

    def _crossed(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return slots before a cut from one and behind it from the other, and each other gene from either."""
        cut = int(self._random.integers(len(self._track) + 1))  # one-point crossover keeps neighbouring layers together
        one[self._track[cut:]] = other[self._track[cut:]]
        taken = [gene for gene in self._others if self._random.random() < 0.5]
        one[taken] = other[taken]
        return one

    def _mutated(self, point: np.ndarray) -> np.ndarray:
        point = point.copy()
        if self._track and (not self._others or self._random.random() < 0.8):
            self._move(point)
        if self._others and (not self._track or self._random.random() < 0.5):
            self._change_others(point)
        return point

    def _move(self, point: np.ndarray) -> None:
        """Insert, delete, swap or repeat: one kind of move, usually once, at most for half of the slots.

        Repetitions use the same kind, because different kinds undo each other: mixed moves found fronts over depth
        later.
        """
        move = (self._insert, self._delete, self._swap, self._repeat)[int(self._random.integers(4))]
        for _ in range(int(min(self._random.geometric(ONCE), max(len(self._track) // 2, 1)))):
            move(point)

    def _running(self, point: np.ndarray) -> tuple[list[int], list[int]]:
        """Return the indices of slots that run, and of those that do not."""
        on = [slot for slot, gene in enumerate(self._track) if point[gene] >= 0.5]
        chosen = set(on)
        return on, [slot for slot in range(len(self._track)) if slot not in chosen]

    def _insert(self, point: np.ndarray) -> None:
        """Switch one more slot on."""
        self._switch(point, self._pick(self._running(point)[1]), ON)

    def _delete(self, point: np.ndarray) -> None:
        """Switch one slot off."""
        self._switch(point, self._pick(self._running(point)[0]), OFF)

    def _swap(self, point: np.ndarray) -> None:
        """Switch one slot off and another one on."""
        on, off = self._running(point)
        if on and off:
            self._switch(point, self._pick(on), OFF)
            self._switch(point, self._pick(off), ON)

    def _repeat(self, point: np.ndarray) -> None:
        """Repeat a block of up to four running layers, in the next slots that hold them."""
        on, _ = self._running(point)
        if not on:
            return
        first = int(self._random.integers(len(on)))
        block = on[first : first + int(self._random.integers(1, 5))]
        slot = block[-1]
        for layer in [self._layers[entry] for entry in block]:
            slot = next((s for s in range(slot + 1, len(self._track)) if self._layers[s] == layer), -1)
            if slot < 0:
                return  # no later slot holds the layer: the block stays partly repeated
            self._switch(point, slot, ON)

    def _pick(self, slots: list[int]) -> int | None:
        return slots[int(self._random.integers(len(slots)))] if slots else None

    def _switch(self, point: np.ndarray, slot: int | None, value: float) -> None:
        if slot is not None:
            point[self._track[slot]] = value

    def _change_others(self, point: np.ndarray) -> None:
        """Mutate some other genes: numbers by a Gaussian step, reflected at the ends, choices to other values."""
        rate = max(1.0 / len(self._others), 0.25)  # at least one gene on average
        picked = [gene for gene in self._others if self._random.random() < rate] or [
            self._others[int(self._random.integers(len(self._others)))]
        ]
        for gene in picked:
            count = int(self._choices[gene])
            if count > 1:
                others = [value for value in range(count) if value != int(point[gene] * count)]
                point[gene] = (others[int(self._random.integers(len(others)))] + 0.5) / count
            else:
                point[gene] = _reflected(point[gene] + self._step * self._random.standard_normal())

    def _settled(self, point: np.ndarray) -> np.ndarray:
        """Return the point with each slot at ON or OFF, so that equal routes are equal points."""
        for gene in self._track:
            point[gene] = ON if point[gene] >= 0.5 else OFF
        return point

    def _key(self, point: np.ndarray) -> bytes:
        return np.round(point, 9).tobytes()  # rounding merges points that decode to the same recipe


def ranked(fitness: np.ndarray) -> list[int]:
    """Return the indices of fitness rows (n, m), best first: by front rank, crowding distance, then index."""
    if fitness.shape[1] == 1:
        return [int(index) for index in np.argsort(-fitness[:, 0], kind="stable")]
    ranks = front_ranks(fitness)
    lonely = np.zeros(len(fitness))
    for rank in np.unique(ranks):
        rows = np.flatnonzero(ranks == rank)
        lonely[rows] = crowding_distance(fitness[rows])
    return [int(index) for index in np.lexsort((np.arange(len(fitness)), -lonely, ranks))]


def _reflected(value: float) -> float:
    """Return a number folded back into [0, 1] at its ends."""
    folded = abs(value) % 2.0
    return float(2.0 - folded if folded > 1.0 else folded)
