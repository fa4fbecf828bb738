"""Initial designs: anchor points, scrambled Sobol points, and D-optimal subsets of them."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from evomerge._arguments import Array, at_least, score_table
from evomerge.errors import InputError
from evomerge.surrogates._features import Complexity, centred_features
from evomerge.surrogates._observations import box_around
from evomerge.surrogates._quadratic import richest_complexity
from evomerge.surrogates._regression import row_forms

# Sobol points from which a D-optimal design of n points is chosen: this many per point, and at least the second number.
POOL_PER_POINT, SMALLEST_POOL = 8, 256
# Fraction of a design, beyond its anchors, that fills the space instead: the surface may not be quadratic.
SPREAD_FRACTION = 0.25
MOST_EXCHANGES = 200


def anchor_points(dimensions: int, box: ArrayLike | None = None) -> Array:
    """Return the anchors of every design: equal weights 1/K, each expert alone, the base alone.

    Args:
        dimensions: K experts.
        box: (K, 2) or (2,), default [0, 1]. Anchors outside are moved to its border.

    Returns:
        (K + 2, K) float64, in that order; fewer if some coincide (K = 1, or a narrow box).

    >>> anchor_points(2).tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    k = at_least(dimensions, 1, "dimensions")
    bounds = _box(k, box)
    points = np.vstack([np.full((1, k), 1.0 / k), np.eye(k), np.zeros((1, k))])
    points = np.clip(points, bounds[:, 0], bounds[:, 1])
    _, first = np.unique(points, axis=0, return_index=True)
    return points[np.sort(first)]  # np.unique sorts rows; restore the stated order


def sobol_points(count: int, dimensions: int, rng: Generator, box: ArrayLike | None = None) -> Array:
    """Return scrambled Sobol points inside the box, (count, K) float64: random and space-filling.

    Args:
        count: number of points, 0 or more.
        dimensions: K.
        rng: source of the scrambling.
        box: (K, 2) or (2,), default [0, 1].
    """
    from scipy.stats import qmc  # a local import: scipy.stats is slow to import, and fronts do not need it

    k = at_least(dimensions, 1, "dimensions")
    bounds = _box(k, box)
    if at_least(count, 0, "count") == 0:
        return np.empty((0, k))
    power = int(np.ceil(np.log2(count))) if count > 1 else 0  # a Sobol sequence is balanced at powers of two
    unit = qmc.Sobol(k, scramble=True, seed=rng).random_base2(power)[:count]
    return np.asarray(bounds[:, 0] + unit * (bounds[:, 1] - bounds[:, 0]))


def d_optimal(
    candidates: ArrayLike,
    count: int,
    *,
    complexity: Complexity = "full",
    keep: ArrayLike | None = None,
    box: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Return the D-optimal choice of candidates, given the points kept, for the coefficients of a surrogate.

    Maximises det(Phi'Phi): greedily, then by exchanges as long as one improves it. Deterministic; ties go to the
    earlier candidate, and no candidate is chosen twice.

    Args:
        candidates: (q, K) points to choose from.
        count: how many to choose, at most q.
        complexity: features to determine.
        keep: (k, K) points that are in the design anyway.
        box: (K, 2) scaling, default [0, 1] widened to hold the candidates.

    Returns:
        (count,) int64 row indices in order of choice.

    Raises:
        InputError: `count` is above the number of candidates, or shapes do not match.

    Source: exchange as in Fedorov 1972, 'Theory of optimal experiments'.
    """
    points = score_table(candidates, "candidates")
    if at_least(count, 0, "count") > len(points):
        raise InputError(f"count must be at most the {len(points)} candidates, got {count}")
    bounds = box_around(points, box)
    basis = centred_features(points, bounds, complexity)
    fixed = np.empty((0, points.shape[1])) if keep is None else score_table(keep, "keep")
    held = centred_features(fixed, bounds, complexity)
    # The candidates' own moments as a tiny prior: otherwise the first steps invert a singular matrix.
    moments = held.T @ held + 1e-6 * (basis.T @ basis + np.eye(basis.shape[1])) / max(len(basis), 1)
    inverse = np.linalg.inv(moments)
    free = np.ones(len(basis), dtype=bool)
    chosen: list[int] = []
    gain = row_forms(basis, inverse)  # (q,) relative increase of the determinant by each candidate
    for _ in range(count):
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        chosen.append(best)
        free[best] = False
        inverse, gain = _with_row(inverse, gain, basis, best, 1.0)
    return _exchanged(basis, inverse, gain, chosen, free)


def initial_design(
    count: int,
    dimensions: int,
    rng: Generator,
    *,
    box: ArrayLike | None = None,
    complexity: Complexity | None = None,
) -> Array:
    """Return a first design: anchors, a D-optimal choice of Sobol points, and an even spread.

    Args:
        count: number of points. With fewer than the anchors, the first `count` anchors.
        dimensions: K.
        rng: source of the Sobol scrambling.
        box: (K, 2) or (2,), default [0, 1].
        complexity: features to determine; default the richest for which `count` is enough.

    Returns:
        (count, K) float64, all different. Shorter designs are not prefixes of longer ones.
    """
    k = at_least(dimensions, 1, "dimensions")
    bounds = _box(k, box)
    anchors = anchor_points(k, bounds)[: at_least(count, 0, "count")]
    left = count - len(anchors)
    if left == 0:
        return anchors
    if complexity is None:
        complexity = richest_complexity(k, count) or "linear"
    spread = int(SPREAD_FRACTION * left)
    pool = sobol_points(max(POOL_PER_POINT * left, SMALLEST_POOL), k, rng, bounds)
    even = pool[:spread]  # the head of a Sobol sequence is itself even
    rest = pool[spread:]
    chosen = d_optimal(rest, left - spread, complexity=complexity, keep=np.vstack([anchors, even]), box=bounds)
    return np.vstack([anchors, even, rest[chosen]])


def _box(dimensions: int, box: ArrayLike | None) -> Array:
    return box_around(np.empty((0, dimensions)), box)


def _with_row(inverse: Array, gain: Array, basis: Array, row: int, sign: float) -> tuple[Array, Array]:
    """Return inverse and gains after adding (sign 1) or removing (sign -1) a row: Sherman and Morrison."""
    direction = inverse @ basis[row]
    scale = sign / (1.0 + sign * float(basis[row] @ direction))
    return inverse - scale * np.outer(direction, direction), gain - scale * (basis @ direction) ** 2


def _exchanged(
    basis: Array, inverse: Array, gain: Array, chosen: list[int], free: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the choice after swapping the least useful point for a better one until none is better."""
    for _ in range(MOST_EXCHANGES if chosen and free.any() else 0):
        worst = int(np.argmin(gain[chosen]))
        out = chosen[worst]
        without, gain_without = _with_row(inverse, gain, basis, out, -1.0)
        best = int(np.argmax(np.where(free, gain_without, -np.inf)))
        if gain_without[best] <= gain_without[out] * (1 + 1e-9):  # rounding must not swap two points for ever
            break
        free[out], free[best] = True, False
        chosen[worst] = best
        inverse, gain = _with_row(without, gain_without, basis, best, 1.0)
    return np.array(chosen, dtype=np.int64)
