"""Every static estimator with every item design, in one place, so that cross-validation can compare them.

An *estimator spec* `(method, design)` names how the score is estimated and how the items are chosen. A *calibration*
holds everything fitted to the calibration models. A *score estimate* carries its model-based standard error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evomerge.irt._ability import estimate_ability
from evomerge.irt._anchors import cluster_anchors, correctness_features, random_items, stratified_items
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._covariance import ItemCovariance, greedy_items, linear_readout, shrunk_covariance
from evomerge.irt._curves import Array, IntArray, probabilities
from evomerge.irt._model_selection import NEAR_RASCH_SPEC, IRTModelSpec
from evomerge.irt._performance import anchor_mean, difference, p_irt
from evomerge.irt._uncertainty import raw_variance, score_variance


class EstimatorSpec(NamedTuple):
    """How the score is estimated, and how the items are chosen."""

    method: str  # raw, anchor, p-irt, gp-irt, difference, linear
    design: str  # random, stratified, clusters, greedy


RAW = EstimatorSpec("raw", "random")
RAW_STRATIFIED = EstimatorSpec("raw", "stratified")
P_STRATIFIED = EstimatorSpec("p-irt", "stratified")
DIFFERENCE_STRATIFIED = EstimatorSpec("difference", "stratified")
P_GREEDY = EstimatorSpec("p-irt", "greedy")
LINEAR = EstimatorSpec("linear", "greedy")
ANCHOR = EstimatorSpec("anchor", "clusters")
P_CLUSTERS = EstimatorSpec("p-irt", "clusters")
DIFFERENCE_CLUSTERS = EstimatorSpec("difference", "clusters")
GP_GREEDY = EstimatorSpec("gp-irt", "greedy")
GP_CLUSTERS = EstimatorSpec("gp-irt", "clusters")
# gp-IRT mixes a weighted mean of the answers with p-IRT: on greedy items the weights are the linear slopes.
MIXTURES = {GP_GREEDY: (LINEAR, P_GREEDY), GP_CLUSTERS: (ANCHOR, P_CLUSTERS)}
# Clustering cannot distinguish items with the same answers from every calibration model.
DESIGNS = ("random", "stratified", "clusters", "greedy")


@dataclass(frozen=True)
class Calibration:
    """Everything fitted to the answers of the calibration models."""

    responses: Array  # (models, items), nan where missing; no models where only parameters were imported
    weights: Array  # (items,), sum 1
    items: ItemParameters
    covariance: ItemCovariance
    easiness: Array  # (items,): mean answer


@dataclass(frozen=True)
class ScoreEstimate:
    """Estimates with model-based standard errors, before any conformal correction."""

    estimate: Array  # (models,)
    sd: Array  # (models,)


def fit_calibration(
    responses: Array, weights: Array, spec: IRTModelSpec, items: ItemParameters | None = None
) -> Calibration:
    """Return the calibration of a response table.

    Args:
        responses: `(models, items)`, nan where missing.
        weights: of the items in the score, `(items,)`, sum 1.
        spec: IRT model to fit.
        items: parameters fitted to the same table earlier; None: fit them now.
    """
    fitted = spec.fit(responses) if items is None else items
    one = fitted if spec == NEAR_RASCH_SPEC else NEAR_RASCH_SPEC.fit(responses)
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
    """Return the items that every model answers, `(n,)`, and their anchor weights, `(n,)` with sum 1.

    Args:
        calibration: of the items.
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
    kept = weights[chosen]
    return chosen, kept / kept.sum() if kept.sum() > 0.0 else np.full(n, 1.0 / n)


def estimate_scores(
    calibration: Calibration, method: str, chosen: IntArray, anchor_weights: Array, answers: Array
) -> ScoreEstimate:
    """Return estimates of the score from the answers to the chosen items.

    Args:
        calibration: of the items.
        method: `raw`, `anchor`, `p-irt`, `difference` or `linear`.
        chosen: indices of the answered items, `(n,)`.
        anchor_weights: fraction of the score that each item stands for, `(n,)`, sum 1.
        answers: to the chosen items, `(models, n)`.
    """
    weights, items = calibration.weights, calibration.items
    # Unequal weights reduce the effective number of items (Kish): the variance grows by n * sum w^2.
    spread = float((anchor_weights**2).sum() * len(anchor_weights))
    if method in ("raw", "anchor"):
        return ScoreEstimate(
            anchor_mean(answers, anchor_weights), np.sqrt(raw_variance(answers, len(weights)) * spread)
        )
    if method == "linear":
        line = linear_readout(calibration.covariance, weights, chosen)
        estimate = np.clip(line.intercept + answers @ line.slopes, 0.0, 1.0)
        return ScoreEstimate(estimate, np.full(len(answers), np.sqrt(line.variance)))
    ability = estimate_ability(answers, items.a[chosen], items.b[chosen], items.ability_mean, items.ability_precision)
    predicted = probabilities(ability.mean, items.a, items.b)
    if method == "difference":
        estimate = np.clip(difference(answers, predicted, weights, chosen, anchor_weights), 0.0, 1.0)
        p = predicted[:, chosen]
        miss = (((answers - p) ** 2).sum(axis=1) + (p * (1.0 - p)).mean(axis=1)) / (len(chosen) + 1.0)
        left = 1.0 - len(chosen) / len(weights)
        return ScoreEstimate(estimate, np.sqrt(left * miss * spread / len(chosen)))
    seen = np.full((len(answers), len(weights)), np.nan)
    seen[:, chosen] = answers
    estimate = p_irt(answers, predicted, weights, chosen)
    return ScoreEstimate(estimate, np.sqrt(score_variance(ability, items, seen, weights)))


def mix(first: ScoreEstimate, second: ScoreEstimate, fraction: float) -> ScoreEstimate:
    """Return `fraction * first + (1 - fraction) * second`; their errors are taken as fully correlated."""
    return ScoreEstimate(
        fraction * first.estimate + (1.0 - fraction) * second.estimate,
        fraction * first.sd + (1.0 - fraction) * second.sd,
    )
