"""Gaussian processes as surrogates of objectives, for surfaces that no quadratic expresses.

An objective is a smooth random surface over the unit cube on the scale of its link (logit for fractions, so that
predictions never leave [0, 1]), with one length scale per gene. Length scales, amplitude and noise are maximum a
posteriori, under priors whose smoothness grows with the number of genes; without priors, forty length scales would
overfit thirty points.

Source: Rasmussen and Williams 2006, 'Gaussian Processes for Machine Learning' (Matern 5/2, eq. 4.17; gradients, eq.
5.9); priors from Hvarfner, Hellsten and Nardi 2024, 'Vanilla Bayesian Optimization Performs Great in High Dimensions'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from evomerge._arguments import Array
from evomerge.surrogates._links import Link, guess_link, link_named

# Fractions of 0 and 1 are read as fractions of this many items if the number of items is not known.
ASSUMED_ITEMS = 100
# Means and sds of the normal priors of log length scale (in log-widths of the cube's diagonal), of log amplitude and of
# log noise variance, all relative to the sd of the data.
LENGTH_PRIOR = (np.sqrt(2.0), np.sqrt(3.0))
AMPLITUDE_PRIOR = (0.0, 1.0)
NOISE_PRIOR = (-4.0, 1.0)
BOUNDS = {"length": (0.05, 100.0), "amplitude": (0.05, 20.0), "noise": (1e-5, 2.0)}
MOST_STEPS = 60  # L-BFGS iterations; few, because each fit starts where the last one ended
LOG_DIGITS = 2  # fitted logarithms are rounded to these digits: length scales are never known to a percent
FAR = 200.0  # distances in length scales are cut here, see `_distance`
JITTER = 1e-8  # relative to the amplitude, until a covariance has a Cholesky factor


@dataclass(frozen=True)
class Hyperparameters:
    """Kernel and noise parameters of a process, in units of the standardised data."""

    length: Array  # (d,) in widths of the cube
    amplitude: float  # variance of the surface
    noise: float  # variance of a measurement around it

    def as_logs(self) -> Array:
        """Return them as one vector of logarithms, (d + 2,)."""
        return np.log(np.array([*self.length, self.amplitude, self.noise]))


@dataclass(frozen=True)
class GaussianProcess:
    """One objective, given its measurements; immutable."""

    points: Array  # (n, d)
    link: Link
    mean: float  # link-scale mean of the measurements
    scale: float  # their link-scale sd; 1 if they are all equal
    hyper: Hyperparameters
    factor: Array  # (n, n) lower Cholesky factor of the covariance of the measurements
    solved: Array  # (n,) that covariance's inverse times the standardised measurements

    def predict(self, points: Array) -> Array:
        """Return the expected link-scale values at points (q, d); (q,)."""
        return np.asarray(self.mean + self.scale * (_covariance(points, self.points, self.hyper) @ self.solved))

    def draw(self, points: Array, rng: Generator, draws: int) -> Array:
        """Return joint draws of the noise-free metric at points (q, d), in the metric's units; (draws, q)."""
        cross = _covariance(points, self.points, self.hyper)
        half = solve_triangular(self.factor, cross.T, lower=True)
        posterior = _covariance(points, points, self.hyper) - half.T @ half  # (q, q)
        root = _factor(posterior, self.hyper.amplitude)
        standard = cross @ self.solved + rng.standard_normal((draws, len(points))) @ root.T
        return self.link.inverse(self.mean + self.scale * standard)


def fit_process(
    points: Array,
    values: Array,
    *,
    items: float | None = None,
    stderr: Array | None = None,
    start: Hyperparameters | None = None,
    refine: bool = True,
) -> GaussianProcess:
    """Return the process of one objective.

    Args:
        points: (n, d) in the unit cube, n at least 1.
        values: (n,) higher is better; fractions in [0, 1] are fitted behind a logit.
        items: number of items behind each fraction; None: not known.
        stderr: (n,) additional noise of single measurements, in the metric's units; 0 for none.
        start: first hyperparameters of the fit; without `refine`, used unchanged.
        refine: whether to fit the hyperparameters.
    """
    link = link_named(guess_link(values))
    count = ASSUMED_ITEMS if items is None else items
    z = link.forward(values, count) if link.name == "logit" else np.array(values, dtype=float)
    mean, scale = float(z.mean()), float(z.std())
    scale = scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0
    standard = (z - mean) / scale
    extra = np.zeros(len(z))
    if stderr is not None:
        extra = (np.asarray(stderr, dtype=float) / np.maximum(link.slope(z), 1e-6) / scale) ** 2
    hyper = start or _expected(points.shape[1])
    if refine and len(points) > 1:
        hyper = _most_probable(points, standard, extra, hyper)
    noisy = _covariance(points, points, hyper) + np.diag(hyper.noise + extra)
    factor = _factor(noisy, hyper.amplitude)
    return GaussianProcess(points, link, mean, scale, hyper, factor, cho_solve((factor, True), standard))


