from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from evomerge.irt import interval
from evomerge.irt._ability import estimate_ability
from evomerge.irt._calibrate import ItemParameters, fit_items
from evomerge.irt._curves import probabilities
from evomerge.irt._performance import p_irt
from evomerge.irt._uncertainty import conformal_factor, raw_variance, score_variance
from tests.irt.worlds import simulate


def reading(items: ItemParameters, y: np.ndarray, chosen: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ability = estimate_ability(y[:, chosen], items.a[chosen], items.b[chosen])
    seen = np.full(y.shape, np.nan)
    seen[:, chosen] = y[:, chosen]
    return (
        p_irt(y[:, chosen], probabilities(ability.mean, items.a, items.b), w, chosen),
        score_variance(ability, items, seen, w),
    )


def test_intervals_cover_new_models_of_a_known_pool() -> None:
    theta, a, b, y = simulate(700, 100, 1, 0)
    known = ItemParameters(a, b, np.zeros((100, 2, 2)), np.zeros(1), np.eye(1), theta, np.zeros((700, 1, 1)))
    w = np.full(100, 0.01)
    estimate, variance = reading(known, y, np.arange(0, 100, 5), w)
    assert 0.87 < (np.abs(estimate - y.mean(axis=1)) < 1.645 * np.sqrt(variance)).mean() < 0.93


def test_item_error_widens_as_the_delta_method_says() -> None:
    """Derivatives by finite differences: perturb each (a, b), re-estimate, and add up."""
    _, _, _, y = simulate(40, 8, 1, 1)
    items = fit_items(y, 1)
    w, chosen, h = np.full(8, 1 / 8), np.array([0, 2, 5]), 1e-5
    _, variance = reading(items, y[:1], chosen, w)
    bare = ItemParameters(items.a, items.b, 0 * items.covariance, *[None] * 4)  # type: ignore[arg-type]
    _, without = reading(bare, y[:1], chosen, w)
    expected = 0.0
    for j in range(8):
        slope = np.zeros(2)
        for k in range(2):
            ends = []
            for sign in (-1.0, 1.0):
                a, b = items.a.copy(), items.b.copy()
                if k == 0:
                    a[j, 0] += sign * h
                else:
                    b[j] += sign * h
                moved = ItemParameters(a, b, items.covariance, *[None] * 4)  # type: ignore[arg-type]
                ends.append(reading(moved, y[:1], chosen, w)[0][0])
            slope[k] = (ends[1] - ends[0]) / (2 * h)
        expected += slope @ items.covariance[j] @ slope
    assert variance[0] - without[0] == pytest.approx(expected, rel=1e-3)


def test_everything_seen_leaves_no_error() -> None:
    _, _, _, y = simulate(20, 6, 1, 2)
    _, variance = reading(fit_items(y, 1), y, np.arange(6), np.full(6, 1 / 6))
    np.testing.assert_allclose(variance, 0.0, atol=1e-15)
    np.testing.assert_allclose(raw_variance(y, 6), 0.0)


def test_raw_variance_does_not_vanish_for_all_right() -> None:
    assert raw_variance(np.ones((1, 10)), 100)[0] > 0.0
    rng = np.random.default_rng(0)
    y = (rng.random(200) < 0.3).astype(float)
    means = [y[rng.permutation(200)[:40]].mean() for _ in range(4000)]
    expected = np.mean([raw_variance(y[None, rng.permutation(200)[:40]], 200)[0] for _ in range(500)])
    assert expected == pytest.approx(np.var(means), rel=0.15)


@pytest.mark.parametrize("true_scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_conformal_factor_repairs_wrong_standard_errors(true_scale: float, level: float) -> None:
    rng = np.random.default_rng(0)
    factor = conformal_factor(rng.normal(0, true_scale, 2000), np.ones(2000), level)
    assert factor == pytest.approx(true_scale, rel=0.06)


@pytest.mark.parametrize("count", [3, 5, 8, 19, 20, 40])
def test_conformal_intervals_cover_with_few_left_out_models(count: int) -> None:
    rng = np.random.default_rng(count)
    hits = []
    for _ in range(1500):
        factor = conformal_factor(rng.normal(0, 1, count), np.ones(count))
        hits.append(abs(rng.normal()) < factor * norm.ppf(0.95))
    assert 0.87 < np.mean(hits) < 0.95


def test_no_left_out_model_widens_a_little() -> None:
    assert 1.0 < conformal_factor(np.empty(0), np.empty(0)) < 1.3


def test_intervals_stay_in_the_unit_range() -> None:
    low, high = interval(np.array([0.01, 0.5, 1.0]), np.array([0.1, 0.1, 0.1]))
    np.testing.assert_allclose(low, [0.0, 0.5 - 0.1645, 1 - 0.1645], atol=1e-3)
    np.testing.assert_allclose(high, [0.1745, 0.6645, 1.0], atol=1e-3)
