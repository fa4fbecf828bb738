"""Gene importance, and slices through the fitness landscape.

From a surrogate, Sobol indices in closed form; from points and scores alone, rank correlations and binned variances.
All of them describe the sampled region, not cause and effect elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, at_least, score_table, vector
from evomerge.errors import InputError
from evomerge.surrogates._features import unpack
from evomerge.surrogates._surrogate import Surrogate


@dataclass(frozen=True)
class Importance:
    """Fractions of a surrogate's variance over its box, on the link scale. K genes."""

    first: Array  # (K,) first-order index: fraction due to each gene alone
    total: Array  # (K,) total index: fraction that involves the gene, alone or with another; total >= first
    pairs: Array  # (K, K) symmetric fraction of each pair's interaction; zero diagonal
    sd: float  # sd of the link-scale surface over the box; all fractions are 0 if this is 0


def sobol_indices(surrogate: Surrogate) -> Importance:
    """Return Sobol indices of the surrogate for points uniform in its box, exactly.

    On the box scaled to [-1, 1], u, u^2 - 1/3 and u v are orthogonal with variances 1/3, 4/45 and 1/9, so that the
    quadratic's own coefficients are its functional ANOVA. First-order and pair indices sum to 1.

    Source: Sobol 1993, 'Sensitivity estimates for nonlinear mathematical models'.
    """
    curvature, slope, _ = unpack(surrogate.centred, surrogate.dimensions, surrogate.complexity)
    alone = slope**2 / 3 + (np.diag(curvature) / 2) ** 2 * 4 / 45
    pairs = curvature**2 / 9
    np.fill_diagonal(pairs, 0.0)
    variance = float(alone.sum() + pairs.sum() / 2)
    scale = 1.0 / variance if variance > 0 else 0.0
    return Importance(alone * scale, (alone + pairs.sum(axis=1)) * scale, pairs * scale, float(np.sqrt(variance)))


def rank_correlation(genes: ArrayLike, scores: ArrayLike) -> Array:
    """Return Spearman's correlation of each gene with each objective, (d, m): direction and strength in [-1, 1].

    Args:
        genes: (n, d), any scale; categories must be numbers with a meaningful order.
        scores: (n, m); rows with a NaN are left out.

    Returns:
        Correlations; 0 if a gene or an objective does not vary, or fewer than three rows are left.
    """
    points, table = _usable(genes, scores)
    if len(points) < 3:
        return np.zeros((points.shape[1], table.shape[1]))
    left, right = _standardised(_ranks(points)), _standardised(_ranks(table))
    return np.asarray(left.T @ right / len(points))


def partial_rank_correlation(genes: ArrayLike, scores: ArrayLike) -> Array:
    """Return the rank correlation of each gene with each objective, all other genes held fixed linearly, (d, m).

    Arguments as for `rank_correlation`. All 0 unless there are more rows than genes plus 2.

    Source: Iman and Conover 1980 (PRCC).
    """
    points, table = _usable(genes, scores)
    n, d = points.shape
    result = np.zeros((d, table.shape[1]))
    if n <= d + 2:
        return result
    left, right = _standardised(_ranks(points)), _standardised(_ranks(table))
    for gene in range(d):
        others = np.column_stack([np.delete(left, gene, axis=1), np.ones(n)])
        projection = others @ np.linalg.pinv(others)  # (n, n); pinv because constant genes are zero columns
        alone = left[:, gene] - projection @ left[:, gene]
        rest = right - projection @ right
        norm = np.linalg.norm(alone) * np.linalg.norm(rest, axis=0)
        result[gene] = np.divide(alone @ rest, norm, out=np.zeros(len(norm)), where=norm > 1e-9 * n)
    return result


def binned_variance_fractions(genes: ArrayLike, scores: ArrayLike, *, bins: int = 4) -> Array:
    """Return the fraction of each objective's variance between groups of similar values of a gene, (d, m) in [0, 1].

    Detects influence of any shape, also of categories. A gene with at most `bins` different values is grouped by
    value, others into equally filled bins. Corrected for the fraction expected by chance (epsilon squared).

    Args:
        genes: (n, d).
        scores: (n, m); rows with a NaN are left out.
        bins: groups per gene, at least 2.
    """
    points, table = _usable(genes, scores)
    at_least(bins, 2, "bins")
    n = len(points)
    result = np.zeros((points.shape[1], table.shape[1]))
    total = ((table - table.mean(axis=0)) ** 2).sum(axis=0) if n else np.zeros(table.shape[1])
    for gene, column in enumerate(points.T):
        values, group = np.unique(column, return_inverse=True)
        group = group.reshape(-1)
        if len(values) > bins:
            group = (_ranks(column[:, None])[:, 0] * bins / n).astype(np.int64).clip(0, bins - 1)
            group = np.unique(group, return_inverse=True)[1].reshape(-1)  # ties may leave bins empty
        groups = int(group.max(initial=0)) + 1
        if groups < 2 or n <= groups:
            continue
        counts = np.bincount(group)
        means = np.stack([np.bincount(group, column) for column in table.T], axis=1) / counts[:, None]
        within = ((table - means[group]) ** 2).sum(axis=0)
        chance = (groups - 1) * within / (n - groups)  # expected between-group sum of squares without influence
        fraction = np.divide(total - within - chance, total, out=np.zeros_like(total), where=total > 0)
        result[gene] = np.clip(fraction, 0.0, 1.0)
    return result


def slice_points(through: ArrayLike, gene: int, values: ArrayLike) -> Array:
    """Return copies of the point `through` (K,) with one gene set to each of `values` (q,), as (q, K)."""
    point = vector(through, np.size(through), "through", "one value per gene")
    if not 0 <= gene < len(point):
        raise InputError(f"gene must be between 0 and {len(point) - 1}, got {gene}")
    grid = np.asarray(values, dtype=np.float64).reshape(-1)
    points = np.tile(point, (len(grid), 1))
    points[:, gene] = grid
    return points


def path_between(start: ArrayLike, end: ArrayLike, steps: int = 21) -> Array:
    """Return evenly spaced points on the straight line from `start` to `end`, both included, (steps, K)."""
    a = vector(start, np.size(start), "start", "one value per gene")
    b = vector(end, len(a), "end", "one value per gene, as in start")
    t = np.linspace(0.0, 1.0, at_least(steps, 2, "steps"))[:, None]  # (steps, 1)
    return np.asarray((1 - t) * a + t * b)


def _usable(genes: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    points, table = score_table(genes, "genes"), score_table(scores)
    if len(points) != len(table):
        raise InputError(f"genes and scores must have one row per candidate; got {len(points)} and {len(table)} rows")
    keep = ~(np.isnan(points).any(axis=1) | np.isnan(table).any(axis=1))
    return points[keep], table[keep]


def _ranks(table: Array) -> Array:
    """Return ranks from 0 within each column, ties sharing their mean rank."""
    ranks = np.empty_like(table)
    for column, out in zip(table.T, ranks.T, strict=True):
        _, group, counts = np.unique(column, return_inverse=True, return_counts=True)
        out[:] = (np.cumsum(counts) - (counts + 1) / 2)[group.reshape(-1)]  # mean of the ranks a group occupies
    return ranks


def _standardised(table: Array) -> Array:
    centred = table - table.mean(axis=0)
    sd = centred.std(axis=0)
    # constant columns become 0, so that they correlate with nothing
    return np.asarray(np.where(sd > 0, centred / np.where(sd > 0, sd, 1.0), 0.0))