def _expected(dimensions: int) -> Hyperparameters:
    """Return the middle of the priors."""
    middle = np.exp(LENGTH_PRIOR[0]) * np.sqrt(dimensions) * np.ones(dimensions)
    return Hyperparameters(
        np.clip(middle, *BOUNDS["length"]), float(np.exp(AMPLITUDE_PRIOR[0])), np.exp(NOISE_PRIOR[0])
    )


def _most_probable(points: Array, standard: Array, extra: Array, start: Hyperparameters) -> Hyperparameters:
    """Return the hyperparameters of the highest posterior density near `start`."""
    d = points.shape[1]
    limits = [BOUNDS["length"]] * d + [BOUNDS["amplitude"], BOUNDS["noise"]]
    bounds = np.log(np.array(limits))
    middle = np.array([*(LENGTH_PRIOR[0] + 0.5 * np.log(d)) * np.ones(d), AMPLITUDE_PRIOR[0], NOISE_PRIOR[0]])
    width = np.array([*LENGTH_PRIOR[1] * np.ones(d), AMPLITUDE_PRIOR[1], NOISE_PRIOR[1]])

    def loss(logs: Array) -> tuple[float, Array]:
        value, gradient = _negative_log_likelihood(logs, points, standard, extra)
        gap = (logs - middle) / width
        return value + 0.5 * float(gap @ gap), gradient + gap / width

    found = minimize(
        loss,
        np.clip(start.as_logs(), *bounds.T),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"maxiter": MOST_STEPS},
    ).x
    # rounded, so that a BLAS with another order of summation gives the same values and a search repeats itself
    return _from_logs(np.round(found, LOG_DIGITS))


def _negative_log_likelihood(logs: Array, points: Array, standard: Array, extra: Array) -> tuple[float, Array]:
    """Return minus the log marginal likelihood and its gradient in the logarithms of the hyperparameters."""
    hyper, n = _from_logs(logs), len(points)
    scaled = points / hyper.length
    distance = _distance(scaled, scaled)
    decay = np.exp(-np.sqrt(5.0) * distance)
    surface = hyper.amplitude * (1.0 + np.sqrt(5.0) * distance + 5.0 / 3.0 * distance**2) * decay
    factor = _factor(surface + np.diag(hyper.noise + extra), hyper.amplitude)
    solved = cho_solve((factor, True), standard)
    value = 0.5 * standard @ solved + np.log(np.diag(factor)).sum() + 0.5 * n * np.log(2 * np.pi)
    weight = cho_solve((factor, True), np.eye(n)) - np.outer(solved, solved)  # (n, n); derivatives are half its traces
    # d k / d log length_i = slope * (x_i - x'_i)^2 / length_i^2; summed over all pairs without their differences
    slope = weight * (5.0 / 3.0 * hyper.amplitude * (1.0 + np.sqrt(5.0) * distance) * decay)
    by_gene = 2.0 * (slope.sum(axis=1) @ scaled**2 - np.einsum("ni,ni->i", scaled, slope @ scaled))
    gradient = 0.5 * np.array([*by_gene, (weight * surface).sum(), hyper.noise * np.trace(weight)])
    return float(value), gradient


def _from_logs(logs: Array) -> Hyperparameters:
    values = np.exp(logs)
    return Hyperparameters(values[:-2], float(values[-2]), float(values[-1]))


def _covariance(left: Array, right: Array, hyper: Hyperparameters) -> Array:
    """Return the prior covariance of the surface between points (n, d) and (q, d), (n, q): Matern 5/2."""
    reach = np.sqrt(5.0) * _distance(left / hyper.length, right / hyper.length)
    return np.asarray(hyper.amplitude * (1.0 + reach + reach**2 / 3.0) * np.exp(-reach))


def _distance(left: Array, right: Array) -> Array:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None] - 2.0 * left @ right.T
    # beyond `FAR` the covariance is exactly 0, and its exponential a denormal number, which is very slow
    return np.sqrt(np.clip(squares, 0.0, FAR**2))


def _factor(covariance: Array, amplitude: float) -> Array:
    """Return the lower Cholesky factor, with as little added to the diagonal as rounding makes necessary."""
    jitter, unit = JITTER * amplitude, np.eye(len(covariance))
    while True:
        try:
            return np.asarray(np.linalg.cholesky(covariance + jitter * unit))
        except np.linalg.LinAlgError:
            jitter *= 10.0
