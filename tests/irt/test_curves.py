from __future__ import annotations

import numpy as np
from scipy.special import expit

from evomerge.irt._curves import expected_probabilities, log_likelihood, logits, probabilities


def test_logits_are_a_theta_minus_b() -> None:
    z = logits(np.array([[1.0, 2.0]]), np.array([[0.5, -1.0], [0.0, 0.0]]), np.array([0.25, -3.0]))
    np.testing.assert_allclose(z, [[0.5 - 2.0 - 0.25, 3.0]])


def test_log_likelihood_is_the_textbook_formula_and_zero_where_missing() -> None:
    y = np.array([[1.0, 0.0, 0.3, np.nan]])
    z = np.array([[0.4, -1.0, 2.0, 5.0]])
    p = expit(z)
    expected = y * np.log(p) + (1 - y) * np.log(1 - p)
    np.testing.assert_allclose(log_likelihood(y, z)[0, :3], expected[0, :3])
    assert log_likelihood(y, z)[0, 3] == 0.0


def test_log_likelihood_does_not_overflow() -> None:
    assert log_likelihood(np.array([[0.0]]), np.array([[1e6]]))[0, 0] == -1e6


def test_expected_probability_matches_simulation() -> None:
    rng = np.random.default_rng(0)
    a, b, theta = np.array([[1.5, -0.4]]), np.array([0.3]), np.array([[0.8, 0.1]])
    covariance = np.array([[[0.6, 0.2], [0.2, 0.5]]])
    draws = rng.multivariate_normal(theta[0], covariance[0], 200_000)
    assert abs(expected_probabilities(theta, covariance, a, b)[0, 0] - probabilities(draws, a, b).mean()) < 0.01
