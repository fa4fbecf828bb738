"""Noisy expected hypervolume improvement: the next points under Gaussian processes.

Source: Daulton, Balandat and Bakshy 2021, 'Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected
Hypervolume Improvement'. Ours: volume is estimated from samples, and points are chosen greedily from a pool around the
front of the posterior means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge._arguments import Array
from evomerge.pareto import Bounds, front_ranks, non_dominated, representatives
from evomerge.surrogates._acquisition import by_drawn_volume, distance
from evomerge.surrogates._design import sobol_points
from evomerge.surrogates._gaussian_process import GaussianProcess
from evomerge.surrogates._surrogate_optimizer import evolve

DRAWS = 32  # joint draws of all surfaces over which the gain is averaged
KNOWN = 64  # best evaluated points kept as the baseline; more would only slow each draw down
SURVIVORS, GENERATIONS = 60, 20  # sizes of the evolution that finds the front of the posterior means
BELOW_FRONT = 0.1  # reference point: this fraction of the front's range below it, so that its ends add some volume
SPREAD, FRONT, STEP = 64, 100, 0.05  # Sobol points and front points in the pool; the latter also moved by this sd


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
