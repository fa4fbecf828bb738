"""What a candidate must at least reach: bounds on objectives, and not being dominated by a parent. Maximisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from evomerge.errors import InputError
from evomerge.pareto.checks import Array, Mask, fraction, score_table, standard_errors, vector
from evomerge.pareto.dominance import dominates


@dataclass(frozen=True)
class Bounds:
    """Bounds on the fitness of every objective, which a candidate must meet all together."""

    low: tuple[float, ...]  # (m,) minus infinity leaves an objective free
    high: tuple[float, ...]  # (m,) plus infinity likewise

    def violation(self, scores: ArrayLike) -> Array:
        """Return by how much rows miss the bounds, 0 where they meet them.

        A miss counts as a share of its bound, so that a length in tokens and an accuracy can be added up; misses of
        several objectives are added.

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
                    total = total + np.maximum(miss, 0.0) / (abs(bound) or 1.0)
        return np.asarray(np.where(np.isnan(table).any(axis=-1), np.nan, total))

    def met(self, scores: ArrayLike) -> Mask:
        """Return which rows (..., m) meet all bounds, (...,); False for rows with a NaN."""
        return np.asarray(self.violation(scores) <= 0.0)

    def scaled(self, mean: ArrayLike, scale: ArrayLike) -> Bounds:
        """Return the bounds on (score - mean) / scale, mean and scale (m,)."""
        centre, width = np.asarray(mean, dtype=np.float64), np.asarray(scale, dtype=np.float64)
        low, high = (np.array(self.low) - centre) / width, (np.array(self.high) - centre) / width
        return Bounds(tuple(low.tolist()), tuple(high.tolist()))


def at_most_below(reference: ArrayLike, drop: ArrayLike) -> Array:
    """Return bounds for `feasible` that lie `drop` below `reference`, (m,).

    'Safety not more than one point below the base' is `at_most_below(base_scores, [np.inf, 0.01])`; a drop of
    infinity leaves an objective free.
    """
    base = np.atleast_1d(np.asarray(reference, dtype=np.float64))
    return base - vector(drop, len(base), "drop")


def feasible(
    scores: ArrayLike, at_least: ArrayLike, *, stderr: ArrayLike | None = None, level: float | None = None
) -> Mask:
    """Return which rows meet `score >= at_least` in every objective.

    Args:
        scores: (n, m), higher is better. Rows with a NaN never meet a constraint.
        at_least: (m,) bounds; minus infinity leaves an objective free.
        stderr: standard errors, broadcast to (n, m); with `level` only.
        level: if given, each bound must hold with at least this probability, so that a score exactly on its bound
            passes up to 0.5 only.

    Returns:
        (n,) boolean, possibly all false; `require_feasible` turns that into a message.

    Raises:
        InputError: shapes do not match, or only one of `stderr` and `level` is given.
    """
    table = score_table(scores)
    bounds = vector(at_least, table.shape[1], "at_least")
    if (stderr is None) != (level is None):
        raise InputError("stderr and level go together: give both for constraints with a probability, or neither")
    met = table >= bounds
    if stderr is not None and level is not None:
        errors = standard_errors(stderr, table)
        with np.errstate(invalid="ignore"):  # free objectives and failed rows; both are settled by `met`
            z = np.divide(table - bounds, errors, out=np.zeros_like(table), where=errors > 0)
        met = np.where(errors > 0, ndtr(z) >= fraction(level, "level"), met)
    return np.asarray(met.all(axis=1) & ~np.isnan(table).any(axis=1))


def require_feasible(scores: ArrayLike, at_least: ArrayLike, names: Sequence[str] | None = None) -> Mask:
    """Return `feasible(scores, at_least)`, refusing when no row is.

    Args:
        scores: (n, m), higher is better.
        at_least: (m,) bounds.
        names: (m,) names of the objectives for the message.

    Raises:
        InputError: no row is feasible; the message names each bound that no row meets by itself, or the row that
            comes nearest when the bounds exclude each other.
    """
    table = score_table(scores)
    mask = feasible(table, at_least)
    if mask.any():
        return mask
    bounds = vector(at_least, table.shape[1], "at_least")
    labels = [str(name) for name in names] if names is not None else [f"objective {j}" for j in range(len(bounds))]
    usable = table[~np.isnan(table).any(axis=1)]
    if len(usable) == 0:
        raise InputError("at_least cannot be met: every candidate failed (all rows have a NaN)")
    best = usable.max(axis=0)
    alone = [f"{labels[j]} >= {bounds[j]:g} (best is {best[j]:g})" for j in np.flatnonzero(best < bounds)]
    if alone:
        raise InputError(
            f"at_least cannot be met by any candidate: {'; '.join(alone)}. Lower the bound or search longer"
        )
    shortfall = np.maximum(bounds - usable, 0.0)
    nearest = usable[int(np.argmin(shortfall.max(axis=1)))]
    shown = ", ".join(f"{labels[j]} {nearest[j]:g} (wanted {bounds[j]:g})" for j in np.flatnonzero(np.isfinite(bounds)))
    raise InputError(
        f"at_least cannot be met together by any candidate; the nearest has {shown}. Relax one of the bounds"
    )


def not_dominated_by_any(scores: ArrayLike, parents: ArrayLike) -> Mask:
    """Return which rows no parent dominates; rows with a NaN are false.

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
