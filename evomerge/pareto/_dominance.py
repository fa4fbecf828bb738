"""Pareto dominance: the non-dominated set, ranks and crowding, all for maximisation.

Row i dominates row j when it is at least as high in every objective and higher in one. A row with a NaN (a failed
candidate, a metric that could not be computed) neither dominates nor is dominated, and is never on the front.
Infinite scores compare as usual.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge._arguments import Array, Mask, score_table

# Rows compared with the front at once; bounds memory at this many times the front's size in bytes.
BLOCK_ROWS = 256


def dominates(a: ArrayLike, b: ArrayLike) -> Mask:
    """Return whether `a` dominates `b`, broadcasting over leading axes.

    Args:
        a: (..., m) scores.
        b: (..., m) scores.

    Returns:
        Boolean of the broadcast leading shape. False where either has a NaN, and for equal rows.

    >>> bool(dominates([0.6, 0.5], [0.6, 0.4])), bool(dominates([0.6, 0.3], [0.5, 0.4]))
    (True, False)
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)  # comparisons with NaN are False
    return np.asarray((left >= right).all(axis=-1) & (left > right).any(axis=-1))


def non_dominated(scores: ArrayLike, *, duplicates: bool = True) -> Mask:
    """Return which rows are on the Pareto front.

    Args:
        scores: (n, m), higher is better. Rows with a NaN are never on the front.
        duplicates: whether equal rows are all kept; otherwise only the first of them is.

    Returns:
        (n,) boolean. All false only if every row has a NaN or n is 0.

    >>> non_dominated([[0.6, 0.2], [0.5, 0.5], [0.4, 0.4]]).tolist()
    [True, True, False]
    """
    table = score_table(scores)
    mask = np.zeros(len(table), dtype=bool)
    usable = np.flatnonzero(~np.isnan(table).any(axis=1))
    if usable.size == 0:
        return mask
    unique, first, group = np.unique(table[usable], axis=0, return_index=True, return_inverse=True)
    keep = _distinct_front(unique)  # duplicates removed first: a front of equal rows would be quadratic
    if duplicates:
        mask[usable] = keep[group.reshape(-1)]
    else:
        mask[usable[first[keep]]] = True
    return mask


def extend_front(front: Array | None, point: ArrayLike, *, duplicates: bool = True) -> Array | None:
    """Return the front after adding one point: with the point if it is on the front, without rows that it dominates.

    Args:
        front: (n, m) rows of which none dominates another, higher is better; None before the first point.
        point: (m,) scores.
        duplicates: whether a point that equals a row of the front joins it, as in `non_dominated`.

    Returns:
        (k, m) float64, `point` last if it joined; else `front` itself: the point has a NaN or is dominated.
    """
    scores = np.asarray(point, dtype=np.float64)
    if np.isnan(scores).any():
        return front
    if front is None:
        return scores[None]
    beaten = dominates(front, scores) if duplicates else (front >= scores).all(axis=1)  # (n,)
    if beaten.any():
        return front
    return np.vstack([front[~dominates(scores, front)], scores])


def front_ranks(scores: ArrayLike) -> NDArray[np.int64]:
    """Return each row's front number: 0 for the Pareto front, 1 for the front of what is left, and so on.

    Args:
        scores: (n, m), higher is better.

    Returns:
        (n,) int64. Equal rows share a rank. Rows with a NaN come after all others: one past the last front.

    Source: non-dominated sorting as in NSGA-II (Deb et al. 2002), by sequential search with bisection over the
    fronts (Zhang et al. 2015): in lexicographic order no row is dominated by a later row.

    >>> front_ranks([[0.6, 0.2], [0.5, 0.5], [0.4, 0.4]]).tolist()
    [0, 0, 1]
    """
    table = score_table(scores)
    ranks = np.zeros(len(table), dtype=np.int64)
    usable = np.flatnonzero(~np.isnan(table).any(axis=1))
    if usable.size:
        unique, group = np.unique(table[usable], axis=0, return_inverse=True)
        # np.unique sorts ascending, so the reversed rows come best-first in lexicographic order
        ranked = {1: _ranks_2d, 2: _ranks_2d, 3: _ranks_3d}.get(table.shape[1], _ranks_many)
        ranks[usable] = ranked(unique[::-1])[::-1][group.reshape(-1)]
    failed = np.isnan(table).any(axis=1)
    ranks[failed] = ranks[usable].max() + 1 if usable.size else 0
    return ranks


