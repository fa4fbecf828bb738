"""Inheritance: a merge's answer to an item, predicted from its parents' answers to the same item.

Logistic regression of a merge's answers on those of its parents, one set of coefficients per merge, with a prior over
merges. It needs no population of models, only the full answers of the parents and of a few merges, which a search has
anyway. The coefficients of a merge act as its ability, the parents' answers as discriminations, so all formulas of item
response theory apply.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.errors import InputError
from evomerge.irt._ability import estimate_ability
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._covariance import ItemCovariance, greedy_items
from evomerge.irt._curves import Array, IntArray, expected_probabilities, probabilities
from evomerge.irt._uncertainty import score_variance

# Prior sds in logits of a merge's level, and of the effect of one parent's right answer. Wide, because a merge can be
# broken, or better than every parent.
LEVEL_SD = 1.5
SLOPE_SD = 1.0
# Prior sd, in logits, of items with the same parents' answers; effects of single items are shrunk to 0 by it.
ITEM_SD = 1.0
# The prior's centre and spread count as this many merges.
CENTRE_MERGES = 2.0
SPREAD_MERGES = 6.0
ROUNDS = 5  # alternations between merges and items; further ones move estimates by less than 0.1 points
DRAWS = 400  # coefficient draws that approximate the covariance of items


@dataclass(frozen=True)
class InheritedScores:
    """Estimates for merges from some of their answers and all of their parents'."""

    estimate: Array  # (merges,)
    sd: Array  # (merges,)


def inheritance_items(parents: Array, merges: Array | None = None) -> ItemParameters:
    """Return items whose discriminations are the parents' answers and whose abilities are a merge's coefficients.

    Args:
        parents: answers of the parents, `(K, items)`, in [0, 1], nan where missing.
        merges: answers of merges of them, `(M, items)`, nan where missing; they update the prior and the items.

    Returns:
        Parameters with d = K + 1: a level, and one slope per parent. Without merges the prior says that a merge is
        right about as often as its parents are.

    Raises:
        InputError: there is no parent, or the shapes disagree.
    """
    known = np.atleast_2d(np.asarray(parents, dtype=float))
    if not known.shape[0] or not known.shape[1]:
        raise InputError(f"parents must hold answers of at least one model to at least one item, got {known.shape}")
    others = np.empty((0, known.shape[1])) if merges is None else np.atleast_2d(np.asarray(merges, dtype=float))
    if others.shape[1] != known.shape[1]:
        raise InputError(f"merges must answer the parents' {known.shape[1]} items, got shape {others.shape}")
    features = _features(known)
    count, d = len(known), len(known) + 1
    slope = 2.0 * np.log(2.0 * count + 1.0) / count  # none right to all right: from 1/(2K+2) to (2K+1)/(2K+2)
    centre = np.concatenate([[0.0], np.full(count, slope)])
    spread = np.diag([LEVEL_SD**2] + [SLOPE_SD**2] * count)
    return _updated(features, centre, spread, others) if len(others) else _prior_items(features, centre, spread, d)


