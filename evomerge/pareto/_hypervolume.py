"""Hypervolume: the volume that a set of scores dominates above a reference point. Exact, for maximisation.

Shared conventions. Scores are (n, m), higher is better. The reference point is (m,) and finite: the base model's
scores, or zeros. Only rows above the reference in every objective add volume; rows with a NaN, on the reference or
below it add none. Values are in the product of the objectives' units.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, score_table, vector
from evomerge.errors import InputError
from evomerge.pareto._dominance import extend_front, non_dominated


def hypervolume(scores: ArrayLike, reference: ArrayLike) -> float:
    """Return the hypervolume of `scores` above `reference`.

    One and two objectives by sorting, three by a sweep that maintains a staircase (both O(n log n)), more by
    recursive exclusive volumes, exponential in the number of objectives: 100 rows of 5 objectives take
    about a tenth of a second.

    Args:
        scores: (n, m), higher is better.
        reference: (m,) finite.

    Returns:
        Volume, at least 0; 0 when no row exceeds the reference.

    Raises:
        InputError: shapes do not match, the reference is not finite, or a counting score is infinite.

    Sources: three objectives, Beume, Fonseca et al. 2009, 'On the complexity of computing the hypervolume indicator';
        more, WFG: While, Bradstreet and Barone 2012, 'A fast way of calculating exact hypervolumes'.

    >>> hypervolume([[1.0, 3.0], [2.0, 1.0]], reference=[0.0, 0.0])
    4.0
    """
    return _volume(_gains(scores, reference))


def hypervolume_history(scores: ArrayLike, reference: ArrayLike) -> Array:
    """Return the hypervolume after each row, in the order given: the curve of a search.

    Args:
        scores: (n, m) in the order of arrival; failed candidates as rows of NaN.
        reference: (m,) finite.

    Returns:
        (n,) float64, never falling. Its last value equals `hypervolume(scores, reference)` up to rounding.

    >>> hypervolume_history([[1.0, 3.0], [2.0, 1.0]], reference=[0.0, 0.0]).tolist()
    [3.0, 4.0]
    """
    table = score_table(scores)
    point = _reference(table, reference)
    history = np.zeros(len(table))
    front = np.empty((0, table.shape[1]))
    total = 0.0
    for index, row in enumerate(table):
        if (row > point).all():  # false for NaN
            gain = _counting_gains(row[None], point)[0]  # (m,)
            grown = extend_front(front, gain, duplicates=False)
            if grown is not None and grown is not front:  # the same object: the row adds no volume
                total += _exclusive(gain, front)
                front = grown
        history[index] = total
    return history


def _reference(table: Array, reference: ArrayLike) -> Array:
    point = vector(reference, table.shape[1], "reference")
    if not np.isfinite(point).all():
        raise InputError(
            f"reference must be finite, got {point.tolist()}. Use the base model's scores, or the lowest possible ones"
        )
    return point


def _gains(scores: ArrayLike, reference: ArrayLike) -> Array:
    table = score_table(scores)
    return _counting_gains(table, _reference(table, reference))


def _counting_gains(table: Array, point: Array) -> Array:
    """Return how far the rows that count lie above the reference, (f, m), all positive and finite."""
    counting = table[np.all(table > point, axis=1)]
    if np.isinf(counting).any():
        raise InputError("scores must be finite where they exceed the reference; got inf, whose volume is infinite")
    return np.asarray(counting - point, dtype=np.float64)


def _volume(gains: Array) -> float:
    """Return the volume of the union of boxes from the origin to each row of `gains`, which are positive."""
    if len(gains) == 0:
        return 0.0
    if gains.shape[1] == 1:
        return float(gains.max())
    front = gains[non_dominated(gains, duplicates=False)]  # (f, m): dominated boxes add nothing
    if len(front) == 1:
        return float(front[0].prod())
    if gains.shape[1] == 2:
        front = front[np.argsort(front[:, 0])]  # first objective rises, second falls
        widths = np.diff(front[:, 0], prepend=0.0)  # (f,) strips between neighbouring points
        return float(widths @ front[:, 1])
    if gains.shape[1] == 3:
        return _volume_3d(front)
    return _volume_by_slices(front)


def _volume_3d(front: Array) -> float:
    """Return the volume of a non-dominated front of three objectives.

    The third objective falls from slice to slice while the first two grow a staircase; volume is the staircase's
    area times the slice's height.
    """
    front = front[np.argsort(-front[:, 2], kind="stable")]  # sweep from the top
    xs: list[float] = [0.0, np.inf]  # staircase: x rises, y falls
    ys: list[float] = [np.inf, 0.0]
    area = volume = 0.0
    heights = front[:, 2].tolist()
    lower = [*heights[1:], 0.0]
    for (x, y), height, below in zip(front[:, :2].tolist(), heights, lower, strict=True):
        right = bisect_left(xs, x)
        if ys[right] < y:  # otherwise the stair at or right of x already covers the point (equal third objectives)
            left = right - 1
            while ys[left] <= y:
                left -= 1
            right_end = right + 1 if xs[right] == x else right  # a stair at the same x is lower: it goes
            # Each vanished stair gave back its own strip; the new one covers from xs[left] to x at height y.
            for step in range(left + 1, right):
                area -= (xs[step] - xs[step - 1]) * ys[step]
            area -= (x - xs[right - 1]) * ys[right]
            area += (x - xs[left]) * y
            xs[left + 1 : right_end] = [x]
            ys[left + 1 : right_end] = [y]
        volume += area * (height - below)
    return volume


def _volume_by_slices(front: Array) -> float:
    """Return the volume of a non-dominated front of four or more objectives (WFG).

    With the last objective rising, all later rows reach at least as high as the current one, so what the current
    row adds to them is its last objective times a volume of one dimension less.
    """
    front = front[np.argsort(front[:, -1], kind="stable")]
    total = 0.0
    for index, row in enumerate(front):
        total += row[-1] * _exclusive(row[:-1], front[index + 1 :, :-1])
    return total


def _exclusive(gain: Array, others: Array) -> float:
    """Return the volume of the box of `gain` that the boxes of `others` leave uncovered."""
    box = float(gain.prod())
    if len(others) == 0:
        return box
    return max(0.0, box - _volume(np.minimum(others, gain)))  # rounding may leave a tiny negative difference
