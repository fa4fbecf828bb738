"""mp-IRT: predict a merge's score from a few of its answers and the full answers of its parents.

The parents answered every item, so each merge starts with a prediction for every item: an ability near the parents',
and their surprising answers. A handful of items is then enough (up to three times less error than without parents at
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
# Shift of a merge's log-odds per unit of the parents' mean surprise (answer minus probability, in [-1, 1]). The error
# on real merges hardly changes between 2 and 5.
INHERITANCE = 3.0
# Log Bayes factor for "unrelated to these parents" above which the parents are ignored.
REFUSAL = 2.0


@dataclass(frozen=True)
class MergeEstimate:
    """Estimates for merges from some of their answers and all of their parents'."""

    estimate: Array  # (models,)
    sd: Array  # (models,)
    trusted: Array  # (models,) bool: False if the answers contradict the parents and plain p-IRT was used


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

    Source: after mp-IRT of Mencattini et al. 2025, "MERGE^3", arXiv:2502.10436; priors instead of mixtures are ours.
    """
    estimate, sd, trusted = (np.empty(len(answers)) for _ in range(3))
    scale = np.diag(np.linalg.inv(items.ability_precision)) if len(items.theta) < 2 else items.theta.var(axis=0) + 1e-6
    for k, (row, known) in enumerate(zip(answers, parents, strict=True)):
        centre, among, surprise = _family(known, items)
        # Variance of a mixture with weights uniform on the simplex: large between experts of different skills.
        between = among / (len(known) + 1.0)
        tight = np.diag(1.0 / (ABILITY_SD**2 * np.maximum(scale, 1e-2) + between))
        with_parents = _posterior(items, INHERITANCE * surprise, chosen, row, centre, tight)
        alone = _posterior(items, np.zeros(len(weights)), chosen, row, items.ability_mean, items.ability_precision)
        trusted[k] = with_parents.evidence >= alone.evidence - REFUSAL
        best = with_parents if trusted[k] else alone
        estimate[k] = p_irt(row[None], best.predicted[None], weights, chosen)[0]
        seen = np.full((1, len(weights)), np.nan)  # (1, items)
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
    gap = ability.mean[0] - centre  # (d,)
    fit = log_likelihood(answers[None], logits(ability.mean, items.a[chosen], b[chosen])).sum()
    evidence = fit - 0.5 * gap @ precision @ gap
    evidence += 0.5 * (np.linalg.slogdet(ability.covariance[0])[1] + np.linalg.slogdet(precision)[1])
    return _Posterior(ability, shift, probabilities(ability.mean, items.a, b)[0], float(evidence))
