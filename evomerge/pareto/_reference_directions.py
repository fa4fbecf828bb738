"""Reference directions on the simplex, and a few points that represent a large front."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge._arguments import Array, at_least, score_table


def simplex_weights(objectives: int, count: int) -> Array:
    """Return evenly spaced weight vectors, (q, m), each summing to 1, with q near `count` and at least m.

    The finest simplex lattice of at most `count` points. With fewer divisions than objectives a lattice has no inner
    points; then a second one, halfway to the centre, is added.

    Args:
        objectives: m, at least 1.
        count: wanted number.

    Source: Das and Dennis 1998; the inner layer as in NSGA-III, Deb and Jain 2014.

    >>> simplex_weights(2, 3).tolist()
    [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
    """
    m = at_least(objectives, 1, "objectives")
    at_least(count, 1, "count")
    if m == 1:
        return np.ones((1, 1))
    divisions = 1
    while comb(divisions + m, m - 1) <= count:  # size of the lattice with one more division
        divisions += 1
    outer = _lattice(m, divisions)
    if divisions >= m:
        return outer
    inner = _lattice(m, max(1, divisions - 1)) / 2 + 0.5 / m
    return np.vstack([outer, inner])


def representatives(scores: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return `count` rows that cover a front: the best of each objective, then always the row farthest from these.

    Distances are Euclidean on objectives scaled to their range. Ties go to the earlier row.

    Args:
        scores: (n, m) without NaN.
        count: how many; all rows, in order, if there are no more than that.

    Returns:
        (min(n, count),) int64 row indices, sorted.
    """
    table = score_table(scores)
    if len(table) <= at_least(count, 1, "count"):
        return np.arange(len(table))
    span = np.ptp(table, axis=0)
    scaled = (table - table.min(axis=0)) / np.where(span > 0, span, 1.0)
    # one row may be the best of several objectives
    chosen = list(dict.fromkeys(int(i) for i in np.argmax(scaled, axis=0)))[:count]
    nearest = np.full(len(table), np.inf)
    for row in chosen:
        nearest = np.minimum(nearest, np.sum((scaled - scaled[row]) ** 2, axis=1))
    nearest[chosen] = -1.0  # below 0, the distance of equal rows, which still count as different
    while len(chosen) < count:
        row = int(np.argmax(nearest))
        chosen.append(row)
        nearest = np.minimum(nearest, np.sum((scaled - scaled[row]) ** 2, axis=1))
        nearest[row] = -1.0
    return np.array(sorted(chosen), dtype=np.int64)


def _lattice(m: int, divisions: int) -> Array:
    """Return all m-tuples of multiples of 1/divisions that sum to 1, by stars and bars."""
    bars = np.array(list(combinations(range(divisions + m - 1), m - 1)), dtype=np.int64)
    # gaps between the bars, ends included, are the numerators of the weights
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), divisions + m - 1)])
    return np.asarray((np.diff(edges, axis=1) - 1) / divisions)
