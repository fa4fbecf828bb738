"""Choosing one point of a Pareto front: the knee, a preference, desirability. All maximising.

A choice is the row index of one candidate. It is made among the rows on the front; ties go to the earlier row.
To choose under constraints, hide the rows that break them: `knee(np.where(ok[:, None], scores, np.nan))`, with `ok`
from `evomerge.pareto._constraints`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge._arguments import Array, score_table, vector
from evomerge.errors import InputError
from evomerge.pareto._dominance import non_dominated

# Weight of the sum in the augmented Tchebycheff distance: just enough to prefer a dominating point on a tie.
AUGMENTATION = 1e-4


def ideal_and_nadir(scores: ArrayLike) -> tuple[Array, Array]:
    """Return the best and the worst value of each objective over the front, each (m,).

    Raises:
        InputError: no row without NaN.
    """
    front = score_table(scores)[_front_rows(scores)]
    return front.max(axis=0), front.min(axis=0)


def normalised(scores: ArrayLike) -> Array:
    """Return scores scaled so that the front's nadir is 0 and its ideal 1, (n, m); dominated rows may fall below 0.

    An objective that is constant on the front cannot distinguish its points and becomes 0 everywhere on it;
    elsewhere it keeps its distance in the original unit.
    """
    table = score_table(scores)
    ideal, nadir = ideal_and_nadir(table)  # (m,) each
    span = ideal - nadir  # 0 for an objective that is constant on the front
    return (table - nadir) / np.where(span > 0, span, 1.0)


def knee(scores: ArrayLike) -> int:
    """Return the row of the knee: the point farthest above the plane through the front's extreme points.

    On scores normalised by ideal and nadir, the plane passes through the best row of each objective (ties go to the
    highest sum). If these rows determine no plane with a positive normal (a constant objective, coinciding extremes),
    the normal (1, ..., 1) is used; the knee is then the best average of normalised scores. A front of one point is its
    own knee; a front of two points has none, and the earlier row is returned.

    Args:
        scores: (n, m), higher is better.

    Raises:
        InputError: no row without NaN.

    Source: the knee of Das 1999, 'On characterizing the knee of the Pareto curve based on normal-boundary
        intersection'. The paper leaves degenerate extremes open.

    >>> knee([[1.0, 0.0], [0.8, 0.8], [0.0, 1.0]])
    1
    """
    rows = _front_rows(scores)
    scaled = normalised(scores)[rows]  # (f, m): the front only, but scaled by it as well
    return int(rows[_first_best(scaled @ _extreme_normal(scaled))])


def choose_by_preference(
    scores: ArrayLike,
    preference: ArrayLike,
    *,
    method: Literal["tchebycheff", "weighted_sum"] = "tchebycheff",
) -> int:
    """Return the front row that is best for a preference, on scores normalised by ideal and nadir.

    `weighted_sum` maximises the preference-weighted mean and can only return rows on the convex hull of the front.
    `tchebycheff` minimises the largest weighted distance to the ideal (plus `AUGMENTATION` times their sum) and can
    return any row. An objective with preference 0 only breaks ties, if at all.

    Args:
        scores: (n, m), higher is better.
        preference: (m,), importance of each objective; at least 0, not all 0; only ratios matter.
        method: scalarisation of the normalised scores.

    Raises:
        InputError: a preference is negative, all are 0, the shape is wrong, or there is no row without NaN.

    Source: augmented Tchebycheff, Steuer and Choo 1983.

    >>> choose_by_preference([[1.0, 0.0], [0.6, 0.6], [0.0, 1.0]], [1.0, 1.0])
    1
    """
    table = score_table(scores)
    weights = preference_weights(preference, table.shape[1])
    rows = _front_rows(table)
    scaled = normalised(table)[rows]
    if method == "weighted_sum":
        value = scaled @ weights
    elif method == "tchebycheff":
        shortfall = (scaled.max(axis=0) - scaled) * weights  # (f, m)
        value = -(shortfall.max(axis=1) + AUGMENTATION * shortfall.sum(axis=1))
    else:
        raise InputError(f"method must be 'tchebycheff' or 'weighted_sum', got {method!r}")
    return int(rows[_first_best(value)])


def preference_weights(preference: ArrayLike, objectives: int) -> Array:
    """Return a preference vector scaled to sum 1, (m,).

    Raises:
        InputError: another length, negative, infinite, or all zero.
    """
    weights = vector(preference, objectives, "preference")
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() == 0:
        raise InputError(
            f"preference must be finite, at least 0 and not all 0, got {weights.tolist()}. "
            "Give 0 to an objective that does not matter, more to one that matters more"
        )
    return np.asarray(weights / weights.sum())


def desirability(scores: ArrayLike, low: ArrayLike, target: ArrayLike, shape: ArrayLike = 1.0) -> Array:
    """Return desirabilities: 0 up to `low`, 1 from `target` on, ((y - low) / (target - low))^shape in between.

    Args:
        scores: (n, m), higher is better. NaN has desirability 0.
        low: (m,) or scalar, highest score without any value.
        target: (m,) or scalar, score beyond which more is not better; above `low`.
        shape: (m,) or scalar above 0; above 1 only scores near the target count, below 1 smaller ones do too.

    Returns:
        (n, m) float64 in [0, 1].

    Raises:
        InputError: shapes do not match, a target is not above its low, or a shape is not positive.

    Source: Derringer and Suich 1980, 'Simultaneous optimization of several response variables'.
    """
    table = score_table(scores)
    m = table.shape[1]
    bottom, top, power = vector(low, m, "low"), vector(target, m, "target"), vector(shape, m, "shape")
    if (top <= bottom).any():
        j = int(np.argmax(top <= bottom))
        raise InputError(
            f"target must be above low in every objective; objective {j} has low {bottom[j]}, target {top[j]}"
        )
    if (power <= 0).any():
        raise InputError(f"shape must be above 0, got {power.tolist()}. 1 is a straight line")
    progress = np.clip((table - bottom) / (top - bottom), 0.0, 1.0)  # (n, m)
    return np.nan_to_num(progress, nan=0.0) ** power


def overall_desirability(desirabilities: ArrayLike, weights: ArrayLike = 1.0) -> Array:
    """Return the weighted geometric mean of desirabilities, (n,): one objective at 0 makes the whole 0.

    Args:
        desirabilities: (n, m) in [0, 1].
        weights: (m,) or scalar, at least 0 and not all 0. Weight 0 leaves an objective out.

    Source: Derringer and Suich 1980; weights as in Derringer 1994.
    """
    table = score_table(desirabilities, "desirabilities")
    powers = preference_weights(np.broadcast_to(weights, (table.shape[1],)), table.shape[1])
    return np.prod(np.where(powers > 0, table, 1.0) ** powers, axis=1)  # weight 0 gives factor 1, also for 0 ** 0


def _front_rows(scores: ArrayLike) -> NDArray[np.int64]:
    rows = np.flatnonzero(non_dominated(scores))  # (f,) indices into the rows given
    if rows.size == 0:
        raise InputError(
            "scores must have at least one row without NaN to choose from; got none. "
            "Every candidate failed, or was hidden by a constraint"
        )
    return rows


def _first_best(value: Array) -> int:
    """Return the first index whose value is the highest up to rounding, so that equal choices do not depend on it."""
    return int(np.argmax(value >= value.max() - 1e-12 * max(1.0, abs(float(value.max())))))


def _extreme_normal(scaled: Array) -> Array:
    """Return the unit normal of the plane through the best row of each objective, or that of equal weights."""
    m = scaled.shape[1]
    total = scaled.sum(axis=1)
    extremes = np.array([scaled[np.lexsort((-total, -column))[0]] for column in scaled.T])  # (m, m)
    normal = np.ones(m)
    if np.linalg.matrix_rank(extremes, tol=1e-9) == m:
        solved = np.linalg.solve(extremes, np.ones(m))
        if float(solved.min()) > 0:  # a normal with a negative entry would reward worse scores
            normal = solved
    return np.asarray(normal / np.linalg.norm(normal))
