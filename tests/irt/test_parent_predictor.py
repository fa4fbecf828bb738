from __future__ import annotations

import numpy as np

from evomerge.irt._ability import estimate_ability
from evomerge.irt._calibrate import ItemParameters, fit_items
from evomerge.irt._curves import probabilities
from evomerge.irt._parent_predictor import estimate_merges
from evomerge.irt._performance import p_irt
from tests.irt.worlds import simulate


def merge_world(seed: int, fraction: float) -> tuple[ItemParameters, np.ndarray, list[np.ndarray]]:
    """Merges that copy a random parent's answer on a fraction of the items and answer independently elsewhere."""
    rng = np.random.default_rng(seed)
    theta, a, b, y = simulate(600, 120, 2, seed)
    parents = [y[[2 * k, 2 * k + 1]] for k in range(40)]
    merges = []
    for k, two in enumerate(parents):
        own = (rng.random(120) < probabilities(theta[2 * k : 2 * k + 2].mean(axis=0)[None], a, b)[0]).astype(float)
        copy = two[rng.integers(0, 2, 120), np.arange(120)]
        merges.append(np.where(rng.random(120) < fraction, copy, own))
    return fit_items(y[80:], 2), np.array(merges), parents


def test_parents_help_their_merges() -> None:
    items, merges, parents = merge_world(0, 0.5)
    w, truth = np.full(120, 1 / 120), merges.mean(axis=1)
    chosen = np.random.default_rng(0).permutation(120)[:10]
    found = estimate_merges(items, w, chosen, merges[:, chosen], parents)
    ability = estimate_ability(merges[:, chosen], items.a[chosen], items.b[chosen])
    plain = p_irt(merges[:, chosen], probabilities(ability.mean, items.a, items.b), w, chosen)
    assert found.trusted.mean() > 0.9
    assert np.abs(found.estimate - truth).mean() < 0.7 * np.abs(plain - truth).mean()
    assert (np.abs(found.estimate - truth) < 1.645 * found.sd).mean() > 0.8


def test_parents_that_the_answers_contradict_are_dropped() -> None:
    items, merges, parents = merge_world(1, 0.9)
    w, chosen = np.full(120, 1 / 120), np.arange(60)
    broken = 1.0 - np.array([p.mean(axis=0).round() for p in parents])  # answers the opposite of its parents
    assert not estimate_merges(items, w, chosen, broken[:, chosen], parents).trusted.any()
    assert estimate_merges(items, w, chosen, merges[:, chosen], parents).trusted.all()
