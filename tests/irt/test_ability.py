from __future__ import annotations

import numpy as np
import pytest

from evomerge.irt._ability import estimate_ability
from evomerge.irt._curves import log_likelihood, logits
from tests.irt.worlds import data_folder, simulate


def log_posterior(theta: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, precision: float = 1.0) -> np.ndarray:
    return log_likelihood(y[None], logits(theta, a, b)).sum(axis=1) - 0.5 * precision * (theta**2).sum(axis=1)


def grid_optimum(y: np.ndarray, a: np.ndarray, b: np.ndarray, d: int) -> np.ndarray:
    """Brute force: a coarse grid, then ever finer ones around its best point."""
    best, width = np.zeros(d), 8.0
    for _ in range(14):
        axis = np.linspace(-width, width, 41)
        points = best + np.stack(np.meshgrid(*[axis] * d, indexing="ij"), axis=-1).reshape(-1, d)
        best = points[log_posterior(points, y, a, b).argmax()]
        width /= 2.5
    return best


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("pattern", ["right", "wrong", "random", "graded"])
def test_map_equals_grid_optimum_on_wild_items(d: int, pattern: str) -> None:
    rng = np.random.default_rng(d)
    a, b = rng.normal(0, 4, (12, d)), rng.normal(0, 3, 12)  # |a| up to 9, both signs
    y = {"right": np.ones(12), "wrong": np.zeros(12), "random": rng.integers(0, 2, 12) * 1.0, "graded": rng.random(12)}
    found = estimate_ability(y[pattern][None], a, b).mean[0]
    np.testing.assert_allclose(found, grid_optimum(y[pattern], a, b, d), atol=1e-3)


@pytest.mark.parametrize("name", ["metabench_arc", "metabench_truthfulqa"])
def test_map_equals_grid_optimum_on_published_items(name: str) -> None:
    held = np.load(data_folder() / f"{name}.npz")
    params = held["item_params_published"].astype(float)
    order = np.argsort(-np.abs(params[:, 0]))[:30]
    a, b = params[order, :1], -params[order, 1]
    rows = [np.where(r < 0, np.nan, r).astype(float)[order] for r in held["responses"][::400]]
    for y in [np.ones(30), np.zeros(30), *rows]:
        np.testing.assert_allclose(estimate_ability(y[None], a, b).mean[0], grid_optimum(y, a, b, 1), atol=1e-3)


def test_no_answers_give_the_prior() -> None:
    found = estimate_ability(
        np.full((1, 3), np.nan), np.ones((3, 2)), np.zeros(3), np.array([0.3, -1.0]), np.diag([4.0, 2.0])
    )
    np.testing.assert_allclose(found.mean, [[0.3, -1.0]])
    np.testing.assert_allclose(found.covariance[0], np.diag([0.25, 0.5]))


def test_batch_equals_one_by_one_and_missing_equals_absent() -> None:
    _, a, b, y = simulate(20, 30, 2, 0)
    y[3, 5:] = np.nan
    together = estimate_ability(y, a, b)
    for i in range(len(y)):
        seen = ~np.isnan(y[i])
        alone = estimate_ability(y[i : i + 1, seen], a[seen], b[seen])
        np.testing.assert_allclose(together.mean[i], alone.mean[0], atol=1e-7)
        np.testing.assert_allclose(together.covariance[i], alone.covariance[0], atol=1e-7)


def test_abilities_are_recovered_within_their_errors() -> None:
    theta, a, b, y = simulate(500, 80, 2, 1)
    found = estimate_ability(y, a, b)
    z = (found.mean - theta) / np.sqrt(np.einsum("mdd->md", found.covariance))
    assert 0.86 < (np.abs(z) < 1.645).mean() < 0.94


def test_huge_discrimination_and_prior_do_not_diverge() -> None:
    found = estimate_ability(
        np.array([[1.0, 0.0]]), np.array([[1e3], [-1e3]]), np.array([0.0, 5e2]), prior_precision=1e-6
    )
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.covariance).all()
