"""Constraints on candidates: bounds on objectives, and not being dominated by a parent. Maximisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, Mask, score_table
from evomerge.errors import InputError
from evomerge.pareto._dominance import dominates


@dataclass(frozen=True)
class Bounds:
    """Bounds on the fitness of every objective; a feasible candidate meets all of them.

    >>> Bounds((0.5, -float("inf")), (float("inf"), 100.0)).met([[0.6, 80.0], [0.4, 80.0]]).tolist()
    [True, False]
    """

    low: tuple[float, ...]  # (m,) minus infinity: no lower bound
    high: tuple[float, ...]  # (m,) plus infinity: no upper bound

    def violation(self, scores: ArrayLike) -> Array:
        """Return the total constraint violation of each row, 0 for feasible rows.

        Each violation is relative to its bound, so that a length in tokens and an accuracy can be added.

        Args:
            scores: (..., m) fitness.

        Returns:
            (...,) at least 0; NaN for rows with a NaN.
        """
        table = np.asarray(scores, dtype=np.float64)
        total = np.zeros(table.shape[:-1])
        for column, low, high in zip(np.moveaxis(table, -1, 0), self.low, self.high, strict=True):
            for bound, miss in ((low, low - column), (high, column - high)):
                if np.isfinite(bound):
                    total = total + np.maximum(miss, 0.0) / (abs(bound) or 1.0)  # a bound of 0 has no scale
        return np.asarray(np.where(np.isnan(table).any(axis=-1), np.nan, total))

    def met(self, scores: ArrayLike) -> Mask:
        """Return which rows (..., m) meet all bounds, (...,); False for rows with a NaN."""
        return np.asarray(self.violation(scores) <= 0.0)

    def scaled(self, mean: ArrayLike, scale: ArrayLike) -> Bounds:
        """Return the bounds on (score - mean) / scale, mean and scale (m,)."""
        centre, width = np.asarray(mean, dtype=np.float64), np.asarray(scale, dtype=np.float64)
        low, high = (np.array(self.low) - centre) / width, (np.array(self.high) - centre) / width
        return Bounds(tuple(low.tolist()), tuple(high.tolist()))


def not_dominated_by_any(scores: ArrayLike, parents: ArrayLike) -> Mask:
    """Return which rows are dominated by no parent; False for rows with a NaN.

    Args:
        scores: (n, m), higher is better.
        parents: (k, m) scores of the models that were merged, with or without the base.

    Returns:
        (n,) boolean. A row equal to a parent passes: it is as good.
    """
    table, rivals = score_table(scores), score_table(parents, "parents")
    if rivals.shape[1] != table.shape[1]:
        raise InputError(f"parents must have the objectives of scores, {table.shape[1]} columns; got {rivals.shape}")
    dominated = dominates(rivals[None], table[:, None]).any(axis=1)  # (n, k) -> (n,)
    return np.asarray(~dominated & ~np.isnan(table).any(axis=1))
