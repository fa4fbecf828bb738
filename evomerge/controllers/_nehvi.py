"""Noisy expected hypervolume improvement under Gaussian processes: the controller `nehvi`.

Each objective is a Gaussian process in the genes behind a link. After a space-filling design, each round proposes the
points with the largest expected gain of hypervolume over the latent values of the evaluated points, averaged over joint
draws of all surfaces. A lucky measurement is therefore not mistaken for a good point, and pending points count as
evaluated.

Source: Daulton, Balandat and Bakshy 2021, 'Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected
Hypervolume Improvement'. Ours: volume is counted by samples, points are chosen greedily from a pool around the front
that the surfaces' means predict, and shares lie behind a logit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge._arguments import Array
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._quadratic_front import ROUND, QuadraticFront, distinct, starts
from evomerge.controllers._registry import StartupOptions
from evomerge.pareto import Bounds, front_ranks, non_dominated, representatives
from evomerge.surrogates import (
    GaussianProcess,
    Hyperparameters,
    by_drawn_volume,
    distance,
    evolve,
    fit_process,
    sobol_points,
)

POINTS_PER_GENE, SMALLEST_DESIGN, LARGEST_DESIGN = 2, 8, 64
DESIGN_FRACTION = 0.25  # the space-filling design takes at most this fraction of the budget
REFIT_GROWTH = 0.1  # length scales are fitted again once the data have grown by this fraction
DRAWS = 32  # joint draws of all surfaces over which the gain is averaged
KNOWN = 64  # best evaluated points kept as the baseline; more would only slow each draw down
SURVIVORS, GENERATIONS = 60, 20  # sizes of the evolution that finds the front of the posterior means
BELOW_FRONT = 0.1  # reference point: this fraction of the front's range below it, so that its ends add some volume
SPREAD, FRONT, STEP = 64, 100, 0.05  # Sobol points and front points in the pool; the latter also moved by this sd


def nehvi(problem: SearchProblem, options: StartupOptions) -> GaussianFront:
    """Return a controller that proposes by noisy expected hypervolume improvement under Gaussian processes.

    Args:
        problem: dimensions, seed, objectives, budget; items, where known, say how shares of 0 and 1 are to be read;
            priors with fitness are data from the first fit on, and replace as many points of the design.
        options: `batch_size`, proposals per round, which are evaluated in parallel; `startup`, points of the
            space-filling design, None: two per gene, a quarter of the budget at most.
    """
    startup = design_points(problem.dimensions, problem.budget) if options.startup is None else options.startup
    return GaussianFront(problem, options.batch_size or ROUND, startup)


def design_points(dimensions: int, budget: int | None) -> int:
    """Return the number of space-filling points before the first fit."""
    wanted = int(np.clip(POINTS_PER_GENE * dimensions, SMALLEST_DESIGN, LARGEST_DESIGN))
    return wanted if budget is None else max(1, min(wanted, int(DESIGN_FRACTION * budget)))


class GaussianFront(QuadraticFront):
    """Proposes a space-filling design, then rounds of points; batches and waits like the quadratic controller."""

    def __init__(self, problem: SearchProblem, population: int, startup: int) -> None:
        super().__init__(problem, population, startup, 0.0, None)
        self._hyper: list[Hyperparameters] = []  # per objective, after the fits to `_sizes[:_fitted]` rows
        self._sizes: list[int] = []  # rows of data at which length scales are fitted anew, each fit from the one before
        self._fitted = 0

    def repeat(self, points: Sequence[np.ndarray]) -> bool:
        """Take stored genotypes for the next batch; length scales are fitted when they are needed again.

        In an asynchronous search, rows come in another order than they were learned in, so there it returns False.
        """
        if self._free:
            return False
        self._generator()
        if not (self._round == 1 and self._startup):
            self._schedule(len(self._data()[0]))
        self._points += [np.array(point, dtype=np.float64) for point in points]
        self._proposals.hand_out(len(points))
        return True

    def _next_points(self, rng: np.random.Generator) -> Array:
        if self._round == 1 and self._startup:
            return self._spread(rng)
        points, values = self._data()
        if len(points) == 0:  # all evaluations failed so far: explore elsewhere
            return sobol_points(self._batch, self._problem.dimensions, rng)
        processes = self._fits(points, values)
        proposed = np.vstack([self._prior_points, *self._points]) if self._points else self._prior_points
        return improving(processes, values, proposed, self._batch, rng, self._problem.bounds)

    def _spread(self, rng: np.random.Generator) -> Array:
        """Return the start, or the centre of the cube, and Sobol points."""
        d = self._problem.dimensions
        first = starts(self._problem) or [np.full((1, d), 0.5)]
        return distinct(np.vstack([*first, sobol_points(self._startup, d, rng)]), self._prior_points)[: self._startup]

    def _schedule(self, rows: int) -> None:
        """Schedule a fit of the length scales to the first `rows` rows if the data have grown enough."""
        if rows and (not self._sizes or rows >= (1 + REFIT_GROWTH) * self._sizes[-1]):
            self._sizes.append(rows)

    def _fits(self, points: Array, values: Array) -> list[GaussianProcess]:
        """Return a process per objective."""
        self._schedule(len(points))
        for rows in self._sizes[
            self._fitted :
        ]:  # also those that `repeat` skipped: each fit starts from the one before
            fits = self._processes(points[:rows], values[:rows], refine=True)
            self._hyper, self._fitted = [process.hyper for process in fits], self._fitted + 1
        return self._processes(points, values, refine=False)

    def _processes(self, points: Array, values: Array, *, refine: bool) -> list[GaussianProcess]:
        noise, items = self._noise()[: len(points)], self._problem.items
        return [
            fit_process(
                points,
                values[:, t],
                items=float(items[t]) if items else None,
                stderr=noise[:, t],
                start=self._hyper[t] if self._hyper else None,
                refine=refine,
            )
            for t in range(self._problem.objectives)
        ]


def improving(
    processes: Sequence[GaussianProcess],
    values: Array,
    proposed: Array,
    count: int,
    rng: np.random.Generator,
    bounds: Bounds | None = None,
) -> Array:
    """Return the points (count, d) with the largest expected gain of hypervolume.

    Args:
        processes: one per objective.
        values: (n, m) observed.
        proposed: (a, d) observed or pending.
        count: points wanted.
        rng: source of the pool and of the draws.
        bounds: constraints on the fitness; infeasible points add no volume.
    """
    means = _means(processes, proposed)
    known = proposed[np.argsort(front_ranks(means) + _misses(processes, means, bounds), kind="stable")[:KNOWN]]
    pool = _pool(processes, proposed, known, rng, bounds)
    both = np.vstack([pool, known])  # drawn jointly, so that gains respect the correlation between the two
    drawn = np.stack([process.draw(both, rng, DRAWS) for process in processes], axis=2)  # (draws, N + k, m)
    at_pool, at_known = drawn[:, : len(pool)], drawn[:, len(pool) :]
    chosen, _, _ = by_drawn_volume(at_pool, at_known, _floor(at_known.mean(axis=0)), count, rng, bounds)
    if len(chosen) < count:  # no expected gain is left: fill up where the posterior is widest
        unsure = (at_pool.std(axis=0) / np.maximum(np.ptp(values, axis=0), 1e-9)).sum(axis=1)
        unsure[chosen] = -1.0
        chosen += list(np.argsort(-unsure, kind="stable")[: count - len(chosen)])
    return pool[chosen]


def _floor(known: Array) -> Array:
    """Return the reference point (m,), `BELOW_FRONT` of the range below the front of expected metrics (n, m)."""
    front = known[non_dominated(known)]
    low, high = front.min(axis=0), front.max(axis=0)
    return np.maximum(known.min(axis=0), low - BELOW_FRONT * (high - low))


def _means(processes: Sequence[GaussianProcess], points: Array) -> Array:
    """Return the expected link-scale values of all objectives, (q, d) -> (q, m)."""
    return np.stack([process.predict(points) for process in processes], axis=1)


def _misses(processes: Sequence[GaussianProcess], means: Array, bounds: Bounds | None) -> Array:
    """Return the constraint violation of expected link-scale values (q, m), (q,)."""
    if bounds is None:
        return np.zeros(len(means))
    return bounds.violation(np.stack([one.link.inverse(means[:, t]) for t, one in enumerate(processes)], axis=1))


def _pool(
    processes: Sequence[GaussianProcess], proposed: Array, known: Array, rng: np.random.Generator, bounds: Bounds | None
) -> Array:
    """Return points to choose from, (N, d), none of them proposed before."""
    d = proposed.shape[1]
    box = np.tile([0.0, 1.0], (d, 1))
    start = np.vstack([sobol_points(SURVIVORS, d, rng), known])

    def expected(points: Array) -> tuple[Array, Array]:
        means = _means(processes, points)
        return means, _misses(processes, means, bounds)

    front = evolve(expected, start, box, rng, survivors=SURVIVORS, generations=GENERATIONS)
    front = front[representatives(_means(processes, front), FRONT)]
    moved = np.repeat(np.vstack([front, known]), 2, axis=0)
    moved = np.clip(moved + STEP * rng.standard_normal(moved.shape), 0.0, 1.0)
    pool = np.unique(np.vstack([sobol_points(SPREAD, d, rng), front, moved]), axis=0)
    return pool[distance(pool, proposed, box) > 1e-6]  # a duplicate would make the covariance singular
