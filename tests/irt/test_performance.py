from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.irt._ability import estimate_ability
from evomerge.irt._calibrate import ItemParameters, fit_items
from evomerge.irt._covariance import ItemCovariance, greedy_items, linear_readout, shrunk_covariance
from evomerge.irt._curves import probabilities
from evomerge.irt._model_selection import NEAR_RASCH_SPEC
from evomerge.irt._performance import anchor_mean, best_fraction, difference, normalised, p_irt
from tests.irt.worlds import simulate

Pool = tuple[np.ndarray, np.ndarray, ItemParameters]  # responses, weights of the items, and their parameters


@pytest.fixture(scope="module")
def pool() -> Pool:
    _, _, _, y = simulate(120, 40, 2, 0)
    weights = normalised(np.random.default_rng(0).random(40), 40)
    return y, weights, fit_items(y[:90], 2)


def predict(items: ItemParameters, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    ability = estimate_ability(y[:, chosen], items.a[chosen], items.b[chosen])
    return probabilities(ability.mean, items.a, items.b)


def test_all_items_give_the_exact_weighted_mean(pool: Pool) -> None:
    y, w, items = pool
    every = np.arange(40)
    np.testing.assert_allclose(p_irt(y, predict(items, y, every), w, every), y @ w)
    np.testing.assert_allclose(difference(y, predict(items, y, every), w, every), y @ w)
    line = linear_readout(shrunk_covariance(y, NEAR_RASCH_SPEC.fit(y)), w, every)
    np.testing.assert_allclose(line.intercept + y @ line.slopes, y @ w)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 39))
def test_p_irt_properties(pool: Pool, seed: int, n: int) -> None:
    y, w, items = pool
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(40)[:n]
    estimate = p_irt(y[:, chosen], predict(items, y, chosen), w, chosen)
    assert (estimate >= 0.0).all()
    assert (estimate <= 1.0).all()
    # The same sum, item by item.
    p = predict(items, y, chosen)
    seen = set(chosen.tolist())
    slow = [sum(w[j] * (y[0, j] if j in seen else p[0, j]) for j in range(40))]
    np.testing.assert_allclose(estimate[0], slow[0])
    # The order of the items does not matter.
    order = rng.permutation(40)
    position = np.argsort(order)
    moved = p_irt(y[:, chosen], p[:, order], w[order], position[chosen])
    np.testing.assert_allclose(moved, estimate)


def test_p_irt_does_not_see_a_change_of_ability_coordinates(pool: Pool) -> None:
    y, w, items = pool
    rng = np.random.default_rng(1)
    rotation, shift, chosen = rng.normal(0, 1, (2, 2)) + 2 * np.eye(2), rng.normal(0, 1, 2), np.arange(0, 40, 3)
    back = np.linalg.inv(rotation)
    a, b = items.a @ back, items.b + (items.a @ back) @ shift  # theta -> R theta + t
    precision = back.T @ back
    moved = estimate_ability(y[:, chosen], a[chosen], b[chosen], shift, precision)
    one = p_irt(y[:, chosen], probabilities(moved.mean, a, b), w, chosen)
    np.testing.assert_allclose(one, p_irt(y[:, chosen], predict(items, y, chosen), w, chosen), atol=1e-7)


def test_weights_are_respected() -> None:
    y = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(anchor_mean(y, np.array([0.9, 0.1])), [0.9])
    h = np.array([0.5, 0.5, 1.0])
    np.testing.assert_allclose(
        difference(y, h, np.array([0.2, 0.3, 0.5]), np.array([0, 1])), [0.75 + 0.4 * 0.5 - 0.6 * 0.5]
    )


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [np.nan, 1.0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match="weights must"):
        normalised(np.array(weights), 2)


def test_difference_is_unbiased_whatever_the_prediction() -> None:
    rng = np.random.default_rng(0)
    y, h, w = rng.integers(0, 2, (1, 30)).astype(float), rng.random(30), np.full(30, 1 / 30)
    draws = [rng.permutation(30)[:5] for _ in range(6000)]
    assert np.mean([difference(y[:, c], h, w, c)[0] for c in draws]) == pytest.approx(y.mean(), abs=0.01)


def test_best_fraction_minimises_the_squared_error() -> None:
    rng = np.random.default_rng(0)
    e1, e2 = rng.normal(0, 1, 20_000), rng.normal(0.3, 0.7, 20_000)
    grid = np.linspace(0, 1, 501)
    losses = [((s * e1 + (1 - s) * e2) ** 2).mean() for s in grid]
    assert best_fraction(e1, e2) == pytest.approx(grid[np.argmin(losses)], abs=3e-3)
    assert best_fraction(e1, e1) == 0.5
    assert best_fraction(np.zeros(20), np.ones(20)) == 0.75  # 20 held-out models count as much as the even mixture
    assert best_fraction(np.empty(0), np.empty(0)) == 0.5


def dense(population: ItemCovariance) -> np.ndarray:
    return population.factors.T @ population.factors + np.diag(population.noise)


def test_greedy_items_equal_brute_force() -> None:
    rng = np.random.default_rng(3)
    population = ItemCovariance(np.zeros(12), rng.normal(0, 1, (3, 12)), rng.random(12) + 0.1)
    w = normalised(rng.random(12), 12)
    cov = dense(population)
    taken: list[int] = []
    for _ in range(6):
        left = {}
        for j in set(range(12)) - set(taken):
            s = [*taken, j]
            left[j] = w @ cov @ w - (cov[s] @ w) @ np.linalg.solve(cov[np.ix_(s, s)], cov[s] @ w)
        taken.append(min(left, key=left.__getitem__))
    assert greedy_items(population, w, 6).tolist() == taken
    assert linear_readout(population, w, np.array(taken)).variance == pytest.approx(min(left.values()))


def test_linear_readout_is_least_squares_on_a_large_population() -> None:
    rng = np.random.default_rng(4)
    population = ItemCovariance(rng.random(8), rng.normal(0, 1, (2, 8)), rng.random(8) + 0.2)
    y = population.mean + rng.multivariate_normal(np.zeros(8), dense(population), 200_000)
    chosen, w = np.array([1, 4, 6]), np.full(8, 1 / 8)
    design = np.column_stack([np.ones(len(y)), y[:, chosen]])
    fit = np.linalg.lstsq(design, y @ w, rcond=None)[0]
    line = linear_readout(population, w, chosen)
    np.testing.assert_allclose([line.intercept, *line.slopes], fit, atol=0.01)


@pytest.mark.parametrize("y", [np.ones((5, 4)), np.ones((1, 4)), np.eye(4)[:, :4], np.tile([[1.0, 0, 0, 1]], (6, 1))])
def test_covariance_of_odd_tables_is_positive_definite(y: np.ndarray) -> None:
    population = shrunk_covariance(y, NEAR_RASCH_SPEC.fit(y))
    assert np.linalg.eigvalsh(dense(population)).min() > 0.0
    line = linear_readout(population, np.full(4, 0.25), greedy_items(population, np.full(4, 0.25), 4))
    assert np.isfinite(line.slopes).all()
