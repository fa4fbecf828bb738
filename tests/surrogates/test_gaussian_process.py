"""Gaussian processes: the formula, its gradient, what they recover, and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm

from evomerge.surrogates import Hyperparameters, fit_process
from evomerge.surrogates import _gaussian_process as gp


def matern(left: np.ndarray, right: np.ndarray, hyper: Hyperparameters) -> float:
    """Equation 4.17 of Rasmussen and Williams for one pair of points, nu = 5/2."""
    r = np.sqrt((((left - right) / hyper.length) ** 2).sum())
    return hyper.amplitude * (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


def test_predictions_are_those_of_the_textbook() -> None:
    """Mean k'(K + s)^-1 z with the covariance entry by entry; other numbers than shares are only standardised."""
    rng = np.random.default_rng(0)
    points, values, new = rng.random((7, 2)), 10 * rng.standard_normal(7), rng.random((3, 2))
    hyper = Hyperparameters(np.array([0.4, 2.0]), 1.3, 0.05)
    errors = np.array([0.0, 3.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    fit = fit_process(points, values, stderr=errors, start=hyper, refine=False)
    mean, sd = values.mean(), values.std()
    noisy = np.array([[matern(a, b, hyper) for b in points] for a in points])
    noisy += np.diag(hyper.noise + (errors / sd) ** 2)
    cross = np.array([[matern(a, b, hyper) for b in points] for a in new])
    expected = mean + sd * cross @ np.linalg.inv(noisy) @ ((values - mean) / sd)
    assert np.allclose(fit.predict(new), expected, rtol=1e-6)
    drawn = fit.draw(new, rng, 40_000)
    spread = np.array([[matern(a, b, hyper) for b in new] for a in new]) - cross @ np.linalg.inv(noisy) @ cross.T
    assert np.allclose(drawn.mean(axis=0), expected, atol=4 * sd * np.sqrt(np.diag(spread) / 40_000).max())
    assert np.allclose(np.cov(drawn.T), sd**2 * spread, atol=0.03 * sd**2)


def test_the_gradient_is_that_of_the_likelihood_and_the_likelihood_that_of_a_normal() -> None:
    rng = np.random.default_rng(1)
    points, values, extra = rng.random((30, 4)), rng.standard_normal(30), 0.1 * rng.random(30)
    logs = np.log(np.array([0.5, 1.0, 2.0, 0.7, 1.3, 0.05]))
    loss = lambda at: gp._negative_log_likelihood(at, points, values, extra)[0]  # noqa: E731
    value, gradient = gp._negative_log_likelihood(logs, points, values, extra)
    assert np.allclose(gradient, approx_fprime(logs, loss, 1e-6), atol=1e-4)
    hyper = gp._from_logs(logs)
    covariance = np.array([[matern(a, b, hyper) for b in points] for a in points]) + np.diag(hyper.noise + extra)
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, values)
    assert value == pytest.approx(-norm.logpdf(white).sum() + np.log(np.diag(root)).sum(), rel=1e-6)


def test_length_scales_tell_the_gene_that_matters_and_shares_stay_shares() -> None:
    rng = np.random.default_rng(2)
    points = rng.random((80, 3))
    chance = 1 / (1 + np.exp(-4 + 10 * (points[:, 0] - 0.5) ** 2 * 4))
    values = rng.binomial(200, chance) / 200
    fit = fit_process(points, values, items=200)
    assert fit.hyper.length[0] < 0.3 * fit.hyper.length[1:].min()
    new = rng.random((200, 3))
    truth = 1 / (1 + np.exp(-4 + 10 * (new[:, 0] - 0.5) ** 2 * 4))
    drawn = fit.draw(new, rng, 200)
    assert drawn.min() > 0.0
    assert drawn.max() < 1.0
    error = fit.link.inverse(fit.predict(new)) - truth
    assert np.sqrt((error**2).mean()) < 0.15 * truth.std()
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert ((low <= truth) & (truth <= high)).mean() > 0.75


def test_one_point_equal_points_and_a_constant_are_fitted() -> None:
    one = fit_process(np.array([[0.3, 0.4]]), np.array([0.7]), items=10)
    assert one.link.inverse(one.predict(np.array([[0.3, 0.4]])))[0] == pytest.approx(0.7, abs=0.03)
    same = np.tile([[0.5, 0.5]], (6, 1))
    tied = fit_process(same, np.array([0.2, 0.4] * 3), items=10)
    assert 0.2 < tied.link.inverse(tied.predict(same[:1]))[0] < 0.4
    flat = fit_process(np.random.default_rng(0).random((9, 2)), np.full(9, 3.0))
    assert np.allclose(flat.predict(np.array([[0.1, 0.9]])), 3.0)
    assert np.isfinite(flat.draw(np.array([[0.1, 0.9]]), np.random.default_rng(0), 8)).all()


def test_certain_and_uncertain_places_are_told_apart() -> None:
    points = np.linspace(0, 0.5, 12)[:, None]
    fit = fit_process(points, np.sin(6 * points[:, 0]))
    drawn = fit.draw(np.array([[0.25], [1.0]]), np.random.default_rng(0), 500)
    assert drawn[:, 1].std() > 5 * drawn[:, 0].std()
