"""What a merge inherits: recovered on simulated families, exact where everything is known, at ease with oddities."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.irt._inheritance import informative_items, inheritance_items, inherited_mean, inherited_scores

ITEMS = 200
WEIGHTS = np.full(ITEMS, 1.0 / ITEMS)


def family(seed: int, merges: int, items: int = ITEMS) -> tuple[np.ndarray, np.ndarray]:
    """Return two parents with skills of their own, and merges of them; items differ in difficulty beside."""
    rng = np.random.default_rng(seed)
    parents = (rng.random((2, items)) < np.array([[0.7], [0.35]])).astype(float)
    effect = rng.normal(0.0, 0.7, items)
    theta = np.stack([rng.normal(-0.5, 0.8, merges), rng.normal(2.0, 1.0, merges), rng.normal(1.5, 1.0, merges)], 1)
    z = theta[:, :1] + theta[:, 1:] @ (parents - 0.5) + effect
    return parents, (rng.random((merges, items)) < 1.0 / (1.0 + np.exp(-z))).astype(float)


def masked(answers: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    rows = np.full_like(answers, np.nan)
    rows[:, chosen] = answers[:, chosen]
    return rows


def test_all_items_answered_give_the_exact_mean() -> None:
    parents, merges = family(0, 5)
    scores = inherited_scores(inheritance_items(parents), WEIGHTS, merges)
    np.testing.assert_allclose(scores.estimate, merges.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(scores.sd, 0.0, atol=1e-12)


def test_few_answers_err_a_quarter_less_than_their_mean() -> None:
    parents, merges = family(1, 300)
    rng = np.random.default_rng(2)
    items = inheritance_items(parents)
    ours, raw = [], []
    for _ in range(10):
        chosen = informative_items(items, WEIGHTS, 10, rng)
        truth = merges.mean(axis=1)
        ours.append(np.abs(inherited_scores(items, WEIGHTS, masked(merges, chosen)).estimate - truth).mean())
        plain = rng.permutation(ITEMS)[:10]
        raw.append(np.abs(merges[:, plain].mean(axis=1) - truth).mean())
    assert np.mean(ours) < 0.75 * np.mean(raw)


@pytest.mark.parametrize("taught", [0, 12])
def test_intervals_cover(taught: int) -> None:
    hits = []
    for seed in range(8):
        parents, merges = family(seed, 40 + taught)
        items = inheritance_items(parents, merges[:taught])
        rows = masked(merges[taught:], informative_items(items, WEIGHTS, 20, np.random.default_rng(seed)))
        scores = inherited_scores(items, WEIGHTS, rows)
        hits.append(np.abs(scores.estimate - merges[taught:].mean(axis=1)) <= 1.645 * scores.sd)
    assert 0.84 <= np.mean(hits) <= 0.99


def test_merges_teach_single_items_and_the_prior() -> None:
    parents, merges = family(3, 200)
    chosen = informative_items(inheritance_items(parents), WEIGHTS, 10, np.random.default_rng(0))
    truth = merges[100:].mean(axis=1)
    error = {
        taught: np.abs(
            inherited_scores(
                inheritance_items(parents, merges[:taught]), WEIGHTS, masked(merges[100:], chosen)
            ).estimate
            - truth
        ).mean()
        for taught in (0, 100)
    }
    assert error[100] < 0.85 * error[0]
    easy = inherited_mean(inheritance_items(parents, merges))
    assert np.corrcoef(easy, merges.mean(axis=0))[0, 1] > 0.95


def test_without_answers_a_merge_is_right_about_as_often_as_its_parents() -> None:
    parents = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    guess = inherited_mean(inheritance_items(parents))
    assert guess[0] > 0.7 > 0.5 + 1e-9 > guess[2]
    assert guess[1] == pytest.approx(0.5)
    assert guess[2] == pytest.approx(1.0 - guess[0])


def test_the_items_order_does_not_matter() -> None:
    parents, merges = family(4, 6)
    order = np.random.default_rng(1).permutation(ITEMS)
    rows = masked(merges[3:], np.arange(0, ITEMS, 9))
    here = inherited_scores(inheritance_items(parents, merges[:3]), WEIGHTS, rows)
    there = inherited_scores(inheritance_items(parents[:, order], merges[:3, order]), WEIGHTS, rows[:, order])
    np.testing.assert_allclose(here.estimate, there.estimate, atol=1e-8)
    np.testing.assert_allclose(here.sd, there.sd, atol=1e-8)


def test_the_items_asked_are_spread_and_not_the_sure_ones() -> None:
    """Two thirds of the items are known by both parents or by none; merges differ on the rest."""
    parents = np.zeros((2, 90))
    parents[:, 60:] = 1.0
    parents[0, 30:60] = 1.0
    chosen = informative_items(inheritance_items(parents), np.full(90, 1 / 90), 9, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 9
    groups = np.bincount(chosen // 30, minlength=3)
    assert (groups >= 1).all()
    assert groups[1] == max(groups)


@pytest.mark.parametrize(
    "parents",
    [
        np.ones((1, 5)),
        np.zeros((3, 5)),
        np.full((2, 5), np.nan),
        np.array([[1.0, 0.0, 1.0, 0.0, 1.0]] * 4),
        np.array([[0.2, 0.9, np.nan, 0.5, 1.0]]),
    ],
    ids=["all right", "all wrong", "missing", "clones", "graded"],
)
def test_odd_parents_give_finite_estimates(parents: np.ndarray) -> None:
    items = inheritance_items(parents, np.ones((1, 5)))
    rows = np.array([[1.0, np.nan, np.nan, np.nan, np.nan], [0.0, 0.0, 0.0, 0.0, np.nan]])
    scores = inherited_scores(items, np.full(5, 0.2), rows)
    assert np.isfinite(scores.estimate).all()
    assert (scores.sd > 0.0).all()
    assert 0.0 <= scores.estimate[1] < scores.estimate[0] <= 1.0
    assert len(informative_items(items, np.full(5, 0.2), 5, np.random.default_rng(0))) == 5


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(InputError, match="parents' 5 items"):
        inheritance_items(np.ones((2, 5)), np.ones((1, 4)))
    with pytest.raises(InputError, match="at least one model"):
        inheritance_items(np.empty((0, 5)))