def _features(parents: Array) -> Array:
    """Return a one, and each parent's answer less one half, `(items, K + 1)`; missing ones filled."""
    seen = ~np.isnan(parents)
    mean = np.where(seen, parents, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    filled = np.where(seen, parents, np.where(seen.any(axis=0), mean, 0.5))
    return np.concatenate([np.ones((parents.shape[1], 1)), filled.T - 0.5], axis=1)


def _prior_items(features: Array, centre: Array, spread: Array, d: int) -> ItemParameters:
    return ItemParameters(
        a=features,
        b=np.zeros(len(features)),
        covariance=np.zeros((len(features), d + 1, d + 1)),
        ability_mean=centre,
        ability_precision=_inverse(spread),
        theta=np.empty((0, d)),
        theta_covariance=np.empty((0, d, d)),
    )


def _updated(features: Array, centre: Array, spread: Array, merges: Array) -> ItemParameters:
    """Return the items updated by merges: empirical Bayes, alternating between merges and items."""
    seen = ~np.isnan(merges)
    count, d = len(merges), features.shape[1]
    first, first_spread = centre, spread
    effect = np.zeros(len(features))
    ability = estimate_ability(merges, features, -effect, centre, _inverse(spread))
    for _ in range(ROUNDS):
        p = probabilities(ability.mean, features, -effect)
        slope = np.where(seen, np.nan_to_num(merges) - p, 0.0).sum(axis=0) - effect / ITEM_SD**2
        curvature = np.where(seen, p * (1.0 - p), 0.0).sum(axis=0) + 1.0 / ITEM_SD**2
        effect = effect + slope / curvature  # (items,) one Newton step: the alternation repeats it anyway
        centre = (CENTRE_MERGES * first + ability.mean.sum(axis=0)) / (CENTRE_MERGES + count)
        gap = ability.mean - centre
        scatter = gap.T @ gap + ability.covariance.sum(axis=0)
        spread = (SPREAD_MERGES * first_spread + scatter) / (SPREAD_MERGES + count)
        ability = estimate_ability(merges, features, -effect, centre, _inverse(spread))
    return ItemParameters(
        a=features,
        b=-effect,
        covariance=np.zeros((len(features), d + 1, d + 1)),
        ability_mean=centre,
        ability_precision=_inverse(spread),
        theta=ability.mean,
        theta_covariance=ability.covariance,
    )


def inherited_scores(items: ItemParameters, weights: Array, answers: Array) -> InheritedScores:
    """Return scores of merges over all items from some of their answers.

    Args:
        items: from `inheritance_items`.
        weights: of the items in the score, `(items,)`, sum 1.
        answers: `(merges, items)`, nan for unseen items, which may differ between rows.
    """
    seen = ~np.isnan(answers)
    ability = estimate_ability(answers, items.a, items.b, items.ability_mean, items.ability_precision)
    predicted = expected_probabilities(ability.mean, ability.covariance, items.a, items.b)
    estimate = np.where(seen, np.nan_to_num(answers), predicted) @ weights
    return InheritedScores(estimate, np.sqrt(score_variance(ability, items, answers, weights)))


def inheritance_covariance(items: ItemParameters, rng: np.random.Generator) -> ItemCovariance:
    """Return the covariance of the answers of merges under the prior over merges.

    Args:
        items: from `inheritance_items`.
        rng: draws coefficients of merges.
    """
    root = np.linalg.cholesky(_inverse(items.ability_precision))
    theta = items.ability_mean + rng.standard_normal((DRAWS, items.d)) @ root.T
    p = probabilities(theta, items.a, items.b)
    mean = p.mean(axis=0)
    return ItemCovariance(mean, (p - mean) / np.sqrt(DRAWS), np.maximum((p * (1.0 - p)).mean(axis=0), 1e-3))


def informative_items(items: ItemParameters, weights: Array, n: int, rng: np.random.Generator) -> IntArray:
    """Return the `n` items that are together most informative about a merge's score, `(n,)` distinct indices.

    Each lowers the expected variance of the score most, given those before. Items with the same parents' answers tie;
    chance decides, not their order in the file.

    Args:
        items: from `inheritance_items`.
        weights: of the items in the score, `(items,)`, sum 1.
        n: how many, 1 to the number of items.
        rng: draws coefficients, and breaks ties.
    """
    order = rng.permutation(len(weights))  # shuffled, so that argmax breaks ties by chance
    covariance = inheritance_covariance(items, rng)
    shuffled = ItemCovariance(covariance.mean[order], covariance.factors[:, order], covariance.noise[order])
    return order[greedy_items(shuffled, weights[order], n)]


def inherited_mean(items: ItemParameters) -> Array:
    """Return the prior probability that a merge answers right, `(items,)`: the `h` of the difference estimator."""
    spread = _inverse(items.ability_precision)
    return expected_probabilities(items.ability_mean[None], spread[None], items.a, items.b)[0]


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
