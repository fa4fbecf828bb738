"""Weighted ridge least squares with exact leave-one-out errors, the engine under the quadratic surrogates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge._arguments import Array

# Singular values below this fraction of the largest count as zero: the minimum-norm solution leaves them out.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class RidgeFit:
    """A weighted ridge fit of z on a matrix X of n rows and p columns."""

    coefficients: Array  # (p,)
    inverse: Array  # (p, p), (X'WX + penalty)^-1; times the noise scale, the posterior covariance
    hat: Array  # (n,) diagonal of the hat matrix, in [0, 1]
    residuals: Array  # (n,) z - X coefficients
    factor: Array  # square root of X'WX + penalty, with its condition number
    full_rank: bool  # whether weights and penalty determine all coefficients

    @property
    def leave_one_out(self) -> Array:
        """(n,) error of each row under the fit to all other rows, e / (1 - h); infinite where h is 1."""
        left = 1.0 - self.hat
        alone = left < 1e-10  # no other row informs this row's direction
        return np.where(alone, np.inf, self.residuals / np.where(alone, 1.0, left))

    @property
    def condition(self) -> float:
        """Condition number of the penalised weighted X; inf when its rank is short."""
        return float(np.linalg.cond(self.factor)) if self.full_rank else float("inf")

    @property
    def effective_parameters(self) -> float:
        """Trace of the hat matrix: p without ridge, fewer with it."""
        return float(self.hat.sum())


def ridge_fit(matrix: Array, z: Array, weights: Array, penalty: Array) -> RidgeFit:
    """Return the minimiser of sum_i w_i (z_i - x_i'beta)^2 + sum_j penalty_j beta_j^2.

    Args:
        matrix: (n, p).
        z: (n,).
        weights: (n,), at least 0.
        penalty: (p,), at least 0; zeros leave a coefficient free.

    Returns:
        The fit. Its leave-one-out errors are exact for these weights and this penalty (Allen's PRESS identity).
        A rank-deficient problem gets the smallest-norm solution and an infinite condition number.
    """
    n, p = matrix.shape
    root = np.sqrt(weights)
    penalised = penalty > 0
    # The ridge as extra rows with target 0: one least-squares problem without squaring the condition number.
    extra = np.zeros((int(penalised.sum()), p))
    extra[np.arange(len(extra)), np.flatnonzero(penalised)] = np.sqrt(penalty[penalised])
    stacked = np.vstack([root[:, None] * matrix, extra])
    if len(stacked) >= p:
        left, factor = np.linalg.qr(stacked)
        diagonal = np.abs(np.diag(factor))
        if diagonal.min() > RANK_TOLERANCE * diagonal.max():
            back = np.linalg.inv(factor)
            coefficients = back @ (left[:n].T @ (root * z))
            return _ridge_fit(coefficients, back @ back.T, left[:n], z - matrix @ coefficients, factor, True)
    left, singular, right = np.linalg.svd(stacked, full_matrices=False)
    rank = int((singular > RANK_TOLERANCE * singular[0]).sum())
    left, kept, right = left[:, :rank], singular[:rank], right[:rank]
    coefficients = right.T @ ((left[:n].T @ (root * z)) / kept)
    inverse = (right.T / kept**2) @ right
    return _ridge_fit(coefficients, inverse, left[:n], z - matrix @ coefficients, kept[:, None] * right, rank == p)


def _ridge_fit(
    coefficients: Array, inverse: Array, orthogonal: Array, residuals: Array, factor: Array, full_rank: bool
) -> RidgeFit:
    hat = np.minimum((orthogonal**2).sum(axis=1), 1.0)
    return RidgeFit(coefficients, inverse, hat, residuals, factor, full_rank)


def leave_one_out_path(matrix: Array, z: Array, weights: Array, ridges: tuple[float, ...]) -> Array:
    """Return leave-one-out errors for many ridges at once, (r, n); infinite where a row stands alone.

    The last column of the matrix is the constant and free; all other coefficients share the penalty
    ridge * sum(weights). Equal to `ridge_fit(...).leave_one_out` for each, from a single decomposition.

    Args:
        matrix: (n, p), its last column ones.
        z: (n,).
        weights: (n,), above 0.
        ridges: r penalties, at least 0.
    """
    relative = weights / weights.sum()  # (n,)
    root = np.sqrt(weights)
    # Centring by the weighted means removes the free constant; its own leverage is the relative weight.
    centred = root[:, None] * (matrix[:, :-1] - relative @ matrix[:, :-1])
    target = root * (z - relative @ z)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = singular > RANK_TOLERANCE * max(float(singular.max(initial=0.0)), 1e-300)
    left, squared = left[:, kept], singular[kept] ** 2
    shrink = squared / (squared + np.asarray(ridges)[:, None] * weights.sum())  # (r, k)
    fitted = (shrink * (left.T @ target)) @ left.T  # (r, n), still times root
    alone = 1.0 - np.minimum(shrink @ (left**2).T + relative, 1.0)
    error = (target - fitted) / root
    return np.where(alone < 1e-10, np.inf, error / np.where(alone < 1e-10, 1.0, alone))


def row_forms(rows: Array, matrix: Array) -> Array:
    """Return x'M x for each row x, (n, p) and (p, p) -> (n,)."""
    return np.asarray(((rows @ matrix) * rows).sum(axis=1))
