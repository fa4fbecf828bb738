"""A fitted quadratic surrogate as a value, with its predictions, intervals, leverage and posterior draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from evomerge._arguments import Array, Mask, at_least, fraction, score_table
from evomerge.errors import InputError
from evomerge.surrogates._diagnostics import Diagnostics
from evomerge.surrogates._features import Complexity, centred_features, uncentred, unpack
from evomerge.surrogates._links import Link
from evomerge.surrogates._regression import row_forms

# Leverage above the design's largest by more than this fraction counts as extrapolation.
LEVERAGE_SLACK = 1e-6


@dataclass(frozen=True)
class Surrogate:
    """One objective as link^-1(quadratic in c), with the posterior of its coefficients. Frozen; made by `fit`.

    Internally it works on u = (c - middle) / half, the box scaled to [-1, 1].
    """

    complexity: Complexity
    link: Link
    box: Array  # (K, 2) lows and highs
    centred: Array  # (p,) coefficients in u, in feature order
    covariance: Array  # (p, p) of `centred`, link scale
    dof: float  # degrees of freedom behind the covariance's scale; 0 if there are no residuals to estimate it
    misfit_sd: float  # link-scale sd that no quadratic explains; inf if it cannot be estimated
    geometry: Array  # (p, p) inverse of the design's moment matrix, for leverage
    max_leverage: float  # largest leverage among the design's points
    diagnostics: Diagnostics

    @property
    def dimensions(self) -> int:
        """K, the number of merge coefficients."""
        return len(self.box)

    @property
    def coefficients(self) -> Array:
        """(p,) coefficients in c itself, in feature order."""
        low, high = self.box.T
        return uncentred(self.centred, (low + high) / 2, (high - low) / 2, self.complexity)

    @property
    def parts(self) -> tuple[Array, Array, float]:
        """(A, b, e) with link(y) = e + b'c + c'A c / 2."""
        curvature, slope, level = unpack(self.coefficients, self.dimensions, self.complexity)
        return curvature, slope, float(level)

    def basis(self, c: ArrayLike) -> Array:
        """Return the centred features of points (n, K) as (n, p)."""
        points = score_table(c, "c")
        if points.shape[1] != self.dimensions:
            raise InputError(f"c must have {self.dimensions} columns, one per merge coefficient; got {points.shape}")
        return centred_features(points, self.box, self.complexity)


@dataclass(frozen=True)
class Prediction:
    """A surrogate's predictions at n points, on the metric's own scale."""

    value: Array  # (n,) predicted metric (the median; the mean for the identity)
    sd: Array  # (n,) standard deviation of the true metric around it, to first order
    low: Array  # (n,) ends of the interval
    high: Array  # (n,)
    extrapolates: Mask  # (n,) outside the box, or beyond the leverage of every point of the design


def predict(
    surrogate: Surrogate,
    c: ArrayLike,
    *,
    level: float = 0.9,
    items: ArrayLike | None = None,
    stderr: ArrayLike | None = None,
) -> Prediction:
    """Return predictions with intervals that hold the true metric, or a new measurement, with probability `level`.

    The interval holds the coefficients' uncertainty and the misfit; with `items` or `stderr` also the noise of a
    new measurement. It is a Student interval on the link scale, mapped back, so it stays in the metric's range.

    Args:
        surrogate: from `quadratic.fit`.
        c: (n, K) points.
        level: in (0, 1).
        items: number of items of a new measurement of a fraction (logit link only).
        stderr: standard error of a new measurement instead, in the metric's unit.

    Returns:
        Predictions; sd and interval are infinite (the whole range, for bounded links) if too few points were
        evaluated to estimate an error.

    Raises:
        InputError: `c` has another number of coefficients, the level is not in (0, 1), or the noise is given twice or
            does not fit the link.
    """
    if items is not None and (stderr is not None or surrogate.link.name != "logit"):
        raise InputError("items describes a fraction: give it for the logit link and without stderr, or give stderr")
    fraction(level, "level")
    basis = surrogate.basis(c)
    eta = basis @ surrogate.centred
    spread = link_sd(surrogate, basis)
    value, slope = surrogate.link.inverse(eta), surrogate.link.slope(eta)
    noise = np.zeros_like(eta) if stderr is None else np.broadcast_to(np.asarray(stderr, dtype=np.float64), eta.shape)
    if items is not None:
        noise = np.sqrt(value * (1 - value) / np.asarray(items, dtype=np.float64))
    reach = float(stdtrit(surrogate.dof, 0.5 + level / 2)) if surrogate.dof > 0 else np.inf
    total = np.hypot(spread, noise / np.maximum(slope, 1e-9))
    width = np.where(total > 0, reach, 0.0) * np.where(total > 0, total, 1.0)
    return Prediction(
        value=value,
        sd=np.hypot(np.where(slope > 0, slope, 0.0) * spread, noise),
        low=surrogate.link.inverse(eta - width),
        high=surrogate.link.inverse(eta + width),
        extrapolates=extrapolates(surrogate, c),
    )


def link_sd(surrogate: Surrogate, basis: Array) -> Array:
    """Return the link-scale sd of the true metric at rows of centred features, (n, p) -> (n,), misfit included."""
    variance = row_forms(basis, surrogate.covariance)
    return np.sqrt(np.maximum(variance, 0.0) + surrogate.misfit_sd**2)


def leverage(surrogate: Surrogate, c: ArrayLike) -> Array:
    """Return phi'(Phi'Phi)^-1 phi of points, (n, K) -> (n,): a distance from the design in feature space."""
    basis = surrogate.basis(c)
    return row_forms(basis, surrogate.geometry)


def extrapolates(surrogate: Surrogate, c: ArrayLike) -> Mask:
    """Return which points lie outside the box or beyond the largest leverage of the design, (n, K) -> (n,)."""
    points = score_table(c, "c")
    low, high = surrogate.box.T
    slack = 1e-9 * (high - low)
    outside = np.any((points < low - slack) | (points > high + slack), axis=1)
    return np.asarray(outside | (leverage(surrogate, points) > surrogate.max_leverage * (1 + LEVERAGE_SLACK)))


def draw_coefficients(surrogate: Surrogate, rng: Generator, draws: int) -> Array:
    """Return draws of the centred coefficients from their posterior, (draws, p): a Student t with `dof`.

    With `dof` 0 there is no error estimate, and the covariance is used as it is, with unit noise.
    """
    at_least(draws, 1, "draws")
    p = len(surrogate.centred)
    values, vectors = np.linalg.eigh(surrogate.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # eigenvalues of a rank-deficient fit may round below 0
    normal = rng.standard_normal((draws, p)) @ root.T
    if surrogate.dof > 0:
        normal *= np.sqrt(surrogate.dof / rng.chisquare(surrogate.dof, size=(draws, 1)))
    return np.asarray(surrogate.centred + normal)
