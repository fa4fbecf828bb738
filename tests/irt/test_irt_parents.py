import numpy as np
import pytest
from irt_worlds import simulate
from scipy.optimize import minimize_scalar

from evomerge.irt import estimate_merges
from evomerge.irt._ability import estimate_ability
from evomerge.irt._calibrate import fit_items
from evomerge.irt._curves import log_likelihood, logits, probabilities
from evomerge.irt._parent_predictor import mix_abilities
from evomerge.irt._performance import p_irt


def test_one_dimension_without_prior_is_p_irt_without_prior():
    _, _, _, y = simulate(100, 40, 1, 0)
    items = fit_items(y, 1)
    answers, chosen = y[:10, :20], np.arange(20)
    mixed = mix_abilities(answers, items, chosen, np.array([[0.7], [-0.2]]), prior_sd=None)
    for row, theta in zip(answers, mixed, strict=True):
        best = minimize_scalar(
            lambda t, row=row: -log_likelihood(row, logits(np.array([[t]]), items.a[:20], items.b[:20])[0]).sum(),
            bounds=(-8, 8),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert theta[0] == pytest.approx(best.x, abs=2e-3)


def test_prior_keeps_mixing_weights_near_the_mean_of_the_parents():
    _, _, _, y = simulate(100, 40, 2, 1)
    items = fit_items(y, 2)
    endpoints = np.array([[1.0, 0.2], [1.01, 0.21]])  # near-collinear parents
    chosen = np.arange(6)
    free = mix_abilities(y[:30, :6], items, chosen, endpoints, prior_sd=None)
    held = mix_abilities(y[:30, :6], items, chosen, endpoints)
    assert np.abs(held - endpoints.mean(axis=0)).max() < 2.5
    assert np.abs(held).max() < np.abs(free).max()
    tight = mix_abilities(y[:30, :6], items, chosen, endpoints, prior_sd=1e-4)
    np.testing.assert_allclose(tight, np.tile(endpoints.mean(axis=0), (30, 1)), atol=1e-3)


def merge_world(seed, share):
    """Merges that copy a random parent's answer on a share of the items and answer afresh elsewhere."""
    rng = np.random.default_rng(seed)
    theta, a, b, y = simulate(600, 120, 2, seed)
    parents = [y[[2 * k, 2 * k + 1]] for k in range(40)]
    merges = []
    for k, two in enumerate(parents):
        own = (rng.random(120) < probabilities(theta[2 * k : 2 * k + 2].mean(axis=0)[None], a, b)[0]).astype(float)
        copy = two[rng.integers(0, 2, 120), np.arange(120)]
        merges.append(np.where(rng.random(120) < share, copy, own))
    return fit_items(y[80:], 2), np.array(merges), parents


def test_parents_help_their_merges():
    items, merges, parents = merge_world(0, 0.5)
    w, truth = np.full(120, 1 / 120), merges.mean(axis=1)
    chosen = np.random.default_rng(0).permutation(120)[:10]
    found = estimate_merges(items, w, chosen, merges[:, chosen], parents)
    ability = estimate_ability(merges[:, chosen], items.a[chosen], items.b[chosen])
    plain = p_irt(merges[:, chosen], probabilities(ability.mean, items.a, items.b), w, chosen)
    assert found.trusted.mean() > 0.9
    assert np.abs(found.estimate - truth).mean() < 0.7 * np.abs(plain - truth).mean()
    assert (np.abs(found.estimate - truth) < 1.645 * found.sd).mean() > 0.8


def test_parents_that_the_answers_contradict_are_dropped():
    items, merges, parents = merge_world(1, 0.9)
    w, chosen = np.full(120, 1 / 120), np.arange(60)
    broken = 1.0 - np.array([p.mean(axis=0).round() for p in parents])  # answers the opposite of its parents
    assert not estimate_merges(items, w, chosen, broken[:, chosen], parents).trusted.any()
    assert estimate_merges(items, w, chosen, merges[:, chosen], parents).trusted.all()
