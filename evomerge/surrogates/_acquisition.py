"""Acquisition rules that choose the next points from a pool; `bayesian` chooses among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from evomerge._arguments import Array, Mask, vector
from evomerge.pareto import Bounds, dominates, non_dominated
from evomerge.surrogates._design import sobol_points
from evomerge.surrogates._regression import row_forms
from evomerge.surrogates._surrogate import Surrogate, draw_coefficients, link_sd

# Volume is estimated from this many samples per draw: a relative error of a few percent, equal for all candidates.
VOLUME_SAMPLES = 512
# A point may still be on the front if its prediction plus this many sds is not dominated.
OPTIMISM_SDS = 2.0


def distance(points: Array, others: Array, box: Array) -> Array:
    """Return the distance of each point to the nearest of the others, in widths of the box."""
    width = box[:, 1] - box[:, 0]
    gaps = (points[:, None] - others[None]) / width  # (N, n, K)
    return np.asarray(np.sqrt((gaps**2).sum(axis=2)).min(axis=1))


def by_hypervolume(
    fits: Sequence[Surrogate],
    pool: Array,
    known: Array,
    count: int,
    rng: Generator,
    reference: ArrayLike | None,
    draws: int,
    bounds: Bounds | None = None,
) -> tuple[list[int], list[float], float]:
    """Return pool indices, their expected gains, and the expected volume so far; fewer if no gain is left."""
    at_pool, at_known = np.empty((draws, len(pool), len(fits))), np.empty((draws, len(known), len(fits)))
    for t, fit in enumerate(fits):
        coefficients = draw_coefficients(fit, rng, draws)
        at_pool[:, :, t] = fit.link.inverse(coefficients @ fit.basis(pool).T)
        at_known[:, :, t] = fit.link.inverse(coefficients @ fit.basis(known).T)
    fitted = np.stack([fit.link.inverse(fit.basis(known) @ fit.centred) for fit in fits], axis=1)
    floor = fitted.min(axis=0) if reference is None else vector(reference, len(fits), "reference")
    return by_drawn_volume(at_pool, at_known, floor, count, rng, bounds)


def by_drawn_volume(
    at_pool: Array, at_known: Array, floor: Array, count: int, rng: Generator, bounds: Bounds | None = None
) -> tuple[list[int], list[float], float]:
    """Return pool indices, their expected gains, and the expected volume so far; fewer if no gain is left.

    Args:
        at_pool: (draws, N, T) metrics of the pool under each draw.
        at_known: (draws, n, T) metrics of what is evaluated, or being evaluated, under the same draws.
        floor: (T,) reference point.
        count: points wanted.
        rng: places the samples that estimate the volume.
        bounds: points infeasible under a draw add no volume under it; if no point is feasible under any draw, the
            points of the smallest mean violation are chosen, with gain 0.
    """
    draws = len(at_pool)
    if bounds is not None:
        misses = bounds.violation(at_pool)  # (draws, N)
        if not (misses <= 0).any():
            nearest = np.argsort(misses.mean(axis=0), kind="stable")[:count]
            return [int(index) for index in nearest], [0.0] * len(nearest), 0.0
        # volume below a lower bound is worthless; the slack keeps points exactly on the bound
        floor = np.where(np.isfinite(bounds.low), np.maximum(floor, np.array(bounds.low) - 1e-9), floor)
        at_pool = np.where((misses <= 0)[:, :, None], at_pool, floor - 1.0)
        at_known = np.where(bounds.met(at_known)[:, :, None], at_known, floor - 1.0)
    unit = sobol_points(VOLUME_SAMPLES, len(floor), rng)
    # pairs of a sample and a candidate that dominates it; float32, not bool, so that the products below use BLAS
    reached = np.zeros((draws, VOLUME_SAMPLES, at_pool.shape[1]), dtype=np.float32)
    open_still = np.zeros((draws, VOLUME_SAMPLES), dtype=np.float32)  # samples that no evaluated point dominates
    cell = np.zeros(draws)  # volume that one sample stands for
    for s in range(draws):
        ceiling = np.maximum(np.maximum(at_pool[s].max(axis=0), at_known[s].max(axis=0)), floor)
        samples = floor + unit * (ceiling - floor)
        cell[s] = float(np.prod(ceiling - floor)) / VOLUME_SAMPLES
        front = at_known[s][non_dominated(at_known[s], duplicates=False)]
        open_still[s] = ~_reached(samples, front).any(axis=1)
        reached[s] = _reached(samples, at_pool[s])
    volume = float(np.mean(cell * (VOLUME_SAMPLES - open_still.sum(axis=1))))
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < count:
        gain = np.einsum("s,sn->n", cell, np.matmul(open_still[:, None], reached)[:, 0]) / draws
        gain[chosen] = 0.0
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        chosen.append(best)
        gains.append(float(gain[best]))
        open_still *= 1.0 - reached[:, :, best]  # the next point gains only what this one leaves
    return chosen, gains, volume


def _reached(samples: Array, points: Array) -> Mask:
    """Return which samples (q, T) each point (N, T) reaches in every objective, as (q, N)."""
    reached = np.ones((len(samples), len(points)), dtype=bool)
    for t in range(points.shape[1]):  # a comparison per objective: several times faster than one of all, reduced
        reached &= samples[:, t, None] <= points[None, :, t]
    return reached


def by_uncertainty(fits: Sequence[Surrogate], pool: Array, taken: list[int], count: int, weights: Array) -> list[int]:
    """Return pool indices of the largest summed predictive sd among points that may be on the front."""
    bases = [fit.basis(pool) for fit in fits]
    means = np.stack([basis @ fit.centred for basis, fit in zip(bases, fits, strict=True)], axis=1)
    sds = np.stack([link_sd(fit, basis) for basis, fit in zip(bases, fits, strict=True)], axis=1)
    sds = np.where(np.isfinite(sds), sds, 0.0)
    front = means[non_dominated(means, duplicates=False)]
    hopeful = means + OPTIMISM_SDS * sds  # (N, T) optimistic scores, as in an upper confidence bound
    free = np.ones(len(pool), dtype=bool)
    free[taken] = False
    may_win = free & ~np.asarray(dominates(front[None], hopeful[:, None])).any(axis=1)
    allowed: Mask = may_win if int(may_win.sum()) >= count else free
    scale = np.ptp(means, axis=0)
    scale = weights / np.where(scale > 0, scale, 1.0)
    covariances = [fit.covariance for fit in fits]
    chosen: list[int] = []
    for _ in range(count):
        variance = [row_forms(basis, c) for basis, c in zip(bases, covariances, strict=True)]
        score = np.sqrt(np.maximum(np.stack(variance, axis=1), 0.0)) @ scale
        best = int(np.argmax(np.where(allowed, score, -np.inf)))
        chosen.append(best)
        allowed[best] = False
        for t, basis in enumerate(bases):
            # condition on a pseudo-measurement, as precise as the typical point's current posterior
            direction = covariances[t] @ basis[best]
            noise = max(float(np.mean(variance[t])), 1e-300)
            covariances[t] = covariances[t] - np.outer(direction, direction) / (noise + basis[best] @ direction)
    return chosen


def by_draws(fits: Sequence[Surrogate], pool: Array, known: Array, count: int, rng: Generator) -> list[int]:
    """Return one pool index per coefficient draw: the point of its front farthest from all seen ones."""
    bases = [fit.basis(pool) for fit in fits]
    coefficients = [draw_coefficients(fit, rng, count) for fit in fits]
    seen, free = known, np.ones(len(pool), dtype=bool)
    chosen: list[int] = []
    for s in range(count):
        values = np.stack([basis @ beta[s] for basis, beta in zip(bases, coefficients, strict=True)], axis=1)
        members = np.flatnonzero(non_dominated(np.where(free[:, None], values, np.nan)))
        lonely = distance(pool[members], seen, fits[0].box) if len(seen) else np.zeros(len(members))
        best = int(members[np.argmax(lonely)])
        chosen.append(best)
        free[best] = False
        seen = np.vstack([seen, pool[best]])
    return chosen


def farthest(pool: Array, known: Array, count: int) -> list[int]:
    """Return pool indices of a space-filling choice, each the farthest from all known and chosen points."""
    width = np.maximum(np.ptp(pool, axis=0), 1e-300)
    nearest = np.full(len(pool), np.inf)
    for row in known:
        nearest = np.minimum(nearest, (((pool - row) / width) ** 2).sum(axis=1))
    chosen: list[int] = []
    for _ in range(count):
        best = int(np.argmax(nearest))
        chosen.append(best)
        nearest = np.minimum(nearest, (((pool - pool[best]) / width) ** 2).sum(axis=1))
        nearest[best] = -1.0  # below 0, the distance of duplicates
    return chosen
