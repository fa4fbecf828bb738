from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.irt._anchors import cluster_anchors, correctness_features, random_items, stratified_items


def test_random_items_are_distinct_and_every_item_has_its_chance() -> None:
    counts = np.zeros(10)
    for seed in range(2000):
        chosen = random_items(10, 3, np.random.default_rng(seed))
        assert len(set(chosen)) == 3
        counts[chosen] += 1
    assert np.abs(counts / 2000 - 0.3).max() < 0.05


def test_strata_are_all_visited_and_their_mean_is_unbiased() -> None:
    key = np.arange(12.0)
    chosen = [stratified_items(key, 4, np.random.default_rng(s)) for s in range(3000)]
    assert all(sorted(c // 3) == [0, 1, 2, 3] for c in chosen)
    assert abs(np.mean([key[c].mean() for c in chosen]) - key.mean()) < 0.05


def test_strata_by_label_come_before_the_key() -> None:
    labels = np.array(["b"] * 6 + ["a"] * 6)
    chosen = stratified_items(np.random.default_rng(0).random(12), 2, np.random.default_rng(1), labels)
    assert set(labels[chosen]) == {"a", "b"}


def test_anchors_of_clear_clusters_take_one_item_each_with_its_weight() -> None:
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(3) * 10.0, [5, 3, 2], axis=0) + rng.normal(0, 0.01, (10, 3))
    anchors, shares = cluster_anchors(features, np.full(10, 0.1), 3, rng)
    cluster = np.repeat([0, 1, 2], [5, 3, 2])[anchors]
    assert sorted(cluster) == [0, 1, 2]
    np.testing.assert_allclose(shares[np.argsort(cluster)], [0.5, 0.3, 0.2])


def test_item_weights_are_respected() -> None:
    weights = np.array([0.7, 0.1, 0.1, 0.1])
    anchors, shares = cluster_anchors(np.array([[0.0], [0.0], [9.0], [9.0]]), weights, 2, np.random.default_rng(0))
    by_cluster = dict(zip((anchors >= 2).tolist(), shares, strict=True))
    np.testing.assert_allclose([by_cluster[False], by_cluster[True]], [0.8, 0.2])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 10_000))
def test_any_number_of_anchors_from_few_patterns(items: int, n: int, models: int, seed: int) -> None:
    n = min(n, items)
    rng = np.random.default_rng(seed)
    features = correctness_features(rng.integers(0, 2, (models, items)).astype(float), rng)
    anchors, shares = cluster_anchors(features, np.full(items, 1.0 / items), n, rng)
    assert len(set(anchors.tolist())) == n
    assert anchors.min() >= 0
    assert (shares >= 0.0).all()
    assert shares.sum() == pytest.approx(1.0)


def test_features_fill_missing_answers() -> None:
    y = np.array([[1.0, np.nan], [0.0, 1.0]])
    np.testing.assert_allclose(correctness_features(y, np.random.default_rng(0)), [[1.0, 0.0], [1.0, 1.0]])
