"""How good one front is against another: distances, win rate, attainment. All for maximisation.

Distances are Euclidean and averaged plainly (p = 1). Objectives are scaled by the range of the reference front
unless told otherwise; one that is constant there keeps its unit. Rows with a NaN are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from evomerge.errors import InputError
from evomerge.pareto.checks import Array, at_least, fraction, score_table, standard_errors
from evomerge.pareto.dominance import non_dominated
from evomerge.pareto.hypervolume import hypervolume


def generational_distance(front: ArrayLike, reference_front: ArrayLike, *, scale: bool = True) -> float:
    """Return GD: the mean over points of `front` of the distance to the nearest point of `reference_front`.

    Args:
        front: (n, m), the front found.
        reference_front: (r, m), the front to reach; dominated rows are dropped from it.
        scale: whether to divide objectives by their range over the reference front.

    Raises:
        InputError: no usable row on a side, or different objectives.

    Source: Van Veldhuizen and Lamont 1998.
    """
    found, target = _scaled_pair(front, reference_front, scale)
    return float(_distances(found, target).min(axis=1).mean())


def inverted_generational_distance(front: ArrayLike, reference_front: ArrayLike, *, scale: bool = True) -> float:
    """Return IGD: the mean over points of `reference_front` of the distance to the nearest point of `front`.

    Arguments and errors as for `generational_distance`. Source: Coello Coello and Reyes Sierra 2004.
    """
    found, target = _scaled_pair(front, reference_front, scale)
    return float(_distances(found, target).min(axis=0).mean())


def igd_plus(front: ArrayLike, reference_front: ArrayLike, *, scale: bool = True) -> float:
    """Return IGD+: like IGD, counting only by how much the nearest point falls short of the reference point.

    Unlike IGD it never prefers a dominated front. Arguments and errors as for `generational_distance`.

    Source: Ishibuchi et al. 2015, 'Modified distance calculation in generational distance and inverted
        generational distance'.
    """
    found, target = _scaled_pair(front, reference_front, scale)
    shortfall = np.maximum(target[None] - found[:, None], 0.0)  # (n, r, m)
    return float(np.linalg.norm(shortfall, axis=2).min(axis=0).mean())


def win_rate(front: ArrayLike, other: ArrayLike) -> float:
    """Return the probability that a random point of `front` beats a random point of `other` on a random objective.

    Point, point and objective are drawn uniformly and independently; a tie counts one half, so two equal fronts
    have 0.5 and `win_rate(f, g) + win_rate(g, f) == 1`. Computed exactly, not by drawing.

    Args:
        front: (n, m), higher is better.
        other: (k, m).

    Raises:
        InputError: no usable row on a side, or different objectives.

    The measure is reported in Li et al. 2024 (MAP, amortized Pareto fronts) without a formula; this is ours.
    """
    ours, theirs = _pair(front, other)
    above = (ours[:, None] > theirs[None]).mean()
    equal = (ours[:, None] == theirs[None]).mean()
    return float(above + equal / 2)


def attainment(fronts: Sequence[ArrayLike], points: ArrayLike) -> Array:
    """Return the share of `fronts` that reach each point: at least as high in every objective.

    Over the fronts of repeated searches, or of draws from a posterior, this is the empirical attainment function.

    Args:
        fronts: at least one (n_i, m) table.
        points: (q, m).

    Returns:
        (q,) float64 in [0, 1].

    Source: Grunert da Fonseca, Fonseca and Hall 2001.
    """
    goals = score_table(points, "points")
    tables = _fronts(fronts, goals.shape[1])
    reached = [(table[:, None] >= goals[None]).all(axis=2).any(axis=0) for table in tables]
    return np.mean(reached, axis=0, dtype=np.float64)


def attainment_curve(fronts: Sequence[ArrayLike], first: ArrayLike, level: float = 0.5) -> Array:
    """Return, for two objectives, the second objective that a share `level` of the fronts reach beside the first.

    The curves at 0.95, 0.5 and 0.05 are a band around an uncertain front, ready to draw.

    Args:
        fronts: at least one (n_i, 2) table.
        first: (q,) values of the first objective.
        level: share of fronts, in (0, 1).

    Returns:
        (q,) values of the second objective; minus infinity where too few fronts reach that far.
    """
    fraction(level, "level")
    x = np.asarray(first, dtype=np.float64)
    heights = np.full((len(fronts), len(x)), -np.inf)
    for row, table in zip(heights, _fronts(fronts, 2), strict=True):
        reaches = table[:, :1] >= x[None]  # (n_i, q)
        if len(table):
            row[:] = np.where(reaches, table[:, 1:], -np.inf).max(axis=0)
    ranked = -np.sort(-heights, axis=0)
    return np.asarray(ranked[int(np.ceil(level * len(fronts) - 1e-9)) - 1])


def hypervolume_interval(
    scores: ArrayLike,
    stderr: ArrayLike,
    reference: ArrayLike,
    rng: Generator,
    *,
    level: float = 0.95,
    draws: int = 500,
) -> tuple[float, float]:
    """Return the interval that holds the true hypervolume of the measured front with probability `level`.

    The rows on the measured front are redrawn around their scores with independent normal errors. That rows are on
    the front partly by luck is not corrected for: score the front again on fresh items before quoting the interval.

    Args:
        scores: (n, m), higher is better.
        stderr: standard errors, broadcast to (n, m).
        reference: (m,) finite.
        rng: source of the draws.
        level: in (0, 1).
        draws: simulated fronts.
    """
    table = score_table(scores)
    errors = standard_errors(stderr, table)
    tail = (1 - fraction(level, "level")) / 2
    front = non_dominated(table)
    volumes = [
        hypervolume(rng.normal(table[front], errors[front]), reference) for _ in range(at_least(draws, 1, "draws"))
    ]
    low, high = np.quantile(volumes, [tail, 1 - tail])
    return float(low), float(high)


def _pair(front: ArrayLike, other: ArrayLike) -> tuple[Array, Array]:
    tables = []
    for values, name in ((front, "front"), (other, "the other front")):
        table = score_table(values, name)
        table = table[~np.isnan(table).any(axis=1)]
        if len(table) == 0:
            raise InputError(f"{name} must have at least one row without NaN to compare; got none")
        tables.append(table)
    if tables[0].shape[1] != tables[1].shape[1]:
        raise InputError(f"both fronts must have the same objectives; got {tables[0].shape} and {tables[1].shape}")
    return tables[0], tables[1]


def _scaled_pair(front: ArrayLike, reference_front: ArrayLike, scale: bool) -> tuple[Array, Array]:
    found, target = _pair(front, reference_front)
    target = target[non_dominated(target)]
    span = np.ptp(target, axis=0)
    unit = np.where(span > 0, span, 1.0) if scale else np.ones_like(span)
    return found / unit, target / unit


def _distances(left: Array, right: Array) -> Array:
    return np.asarray(np.linalg.norm(left[:, None] - right[None], axis=2))  # (n, r)


def _fronts(fronts: Sequence[ArrayLike], objectives: int) -> list[Array]:
    if len(fronts) == 0:
        raise InputError("fronts must hold at least one front, got none")
    tables = [score_table(front, f"fronts[{index}]") for index, front in enumerate(fronts)]
    wrong = [index for index, table in enumerate(tables) if table.shape[1] != objectives]
    if wrong:
        raise InputError(f"fronts[{wrong[0]}] must have {objectives} objectives, got shape {tables[wrong[0]].shape}")
    return [table[~np.isnan(table).any(axis=1)] for table in tables]