def crowding_distance(scores: ArrayLike) -> Array:
    """Return NSGA-II's crowding distance of each row among all rows given: larger means less crowded.

    Call it on one front at a time. Each objective is scaled by its range; the ends of each objective get infinity,
    with equal values in row order. A constant objective adds nothing. Rows that are not finite get 0.

    Args:
        scores: (n, m), higher is better.

    Returns:
        (n,) float64 in [0, inf].

    Source: Deb, Pratap, Agarwal and Meyarivan 2002, 'A fast and elitist multiobjective genetic algorithm: NSGA-II'.
    """
    table = score_table(scores)
    distance = np.zeros(len(table))
    usable = np.flatnonzero(np.isfinite(table).all(axis=1))
    if usable.size == 0:
        return distance
    values = table[usable]
    total = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")  # stable: the same ends on every platform
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            total[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
            total[order[[0, -1]]] = np.inf
    if len(values) <= 2:  # also for constant objectives, whose ends are not marked above
        total[:] = np.inf
    distance[usable] = total
    return distance


def _distinct_front(rows: Array) -> Mask:
    """Return the front of distinct rows that np.unique sorted ascending."""
    if rows.shape[1] <= 2:
        # sorted by falling first objective, so a row stays if its last objective exceeds all before it
        last = rows[::-1, -1]
        best_before = np.concatenate([[-np.inf], np.maximum.accumulate(last)[:-1]])
        keep = last > best_before
        keep[0] = True  # -inf does not exceed the initial -inf
        return np.asarray(keep[::-1])
    if rows.shape[1] == 3:
        return np.asarray((_ranks_3d(rows[::-1], deepest=1) == 0)[::-1])
    # With dense ranks per objective, a dominating row has the higher sum: no row is dominated by a later row.
    ranks = np.stack([np.unique(column, return_inverse=True)[1].reshape(-1) for column in rows.T], axis=1)
    order = np.argsort(-ranks.sum(axis=1), kind="stable")
    front = np.empty((rows.shape[1], 0), dtype=ranks.dtype)  # one contiguous row per objective: compared fastest
    keep = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(order), BLOCK_ROWS):
        block = order[start : start + BLOCK_ROWS]
        block = block[~_covered(ranks[block], front)]
        # two distinct rows never cover each other, so covered by more than itself means dominated
        block = block[~_covered(ranks[block], ranks[block].T, itself=True)]
        keep[block] = True
        front = np.concatenate([front, ranks[block].T], axis=1)
    return keep


def _covered(rows: NDArray[np.int64], columns: NDArray[np.int64], *, itself: bool = False) -> Mask:
    """Return which rows (b, m) some entry of `columns` (m, f) reaches in every objective; `itself` is not counted."""
    reached = np.ones((len(rows), columns.shape[1]), dtype=bool)
    for value, column in zip(rows.T, columns, strict=True):
        reached &= column[None, :] >= value[:, None]
    if itself:
        np.fill_diagonal(reached, False)
    return np.asarray(reached.any(axis=1))


def _ranks_2d(rows: Array) -> NDArray[np.int64]:
    """Return front numbers of distinct rows, best first in lexicographic order, of one or two objectives."""
    ranks = np.zeros(len(rows), dtype=np.int64)
    negated_tops: list[float] = []  # minus the highest last objective in each front so far, ascending
    for index, value in enumerate(rows[:, -1] if rows.shape[1] == 2 else -np.arange(len(rows), dtype=float)):
        # the first front whose highest value is below this one; a front with an equal value dominates it
        rank = bisect_right(negated_tops, -value)
        if rank == len(negated_tops):
            negated_tops.append(-value)
        else:
            negated_tops[rank] = -value
        ranks[index] = rank
    return ranks


def _ranks_3d(rows: Array, deepest: int | None = None) -> NDArray[np.int64]:
    """Return front numbers of distinct rows, best first in lexicographic order, of three objectives.

    Each front keeps the staircase of its last two objectives: the first of them rises, the second falls. The first
    stair at or right of a row is the highest there, so it alone decides. Fronts from number `deepest` on are lumped.
    """
    ranks = np.zeros(len(rows), dtype=np.int64)
    stairs: list[tuple[list[float], list[float]]] = []
    for index, (y, z) in enumerate(rows[:, 1:].tolist()):
        low, high = 0, len(stairs)
        while low < high:  # if a front dominates the row, so does every front before it
            middle = (low + high) // 2
            ys, zs = stairs[middle]
            stair = bisect_left(ys, y)
            if stair < len(ys) and zs[stair] >= z:
                low = middle + 1
            else:
                high = middle
        ranks[index] = low
        if low == deepest:
            continue
        if low == len(stairs):
            stairs.append(([], []))
        ys, zs = stairs[low]
        right = bisect_right(ys, y)
        left = right
        while left > 0 and zs[left - 1] <= z:  # stairs that the new row covers
            left -= 1
        ys[left:right], zs[left:right] = [y], [z]
    return ranks


def _ranks_many(rows: Array) -> NDArray[np.int64]:
    """Return front numbers of distinct rows, best first in lexicographic order, of any number of objectives."""
    ranks = np.zeros(len(rows), dtype=np.int64)
    fronts: list[list[int]] = []
    for index, row in enumerate(rows):
        low, high = 0, len(fronts)
        while low < high:  # if a front dominates the row, so does every front before it
            middle = (low + high) // 2
            if (rows[fronts[middle]] >= row).all(axis=1).any():
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append([])
        fronts[low].append(index)
        ranks[index] = low
    return ranks
