"""The weighted, penalised, link-aware least squares behind one surrogate: selection, solution, noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtr

from evomerge._arguments import Array
from evomerge.surrogates._features import Complexity, centred_features
from evomerge.surrogates._links import Link
from evomerge.surrogates._observations import Observations
from evomerge.surrogates._regression import RidgeFit, leave_one_out_path, ridge_fit

# Known noise counts as if this many residuals had confirmed it.
NOISE_PRIOR_DOF = 10.0
# Residuals with a p-value below this are too small for the stated noise: candidates share their errors.
PAIRED_LEVEL = 0.05
# A simpler model must lower the mean squared leave-one-out error by this fraction to replace a richer one. Choosing the
# simpler of near equals costs coverage, because its intervals ignore the selection.
PARSIMONY = 0.2
# Gauss-Newton steps, each with a fresh misfit estimate; most fits settle in under ten.
MOST_STEPS = 30
SETTLED, MISFIT_SETTLED = 1e-8, 1e-3  # absolute change of coefficients, relative change of the misfit


@dataclass(frozen=True)
class Solution:
    """One weighted least-squares step on the link scale."""

    fit: RidgeFit
    weights: Array  # (n,) link-scale weights of the last step
    working: Array  # (n,) link-scale target of the last step


def select(
    data: Observations, link: Link, box: Array, complexities: list[Complexity], ridges: tuple[float, ...], misfit: float
) -> tuple[Complexity, float]:
    """Return the complexity and ridge of the lowest leave-one-out error on the metric's scale."""
    z = link.forward(data.y, data.items)
    mean = link.inverse(z)
    weights = 1.0 / (data.response_variance(link, mean) / np.maximum(link.slope(z), 1e-12) ** 2 + misfit)
    importance = data.importance(link)
    best: tuple[Complexity, float] = (complexities[-1], ridges[0])
    lowest = np.inf
    for complexity in reversed(complexities):  # the richest first
        matrix = centred_features(data.c, box, complexity)
        left_out = leave_one_out_path(matrix, z, weights, ridges)  # (r, n)
        known = np.isfinite(left_out)
        predicted = link.inverse(z - np.where(known, left_out, 0.0))
        # A row that no other row informs counts as an error of the whole range; zero would reward singular fits.
        gap = np.where(known, data.y - predicted, max(float(np.ptp(data.y)), 1e-300))
        errors = gap**2 @ importance  # (r,)
        index = int(np.argmin(errors))
        if errors[index] < lowest * (1 - PARSIMONY) or lowest == np.inf:
            lowest, best = float(errors[index]), (complexity, ridges[index])
    return best


def solve(
    data: Observations, link: Link, box: Array, complexity: Complexity, ridge: float, refine: bool
) -> tuple[Solution, float, Array]:
    """Return the fit, the misfit variance on the link scale, and the fitted metrics (n,)."""
    matrix = centred_features(data.c, box, complexity)
    working = link.forward(data.y, data.items)
    eta, misfit = working, 0.0
    step: Solution | None = None
    for _ in range(MOST_STEPS):
        slope = np.maximum(link.slope(eta), 1e-9)
        variance = data.response_variance(link, link.inverse(eta)) / slope**2
        weights = 1.0 / (variance + misfit)
        penalty = _penalty(matrix.shape[1], ridge, weights)
        following = Solution(ridge_fit(matrix, working, weights, penalty), weights, working)
        if step is not None and refine and link.name != "identity":
            following = _damped(data.y, link, matrix, step, following, penalty, slope)
        moved = np.inf if step is None else float(np.abs(following.fit.coefficients - step.fit.coefficients).max())
        step = following
        before, misfit = misfit, _misfit(data, step, variance, misfit)
        if moved < SETTLED and abs(misfit - before) <= MISFIT_SETTLED * (before + SETTLED):
            break
        if refine and link.name != "identity":
            eta = np.clip(matrix @ step.fit.coefficients, -30.0, 30.0)
            working = eta + (data.y - link.inverse(eta)) / np.maximum(link.slope(eta), 1e-9)
    assert step is not None
    return step, misfit, link.inverse(matrix @ step.fit.coefficients)


def _damped(
    y: Array, link: Link, matrix: Array, before: Solution, proposed: Solution, penalty: Array, slope: Array
) -> Solution:
    """Return `proposed`, moved back towards `before` until the penalised error on the metric's scale falls."""
    inverse_variance = proposed.weights / slope**2

    def error(beta: Array) -> float:
        gap = y - link.inverse(matrix @ beta)
        return float(inverse_variance @ gap**2 + penalty @ beta**2)

    start, goal = before.fit.coefficients, proposed.fit.coefficients
    base, step = error(start), 1.0
    while error(start + step * (goal - start)) > base and step > 1e-6:
        step /= 2
    if step == 1.0:
        return proposed
    beta = start + step * (goal - start)
    fit_there = replace(proposed.fit, coefficients=beta, residuals=proposed.working - matrix @ beta)
    return Solution(fit_there, proposed.weights, proposed.working)


def _misfit(data: Observations, step: Solution, variance: Array, misfit: float) -> float:
    """Return the next misfit variance, the moment estimate of random-effects regression (Paule and Mandel 1982)."""
    left = 1.0 - step.fit.hat
    if not data.noise_known or data.shared or float(left.sum()) < 1.0:
        return 0.0
    excess = float(step.weights @ step.fit.residuals**2 - left.sum())
    return max(0.0, misfit + excess / float(step.weights @ left))


def posterior(data: Observations, solution: Solution, misfit: float) -> tuple[Array, float, float]:
    """Return the coefficients' covariance, its degrees of freedom, and the misfit's sd, all on the link scale."""
    freedom = len(data.y) - solution.fit.effective_parameters
    squares = float(solution.weights @ solution.fit.residuals**2)
    if data.noise_known and not data.shared:
        if misfit == 0 and freedom >= 1 and chdtr(freedom, squares) < PAIRED_LEVEL:
            # The candidates answered the same items, so their errors are common: these move the whole surface and are
            # invisible in the residuals, which may then all be misfit.
            scale = squares / freedom
            spread = np.sqrt(scale * len(data.y) / solution.weights.sum())
            return solution.fit.inverse, freedom + NOISE_PRIOR_DOF, float(spread)
        believed = 0.0 if misfit > 0 else NOISE_PRIOR_DOF
        return solution.fit.inverse, max(freedom, 1.0) + believed, float(np.sqrt(misfit))
    if freedom < 0.5 and data.noise_known:
        return solution.fit.inverse, NOISE_PRIOR_DOF, 0.0  # no residual degrees of freedom: rely on the stated noise
    if freedom < 0.5:
        return solution.fit.inverse, 0.0, float("inf")
    scale = squares / freedom
    return scale * solution.fit.inverse, freedom, float(np.sqrt(scale * len(data.y) / solution.weights.sum()))


def _penalty(count: int, ridge: float, weights: Array) -> Array:
    penalty = np.full(count, ridge * weights.sum())
    penalty[-1] = 0.0  # the constant comes last and is free
    return penalty
