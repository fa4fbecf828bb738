"""Who dominates whom: the non-dominated set, ranks and crowding, all for maximisation.

Row i dominates row j when it is at least as high in every objective and higher in one. A row with a NaN (a failed
candidate, a metric that could not be computed) dominates nobody, is dominated by nobody, and is never on the front.
Infinite scores compare as usual.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge.pareto.checks import Array, Mask, score_table


def dominates(a: ArrayLike, b: ArrayLike) -> Mask:
    """Return whether `a` dominates `b`, broadcasting over leading axes.

    Args:
        a: (..., m) scores.
        b: (..., m) scores.

    Returns:
        Boolean of the broadcast leading shape. False where either has a NaN, and for equal rows.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.asarray((left >= right).all(axis=-1) & (left > right).any(axis=-1))


def non_dominated(scores: ArrayLike, *, duplicates: bool = True) -> Mask:
    """Return which rows are on the Pareto front.

    Args:
        scores: (n, m), higher is better. Rows with a NaN are never on the front.
        duplicates: whether equal rows are all kept; otherwise only the first of them is.

    Returns:
        (n,) boolean. All false only if every row has a NaN or n is 0.
    """
    table = score_table(scores)
    mask = np.zeros(len(table), dtype=bool)
    usable = np.flatnonzero(~np.isnan(table).any(axis=1))
    if usable.size == 0:
        return mask
    unique, first, group = np.unique(table[usable], axis=0, return_index=True, return_inverse=True)
    keep = _distinct_front(unique)
    if duplicates:
        mask[usable] = keep[group.reshape(-1)]
    else:
        mask[usable[first[keep]]] = True
    return mask


def front_ranks(scores: ArrayLike) -> NDArray[np.int64]:
    """Return each row's front number: 0 for the Pareto front, 1 for the front of what is left, and so on.

    Args:
        scores: (n, m), higher is better.

    Returns:
        (n,) int64. Equal rows share a rank. Rows with a NaN come after all others: one past the last front.

    Source: non-dominated sorting as in NSGA-II (Deb et al. 2002), by sequential search with bisection over the
    fronts (Zhang et al. 2015): in lexicographic order nobody is dominated by a later row.
    """
    table = score_table(scores)
    ranks = np.zeros(len(table), dtype=np.int64)
    usable = np.flatnonzero(~np.isnan(table).any(axis=1))
    if usable.size:
        unique, group = np.unique(table[usable], axis=0, return_inverse=True)
        # np.unique sorts ascending, so the reversed rows come best-first in lexicographic order
        distinct = _ranks_2d(unique[::-1]) if table.shape[1] <= 2 else _ranks_many(unique[::-1])
        ranks[usable] = distinct[::-1][group.reshape(-1)]
    failed = np.isnan(table).any(axis=1)
    ranks[failed] = ranks[usable].max() + 1 if usable.size else 0
    return ranks


def crowding_distance(scores: ArrayLike) -> Array:
    """Return NSGA-II's crowding distance of each row among all rows given: larger is lonelier.

    Call it on one front at a time. Each objective is scaled by its range; the ends of each objective get infinity,
    equal values being ordered by row. An objective that is constant adds nothing. Rows that are not finite get 0.

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
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            total[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
            total[order[[0, -1]]] = np.inf
    if len(values) <= 2:
        total[:] = np.inf
    distance[usable] = total
    return distance


def _distinct_front(rows: Array) -> Mask:
    """Return the front of distinct rows that np.unique sorted ascending."""
    if rows.shape[1] <= 2:
        # best first objective first: a row stays if its last objective exceeds all those before it
        last = rows[::-1, -1]
        best_before = np.concatenate([[-np.inf], np.maximum.accumulate(last)[:-1]])
        keep = last > best_before
        keep[0] = True  # also when it is -inf itself
        return np.asarray(keep[::-1])
    # Strong rows first, so that few comparisons empty the list; correct in any order.
    order = np.argsort(-np.argsort(np.argsort(rows, axis=0), axis=0).sum(axis=1), kind="stable")
    left, position = order, 0
    while position < left.size:
        here = rows[left[position]]
        stays = (rows[left] > here).any(axis=1)
        stays[position] = True
        position = int(stays[:position].sum()) + 1
        left = left[stays]
    keep = np.zeros(len(rows), dtype=bool)
    keep[left] = True
    return keep


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
