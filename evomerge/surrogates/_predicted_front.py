"""The front that surrogates predict, found without evaluating a model (amortized Pareto front).

Links are increasing, so dominance on the metrics equals dominance on the link scale, where every objective is a
quadratic: supported points have a closed form there, and evolution fills in the rest.

Source: Li et al. 2024 (MAP). Ours: the search stays inside the box, and by default within the leverage of the
design; closed-form points start it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from evomerge._arguments import Array, Mask, at_least, score_table
from evomerge.errors import InputError
from evomerge.pareto import non_dominated, representatives, simplex_weights
from evomerge.surrogates._box_quadratic import box_maxima
from evomerge.surrogates._design import sobol_points
from evomerge.surrogates._observations import box_around
from evomerge.surrogates._surrogate import LEVERAGE_SLACK, Surrogate, leverage, predict
from evomerge.surrogates._surrogate_optimizer import evolve


@dataclass(frozen=True)
class PredictedFront:
    """Mutually non-dominated predictions; none of it was measured. f points, K coefficients, T objectives."""

    c: Array  # (f, K) merge coefficients
    scores: Array  # (f, T) predicted metrics
    sd: Array  # (f, T) of the true metrics around them
    low: Array  # (f, T) ends of each metric's interval
    high: Array  # (f, T)
    extrapolates: Mask  # (f,) more leverage than any evaluated point; never present these as predictions
    level: float  # coverage probability of each interval


def predicted_front(
    surrogates: Sequence[Surrogate],
    rng: Generator,
    *,
    size: int = 500,
    population: int = 200,
    generations: int = 60,
    box: ArrayLike | None = None,
    trust_region: bool = True,
    start: ArrayLike | None = None,
    level: float = 0.9,
) -> PredictedFront:
    """Return the Pareto front of the surrogates over the box.

    Args:
        surrogates: T of them, one per objective, in the same K coefficients.
        rng: Sobol scrambling and evolution.
        size: most points to return, spread evenly over the front found.
        population: survivors of each generation, and the number of Sobol and of closed-form points at the start.
        generations: rounds of evolution; 0 returns the front of the first points.
        box: (K, 2) region, default the surrogates' own.
        trust_region: leave out points with more leverage than any evaluated point, for any objective.
        start: (s, K) further points to start from, for instance the evaluated ones.
        level: coverage of the intervals, in (0, 1).

    Returns:
        The front, sorted by falling first objective. A single point means that no trade-off is predicted.

    Raises:
        InputError: no surrogates, or they differ in dimensions.
    """
    fits = same_space(surrogates)
    bounds = fits[0].box if box is None else box_around(np.empty((0, fits[0].dimensions)), box)
    at_least(generations, 0, "generations")
    first = [sobol_points(at_least(population, 2, "population"), len(bounds), rng, bounds)]
    first.append(supported_points(fits, simplex_weights(len(fits), population), bounds)[0])
    if start is not None:
        first.append(np.clip(score_table(start, "start"), *bounds.T))

    def evaluate(points: Array) -> tuple[Array, Array]:
        basis_scores = np.stack([fit.basis(points) @ fit.centred for fit in fits], axis=1)
        if not trust_region:
            return basis_scores, np.zeros(len(points))
        # a violation, not a filter: infeasible points may still lead evolution towards the region
        excess = [leverage(fit, points) / (fit.max_leverage * (1 + LEVERAGE_SLACK)) - 1 for fit in fits]
        return basis_scores, np.maximum(np.max(excess, axis=0), 0.0)

    points = evolve(evaluate, np.vstack(first), bounds, rng, survivors=population, generations=generations)
    front = describe(fits, points, level=level)
    order = np.lexsort((*front.scores.T[::-1][:-1], -front.scores[:, 0]))  # last key first: falling first objective
    kept = order[non_dominated(front.scores[order], duplicates=False)]
    kept = kept[representatives(front.scores[kept], size)]
    return describe(fits, points[kept], level=level)


def describe(surrogates: Sequence[Surrogate], c: ArrayLike, *, level: float = 0.9) -> PredictedFront:
    """Return the predictions at points (n, K) in the form of a front, in the order given; not filtered."""
    fits = same_space(surrogates)
    points = score_table(c, "c")
    each = [predict(fit, points, level=level) for fit in fits]
    return PredictedFront(
        c=points,
        scores=np.stack([one.value for one in each], axis=1),
        sd=np.stack([one.sd for one in each], axis=1),
        low=np.stack([one.low for one in each], axis=1),
        high=np.stack([one.high for one in each], axis=1),
        extrapolates=np.logical_or.reduce([one.extrapolates for one in each]),
        level=level,
    )


def supported_points(
    surrogates: Sequence[Surrogate], weights: ArrayLike, box: ArrayLike | None = None
) -> tuple[Array, Mask]:
    """Return the maximiser over the box of each weighted sum of the link-scale quadratics.

    Args:
        surrogates: T of them.
        weights: (q, T), at least 0, applied to objectives scaled by their sd over the box.
        box: (K, 2), default the surrogates' own.

    Returns:
        c (q, K), and whether each maximum is certain: the weighted curvature is negative definite. On concave
        surfaces these points, over all weights, are the whole front; otherwise only its supported part, if that.
    """
    fits = same_space(surrogates)
    mix = score_table(weights, "weights")
    if mix.shape[1] != len(fits) or not (mix >= 0).all():
        raise InputError(f"weights must be (q, {len(fits)}), at least 0; got shape {mix.shape}")
    bounds = fits[0].box if box is None else box_around(np.empty((0, fits[0].dimensions)), box)
    parts = [fit.parts for fit in fits]
    scale = np.array([_spread(part[0], part[1], bounds) for part in parts])
    scaled = mix / np.where(scale > 0, scale, 1.0)  # (q, T)
    curvature = np.einsum("qt,tkl->qkl", scaled, np.stack([part[0] for part in parts]))
    slope = np.einsum("qt,tk->qk", scaled, np.stack([part[1] for part in parts]))
    return box_maxima(curvature, slope, bounds)


def same_space(surrogates: Sequence[Surrogate]) -> list[Surrogate]:
    """Return the surrogates as a list.

    Raises:
        InputError: there are none, or they differ in their number of coefficients.
    """
    fits = list(surrogates)
    if not fits or len({fit.dimensions for fit in fits}) != 1:
        raise InputError(
            f"surrogates must be at least one, all in the same coefficients; got dimensions "
            f"{[fit.dimensions for fit in fits]}"
        )
    return fits


def _spread(curvature: Array, slope: Array, box: Array) -> float:
    """Return the sd of b'c + c'A c / 2 for c uniform in the box, in closed form."""
    middle, half = box.mean(axis=1), (box[:, 1] - box[:, 0]) / 2
    linear = (slope + curvature @ middle) * half
    bend = curvature * np.outer(half, half)
    squares = np.diag(bend) / 2
    products = bend[np.triu_indices(len(half), 1)]
    # Var(u) = 1/3, Var(u^2) = 4/45, Var(u v) = 1/9 for independent u, v uniform in [-1, 1]; all uncorrelated
    return float(np.sqrt((linear**2).sum() / 3 + (squares**2).sum() * 4 / 45 + (products**2).sum() / 9))
