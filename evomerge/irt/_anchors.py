"""Anchor items that every model answers: cluster centres, stratified or random samples."""

from __future__ import annotations

import itertools

import numpy as np

from evomerge.irt._curves import Array, IntArray

MAX_FEATURES = 300  # calibration models used as features; more hardly move the clusters
LLOYD_STEPS = 50
RESTARTS = 3  # k-means++ starts, of which the lowest inertia is kept


def random_items(items: int, n: int, rng: np.random.Generator) -> IntArray:
    """Return `n` distinct item indices, all subsets equally likely: unbiased whatever the items are."""
    return np.sort(rng.permutation(items)[:n])


def stratified_items(order_by: Array, n: int, rng: np.random.Generator, strata: Array | None = None) -> IntArray:
    """Return `n` distinct items, one from each of `n` equal stretches of the items sorted by stratum and `order_by`.

    Equal stretches keep the plain mean of the answers (almost) unbiased, and remove the variance that the sorting
    explains.

    Args:
        order_by: sorting key, usually the calibration models' mean answer, `(items,)`. Ties are broken by chance.
        n: how many, 1 to the number of items.
        rng: draws one item per stretch.
        strata: labels such as subtasks, `(items,)`; the first sorting key.
    """
    items = len(order_by)
    first = np.zeros(items) if strata is None else np.unique(strata, return_inverse=True)[1].astype(float)
    order = np.lexsort((rng.random(items), order_by, first))  # the last key sorts first
    edges = (np.arange(n + 1) * items) // n  # (n + 1,) bounds of the stretches, whose lengths differ by one at most
    return order[[rng.integers(low, high) for low, high in itertools.pairwise(edges)]]


def correctness_features(responses: Array, rng: np.random.Generator) -> Array:
    """Return one row per item: the calibration models' answers, at most `MAX_FEATURES` of them.

    Args:
        responses: `(models, items)`, nan where missing; a missing answer counts as the item's mean.
        rng: draws the subset if there are more models.
    """
    rows = responses
    if len(rows) > MAX_FEATURES:
        rows = rows[np.sort(rng.permutation(len(rows))[:MAX_FEATURES])]
    seen = ~np.isnan(rows)
    mean = np.where(seen, rows, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen, rows, mean).T


def cluster_anchors(features: Array, weights: Array, n: int, rng: np.random.Generator) -> tuple[IntArray, Array]:
    """Return `n` anchor items and the fraction of the score that each stands for.

    Weighted k-means; the anchor is the item nearest to its centre, or the next nearest that is still free.

    Args:
        features: `(items, k)`, from `correctness_features`.
        weights: of the items in the score, `(items,)`, sum 1.
        n: how many, 1 to the number of items.
        rng: k-means++ starts.

    Returns:
        Distinct indices `(n,)` and anchor weights `(n,)`, which sum to 1. Fewer distinct rows than `n` leave some
        clusters empty: their anchors are drawn among the free items, and weights are split among them by re-assigning
        every item to its nearest anchor.

    Source: Maia Polo et al. 2024, "tinyBenchmarks", arXiv:2402.14992.
    """
    best = min((_lloyd(features, weights, n, rng) for _ in range(RESTARTS)), key=lambda found: found[1])
    distance = _squared_distances(features, best[0])
    labels = distance.argmin(axis=1)
    mass = np.bincount(labels, weights=weights, minlength=n)  # (n,)
    free = np.ones(len(features), dtype=bool)
    anchors = np.full(n, -1)
    for cluster in np.argsort(-mass, kind="stable"):  # heavy clusters choose first
        if mass[cluster] > 0.0:
            # Items with the same answers tie; chance decides, because the order in a file often follows subtasks.
            near = np.where(free, distance[:, cluster], np.inf)
            ties = np.flatnonzero(near <= near.min() + 1e-12)
            anchors[cluster] = ties[rng.integers(len(ties))]
        else:
            left = np.flatnonzero(free)
            anchors[cluster] = left[rng.integers(len(left))]
        free[anchors[cluster]] = False
    return anchors, _anchor_weights(features, weights, anchors)


def _anchor_weights(features: Array, weights: Array, anchors: IntArray) -> Array:
    """Return each anchor's weight: items go to their nearest anchor, equally to several at the same distance."""
    distance = _squared_distances(features, features[anchors])
    nearest = distance <= distance.min(axis=1, keepdims=True) + 1e-9
    return weights @ (nearest / nearest.sum(axis=1, keepdims=True))


def _squared_distances(points: Array, centres: Array) -> Array:
    squares = (points**2).sum(axis=1)[:, None] - 2.0 * points @ centres.T + (centres**2).sum(axis=1)
    return np.maximum(squares, 0.0)  # the expanded square may round below 0


def _lloyd(features: Array, weights: Array, n: int, rng: np.random.Generator) -> tuple[Array, float]:
    """Return k-means centres from one k-means++ start, and their weighted inertia."""
    items = len(features)
    centres = np.empty((n, features.shape[1]))
    nearest = np.full(items, np.inf)
    chance = weights / weights.sum()
    for cluster in range(n):
        pick = rng.choice(items, p=chance)
        centres[cluster] = features[pick]
        nearest = np.minimum(nearest, _squared_distances(features, centres[cluster : cluster + 1])[:, 0])
        mass = nearest * weights
        # all items may lie on centres already: fall back to their weights
        chance = mass / mass.sum() if mass.sum() > 1e-12 else weights / weights.sum()
    for _ in range(LLOYD_STEPS):
        labels = _squared_distances(features, centres).argmin(axis=1)
        member = np.zeros((n, items))
        member[labels, np.arange(items)] = weights
        mass = member.sum(axis=1)
        moved = centres.copy()  # an empty cluster keeps its centre
        moved[mass > 0.0] = (member @ features)[mass > 0.0] / mass[mass > 0.0, None]
        if np.allclose(moved, centres, atol=1e-10):
            break
        centres = moved
    distance = _squared_distances(features, centres)
    return centres, float(distance.min(axis=1) @ weights)
