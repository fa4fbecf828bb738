"""Every static estimator on every choice of items, in one place, so that left-out models can judge between them.

A *recipe* `(method, design)` says how the score is read and how the items are chosen. A *calibration* is all that the
calibration models teach. A *reading* is an estimate with its model-based standard error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evomerge.irt.ability import estimate_ability
from evomerge.irt.anchors import cluster_anchors, correctness_features, random_items, stratified_items
from evomerge.irt.calibrate import ItemParameters
from evomerge.irt.covariance import ItemCovariance, greedy_items, linear_readout, shrunk_covariance
from evomerge.irt.curves import Array, IntArray, probabilities
from evomerge.irt.ladder import NEAR, Rung
from evomerge.irt.performance import anchor_mean, difference, p_irt
from evomerge.irt.uncertainty import raw_variance, score_variance


class Recipe(NamedTuple):
    """How the score is read, and how the items are chosen."""

    method: str  # raw, anchor, p-irt, gp-irt, difference, linear
    design: str  # random, stratified, clusters, greedy


RAW = Recipe("raw", "random")
RAW_STRATIFIED = Recipe("raw", "stratified")
P_STRATIFIED = Recipe("p-irt", "stratified")
DIFFERENCE_STRATIFIED = Recipe("difference", "stratified")
P_GREEDY = Recipe("p-irt", "greedy")
LINEAR = Recipe("linear", "greedy")
ANCHOR = Recipe("anchor", "clusters")
P_CLUSTERS = Recipe("p-irt", "clusters")
DIFFERENCE_CLUSTERS = Recipe("difference", "clusters")
GP_GREEDY = Recipe("gp-irt", "greedy")
GP_CLUSTERS = Recipe("gp-irt", "clusters")
# gp-IRT mixes a weighted mean of the answers with p-IRT: on greedy items the weights are the linear slopes.
MIXTURES = {GP_GREEDY: (LINEAR, P_GREEDY), GP_CLUSTERS: (ANCHOR, P_CLUSTERS)}
# Two items with the same answers from every calibration model cannot be told apart by clustering.
DESIGNS = ("random", "stratified", "clusters", "greedy")


@dataclass(frozen=True)
class Calibration:
    """What the calibration models teach about the items."""

    responses: Array  # (models, items), nan where missing; no models where only parameters were imported
    weights: Array  # (items,), sum 1
    items: ItemParameters
    covariance: ItemCovariance
    easiness: Array  # (items,): mean answer


@dataclass(frozen=True)
class Reading:
    """Estimates with model-based standard errors, before any conformal correction."""

    estimate: Array  # (models,)
    sd: Array  # (models,)


def learn(responses: Array, weights: Array, rung: Rung, items: ItemParameters | None = None) -> Calibration:
    """Return what a response table teaches.

    Args:
        responses: `(models, items)`, nan where missing.
        weights: of the items in the score, `(items,)`, sum 1.
        rung: item structure to fit.
        items: parameters of the same table where they are known already.
    """
    fitted = rung.fit(responses) if items is None else items
    one = fitted if rung == NEAR else NEAR.fit(responses)
    covariance = shrunk_covariance(responses, one)
    return Calibration(responses, weights, fitted, covariance, covariance.mean)


def population_scores(calibration: Calibration) -> Array:
    """Return the scores of the calibration models that answered every item, `(models,)`."""
    complete = ~np.isnan(calibration.responses).any(axis=1)
    return calibration.responses[complete] @ calibration.weights


def restrict(calibration: Calibration, columns: IntArray) -> Calibration:
    """Return a calibration for some of the items, their weights scaled to sum 1."""
    p, c = calibration.items, calibration.covariance
    weights = calibration.weights[columns]
    parameters = ItemParameters(
        p.a[columns],
        p.b[columns],
        p.covariance[columns],
        p.ability_mean,
        p.ability_precision,
        p.theta,
        p.theta_covariance,
    )
    return Calibration(
        calibration.responses[:, columns],
        weights / weights.sum(),
        parameters,
        ItemCovariance(c.mean[columns], c.factors[:, columns], c.noise[columns]),
        calibration.easiness[columns],
    )


def choose_items(calibration: Calibration, design: str, n: int, rng: np.random.Generator) -> tuple[IntArray, Array]:
    """Return the items that every model answers, `(n,)`, and the share of the score each stands for, `(n,)`.

    Args:
        calibration: what is known of the items.
        design: one of `DESIGNS`.
        n: how many, 1 to the number of items.
        rng: chance; `greedy` uses none.
    """
    weights = calibration.weights
    if design == "clusters":
        return cluster_anchors(correctness_features(calibration.responses, rng), weights, n, rng)
    if design == "greedy":
        chosen = greedy_items(calibration.covariance, weights, n)
    elif design == "stratified":
        chosen = stratified_items(calibration.easiness, n, rng)
    else:
        chosen = random_items(len(weights), n, rng)
    share = weights[chosen]
    return chosen, share / share.sum() if share.sum() > 0.0 else np.full(n, 1.0 / n)


def read(calibration: Calibration, method: str, chosen: IntArray, shares: Array, answers: Array) -> Reading:
    """Return estimates of the score from the answers to the chosen items.

    Args:
        calibration: what is known of the items.
        method: `raw`, `anchor`, `p-irt`, `difference` or `linear`.
        chosen: indices of the answered items, `(n,)`.
        shares: of the score that each stands for, `(n,)`, sum 1.
        answers: to the chosen items, `(models, n)`.
    """
    weights, items = calibration.weights, calibration.items
    # Unequal shares answer for fewer items than there are.
    spread = float((shares**2).sum() * len(shares))
    if method in ("raw", "anchor"):
        return Reading(anchor_mean(answers, shares), np.sqrt(raw_variance(answers, len(weights)) * spread))
    if method == "linear":
        line = linear_readout(calibration.covariance, weights, chosen)
        estimate = np.clip(line.intercept + answers @ line.slopes, 0.0, 1.0)
        return Reading(estimate, np.full(len(answers), np.sqrt(line.variance)))
    ability = estimate_ability(answers, items.a[chosen], items.b[chosen], items.ability_mean, items.ability_precision)
    predicted = probabilities(ability.mean, items.a, items.b)
    if method == "difference":
        estimate = np.clip(difference(answers, predicted, weights, chosen, shares), 0.0, 1.0)
        p = predicted[:, chosen]
        miss = (((answers - p) ** 2).sum(axis=1) + (p * (1.0 - p)).mean(axis=1)) / (len(chosen) + 1.0)
        left = 1.0 - len(chosen) / len(weights)
        return Reading(estimate, np.sqrt(left * miss * spread / len(chosen)))
    seen = np.full((len(answers), len(weights)), np.nan)
    seen[:, chosen] = answers
    estimate = p_irt(answers, predicted, weights, chosen)
    return Reading(estimate, np.sqrt(score_variance(ability, items, seen, weights)))


def mix(first: Reading, second: Reading, share: float) -> Reading:
    """Return `share` of the first reading and the rest of the second; errors are taken as fully correlated."""
    return Reading(
        share * first.estimate + (1.0 - share) * second.estimate, share * first.sd + (1.0 - share) * second.sd
    )
