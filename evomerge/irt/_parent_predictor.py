"""What the parents of a merge say about it: mp-IRT, and the item-level parent predictor.

The parents answered every item in full once, so each merge starts with a guess for every item. Near a parent's
ability and
with the parents' own odd answers, a handful of items is enough (up to three times less error than without parents at
10 items).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.irt._ability import Ability, estimate_ability
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._curves import Array, IntArray, log_likelihood, logits, probabilities
from evomerge.irt._performance import p_irt
from evomerge.irt._uncertainty import score_variance

# Spread of a merge's ability around its parents' mean, per dimension, in population standard deviations. From 0.3 to
# 0.5 the error on real merges is the same; the wider one's nominal 90% intervals covered 98%.
ABILITY_SD = 0.35
# Logits by which the mean surprise of the parents (answer minus probability, in [-1, 1]) moves a merge's odds.
# Between 2 and 5 the error on real merges hardly changes.
INHERITANCE = 3.0
# Prior of the mixing weights of mp-IRT: normal around 1/K with this standard deviation. Without it near-collinear
# parents get
# huge opposite weights, and the estimate is worse than plain p-IRT.
MIXING_SD = 0.5
# Natural-log evidence by which answers must favour "no relation to these parents" before the parents are dropped.
REFUSAL = 2.0


@dataclass(frozen=True)
class MergeEstimate:
    """Estimates for merges from some of their answers and all of their parents'."""

    estimate: Array  # (models,)
    sd: Array  # (models,)
    trusted: Array  # (models,) bool: False where the answers contradict the parents, and plain p-IRT was used


def _family(parents: Array, items: ItemParameters) -> tuple[Array, Array, Array]:
    """Return the parents' mean ability, its variance among them, `(d,)` each, and their mean surprise, `(items,)`."""
    ability = estimate_ability(parents, items.a, items.b, items.ability_mean, items.ability_precision)
    surprise = parents - probabilities(ability.mean, items.a, items.b)
    seen = ~np.isnan(surprise)
    mean = np.where(seen, surprise, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return ability.mean.mean(axis=0), ability.mean.var(axis=0), mean


def estimate_merges(
    items: ItemParameters, weights: Array, chosen: IntArray, answers: Array, parents: Sequence[Array]
) -> MergeEstimate:
    """Return scores of merges: abilities centred on the parents', odds moved by the parents' surprises.

    Args:
        items: calibrated items.
        weights: `(items,)`, sum 1.
        chosen: answered items, `(n,)`.
        answers: of the merges to them, `(models, n)`.
        parents: per merge the complete answers of its parents, `(parents, items)`, nan where missing.
    """
    estimate, sd, trusted = (np.empty(len(answers)) for _ in range(3))
    scale = np.diag(np.linalg.inv(items.ability_precision)) if len(items.theta) < 2 else items.theta.var(axis=0) + 1e-6
    for k, (row, known) in enumerate(zip(answers, parents, strict=True)):
        centre, among, surprise = _family(known, items)
        # Mixing weights uniform on the simplex: between experts with skills of their own there is much room.
        between = among / (len(known) + 1.0)
        tight = np.diag(1.0 / (ABILITY_SD**2 * np.maximum(scale, 1e-2) + between))
        with_parents = _posterior(items, INHERITANCE * surprise, chosen, row, centre, tight)
        alone = _posterior(items, np.zeros(len(weights)), chosen, row, items.ability_mean, items.ability_precision)
        trusted[k] = with_parents.evidence >= alone.evidence - REFUSAL
        best = with_parents if trusted[k] else alone
        estimate[k] = p_irt(row[None], best.predicted[None], weights, chosen)[0]
        seen = np.full((1, len(weights)), np.nan)
        seen[0, chosen] = row
        shifted = ItemParameters(
            items.a, items.b - best.shift, items.covariance, centre, tight, items.theta, items.theta_covariance
        )
        sd[k] = np.sqrt(score_variance(best.ability, shifted, seen, weights)[0])
    return MergeEstimate(estimate, sd, trusted.astype(bool))


@dataclass(frozen=True)
class _Posterior:
    ability: Ability
    shift: Array  # (items,)
    predicted: Array  # (items,)
    evidence: float  # log marginal likelihood of the answers, Laplace approximation


def _posterior(
    items: ItemParameters, shift: Array, chosen: IntArray, answers: Array, centre: Array, precision: Array
) -> _Posterior:
    b = items.b - shift
    ability = estimate_ability(answers[None], items.a[chosen], b[chosen], centre, precision)
    gap = ability.mean[0] - centre
    fit = log_likelihood(answers[None], logits(ability.mean, items.a[chosen], b[chosen])).sum()
    evidence = fit - 0.5 * gap @ precision @ gap
    evidence += 0.5 * (np.linalg.slogdet(ability.covariance[0])[1] + np.linalg.slogdet(precision)[1])
    return _Posterior(ability, shift, probabilities(ability.mean, items.a, b)[0], float(evidence))


def mix_abilities(
    answers: Array, items: ItemParameters, chosen: IntArray, endpoints: Array, prior_sd: float | None = MIXING_SD
) -> Array:
    """Return the abilities `sum_k lambda_k theta_k` that explain some answers best, `(models, d)`.

    Args:
        answers: to the chosen items, `(models, n)`.
        items: calibrated items.
        chosen: answered items, `(n,)`.
        endpoints: abilities of the parents, `(K, d)`, from their complete answers.
        prior_sd: of each mixing weight around 1/K; None for none (then with d = 1 this is p-IRT without a prior, and
            a tiny ridge stands in for what the answers leave open).

    Source: mp-IRT of Mencattini et al. 2025, "MERGE^3", arXiv:2502.10436; the prior is ours.
    """
    count = len(endpoints)
    sd = 1e3 if prior_sd is None else prior_sd
    mixed = items.a[chosen] @ endpoints.T  # (n, K): the mixing weights are abilities of these items
    weights = estimate_ability(answers, mixed, items.b[chosen], np.full(count, 1.0 / count), sd**-2.0)
    return weights.mean @ endpoints
