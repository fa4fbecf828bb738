"""Weighted ridge least squares with exact leave-one-out errors, the engine under the quadratic surrogates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.pareto.checks import Array

# Singular values below this share of the largest count as zero: the direction is left at the smallest norm.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class RidgeFit:
    """A weighted ridge fit of z on a matrix X of n rows and p columns."""

    coefficients: Array  # (p,)
    inverse: Array  # (p, p), (X'WX + penalty)^-1; times the noise scale, the posterior covariance
    hat: Array  # (n,) diagonal of the hat matrix, in [0, 1]
    residuals: Array  # (n,) z - X coefficients
    condition: float  # condition number of the penalised weighted X; inf when its rank is short

    @property
    def leave_one_out(self) -> Array:
        """(n,) error of each row under the fit to all other rows, e / (1 - h); infinite where h is 1."""
        left = 1.0 - self.hat
        alone = left < 1e-10  # nothing else informs this row's direction
        return np.where(alone, np.inf, self.residuals / np.where(alone, 1.0, left))

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
    # The ridge as extra observations of zero: one least-squares problem, no squared condition number.
    extra = np.zeros((int(penalised.sum()), p))
    extra[np.arange(len(extra)), np.flatnonzero(penalised)] = np.sqrt(penalty[penalised])
    left, singular, right = np.linalg.svd(np.vstack([root[:, None] * matrix, extra]), full_matrices=False)
    rank = int((singular > RANK_TOLERANCE * singular[0]).sum()) if singular.size and singular[0] > 0 else 0
    left, kept, right = left[:, :rank], singular[:rank], right[:rank]
    coefficients = right.T @ ((left[:n].T @ (root * z)) / kept)
    return RidgeFit(
        coefficients=coefficients,
        inverse=(right.T / kept**2) @ right,
        hat=np.minimum((left[:n] ** 2).sum(axis=1), 1.0),
        residuals=z - matrix @ coefficients,
        condition=float(kept[0] / kept[-1]) if rank == p else float("inf"),
    )
