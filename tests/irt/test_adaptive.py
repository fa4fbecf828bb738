from __future__ import annotations

import numpy as np
import pytest

from evomerge.irt._adaptive import (
    Population,
    adaptive_test,
    log_posterior,
    next_items,
    population,
    posterior_weights,
    score_posterior,
)
from evomerge.irt._calibrate import fit_items
from tests.irt.worlds import simulate

World = tuple[Population, np.ndarray]  # models of a calibrated pool, and 0/1 responses of others


@pytest.fixture(scope="module")
def world() -> World:
    _, _, _, y = simulate(500, 60, 2, 0)
    items = fit_items(y[:400], 2)
    return population(items, np.full(60, 1 / 60), np.random.default_rng(0)), y[400:]


def test_first_items_equal_brute_force(world: World) -> None:
    """Expected variance of the unseen score after each possible answer, by enumeration."""
    prior, y = world
    seen = np.full((1, 60), np.nan)
    seen[0, :5] = y[0, :5]
    weight = posterior_weights(log_posterior(prior, seen))[0]
    gains = np.full(60, -1.0)
    for j in range(5, 60):
        rest = [u for u in range(5, 60) if u != j]
        p = weight @ prior.right[:, j]
        means = []
        for like in (prior.right[:, j], 1 - prior.right[:, j]):
            after = weight * like / (weight @ like)
            means.append(after @ prior.right[:, rest].sum(axis=1) / 60)
        # Between-answers variance of the score: the answer itself, and what it says of the rest.
        gap = means[0] - means[1] + 1 / 60
        gains[j] = p * (1 - p) * gap**2
    chosen = next_items(prior, seen, np.ones((1, 60), bool), 1)[0, 0]
    assert gains[chosen] > 0.98 * gains.max()


def test_posterior_is_bayes_rule(world: World) -> None:
    prior, y = world
    seen = np.full((2, 60), np.nan)
    seen[:, [3, 9]] = y[:2, [3, 9]]
    like = np.ones((2, len(prior.theta)))
    for j in (3, 9):
        for i in range(2):
            like[i] *= prior.right[:, j] if y[i, j] else 1 - prior.right[:, j]
    np.testing.assert_allclose(posterior_weights(log_posterior(prior, seen)), like / like.sum(axis=1, keepdims=True))


def test_tests_ask_the_promised_number_of_allowed_items(world: World) -> None:
    prior, y = world
    complete = y[:4].copy()
    complete[:, :10] = np.nan
    for n, batch in ((1, 1), (7, 3), (20, 20)):
        seen = adaptive_test(prior, complete, n, batch)
        assert ((~np.isnan(seen)).sum(axis=1) == n).all()
        assert np.isnan(seen[:, :10]).all()
        np.testing.assert_array_equal(seen[~np.isnan(seen)], complete[~np.isnan(seen)])


def test_common_core_is_answered_by_all(world: World) -> None:
    prior, y = world
    core = np.array([4, 17, 33])
    seen = adaptive_test(prior, y[:5], 8, 2, core)
    assert not np.isnan(seen[:, core]).any()
    assert ((~np.isnan(seen)).sum(axis=1) == 8).all()


def test_adaptive_items_beat_random_ones_and_batches_lose_little(world: World) -> None:
    prior, y = world
    truth = y.mean(axis=1)
    rng = np.random.default_rng(0)

    def error(seen: np.ndarray) -> float:
        return np.abs(score_posterior(prior, seen).mean - truth).mean()

    at_random = []
    for _ in range(10):
        seen = np.full_like(y, np.nan)
        chosen = rng.permutation(60)[:12]
        seen[:, chosen] = y[:, chosen]
        at_random.append(error(seen))
    single, batched = error(adaptive_test(prior, y, 12)), error(adaptive_test(prior, y, 12, 4))
    assert single < 0.85 * np.mean(at_random)
    assert batched < 1.15 * single


def test_intervals_of_the_belief_cover(world: World) -> None:
    prior, y = world
    belief = score_posterior(prior, adaptive_test(prior, y, 15))
    assert (np.abs(belief.mean - y.mean(axis=1)) < 1.645 * belief.sd).mean() > 0.82


def test_everything_asked_is_exact(world: World) -> None:
    prior, y = world
    belief = score_posterior(prior, y[:3])
    np.testing.assert_allclose(belief.mean, y[:3].mean(axis=1))


def test_all_right_and_all_wrong_stay_in_range(world: World) -> None:
    prior, _ = world
    for value in (0.0, 1.0):
        belief = score_posterior(prior, adaptive_test(prior, np.full((1, 60), value), 20))
        assert 0.0 <= belief.mean[0] <= 1.0
        assert np.isfinite(belief.sd).all()
