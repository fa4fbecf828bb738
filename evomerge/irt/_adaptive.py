"""Adaptive testing: each next item is the one most informative about the score, given the answers so far.

The prior of a new model's ability is a set of weighted *particles*: abilities of calibration models, and a few from a
wider distribution. A discrete prior needs no normal approximation after few answers, keeps the shape of the real
population, and makes the gain of every item exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.irt._ability import estimate_ability
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._curves import Array, IntArray, expected_probabilities, probabilities
from evomerge.irt._uncertainty import score_variance

PARTICLES = 1000
# A search leaves its calibration population, so this fraction of the particles is drawn from a normal distribution that
# many times wider.
WIDE_FRACTION = 0.05
WIDE_SCALE = 2.0
# Below this many effective particles the normal approximation around the most probable ability is the better posterior.
MIN_EFFECTIVE = 5.0
# Probabilities keep this distance from 0 and 1, so that no single surprising answer decides alone.
LAPSE = 1e-3
VARIANCE_FLOOR = 1e-9


@dataclass(frozen=True)
class Population:
    """Prior of a new model's ability as weighted particles, with the answers that each predicts."""

    parameters: ItemParameters
    weights: Array  # (items,) of the items in the score, sum 1
    theta: Array  # (G, d)
    log_prior: Array  # (G,)
    right: Array  # (G, items): probabilities of a right answer
    log_odds: Array  # (G, items)
    log_wrong: Array  # (G, items): log-probabilities of a wrong answer


def population(parameters: ItemParameters, weights: Array, rng: np.random.Generator) -> Population:
    """Return the prior for new models: abilities of the calibration models with their errors, plus a wider normal.

    Args:
        parameters: calibrated items.
        weights: of the items in the score, `(items,)`, sum 1.
        rng: draws the models and their errors.
    """
    models, d = parameters.theta.shape
    wide = int(PARTICLES * WIDE_FRACTION)
    near = PARTICLES - wide
    # every model equally often, the remainder without replacement
    pick = np.concatenate([np.tile(np.arange(models), near // models), rng.permutation(models)[: near % models]])
    noise = np.einsum(
        "gde,ge->gd", np.linalg.cholesky(parameters.theta_covariance[pick]), rng.standard_normal((near, d))
    )
    centre = parameters.theta.mean(axis=0)
    scale = np.linalg.cholesky(np.atleast_2d(np.cov(parameters.theta.T, bias=True)) + np.eye(d) * 1e-6)
    far = centre + WIDE_SCALE * rng.standard_normal((wide, d)) @ scale.T
    theta = np.concatenate([parameters.theta[pick] + noise, far])
    right = np.clip(probabilities(theta, parameters.a, parameters.b), LAPSE, 1.0 - LAPSE)
    return Population(
        parameters,
        weights,
        theta,
        np.full(PARTICLES, -np.log(PARTICLES)),
        right,
        np.log(right) - np.log1p(-right),
        np.log1p(-right),
    )


def log_posterior(prior: Population, answers: Array) -> Array:
    """Return the unnormalised log posterior of every particle, `(models, G)`.

    Args:
        people: prior.
        answers: in [0, 1], nan where unseen, `(models, items)`.
    """
    seen = ~np.isnan(answers)
    return prior.log_prior + np.where(seen, answers, 0.0) @ prior.log_odds.T + seen @ prior.log_wrong.T


def posterior_weights(log: Array) -> Array:
    """Return weights proportional to `exp(log)`, each row summing to 1."""
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def next_items(prior: Population, answers: Array, allowed: Array, batch: int, log: Array | None = None) -> IntArray:
    """Return the next items, `(models, batch)`, in order of choice.

    Each lowers the variance of the unseen part U of the score most: by `cov(U, y_j)^2 / (p_j (1 - p_j))`, with p_j
    averaged over the posterior, and the item's own variance, `w_j p_j (1 - p_j)`, in the covariance. Within a batch no
    answers arrive, so the covariances are updated by the expected effect of each item.

    Args:
        people: prior.
        answers: in [0, 1], nan where unseen, `(models, items)`.
        allowed: items that may be chosen, bool `(models, items)`; at least `batch` unseen ones in every row.
        batch: items per model.
        log: `log_posterior(prior, answers)` if the caller has it.
    """
    weight = posterior_weights(log_posterior(prior, answers) if log is None else log)
    p = weight @ prior.right  # (models, items)
    unseen = np.where(np.isnan(answers), prior.weights, 0.0) @ prior.right.T  # (models, G): expected unseen score
    variance = p * (1.0 - p)
    weighted = weight * unseen
    with_score = weighted @ prior.right - p * weighted.sum(axis=1, keepdims=True) + prior.weights * variance
    free = allowed & np.isnan(answers)
    every = np.arange(len(p))
    out = np.empty((len(p), batch), dtype=int)
    batch_so_far: list[tuple[Array, Array]] = []  # covariance of each chosen item with all, and its variance
    for k in range(batch):
        item = np.where(free, with_score**2 / variance, -1.0).argmax(axis=1)
        out[:, k] = item
        free[every, item] = False
        if k + 1 == batch:
            break
        deviation = prior.right[:, item].T - p[every, item][:, None]  # (models, G)
        with_item = (weight * deviation) @ prior.right
        for earlier, earlier_variance in batch_so_far:
            with_item = with_item - earlier * (earlier[every, item] / earlier_variance)[:, None]
        scale = np.maximum(variance[every, item], VARIANCE_FLOOR)
        batch_so_far.append((with_item, scale))
        with_score = with_score - with_item * (with_score[every, item] / scale)[:, None]
        variance = np.maximum(variance - with_item**2 / scale[:, None], VARIANCE_FLOOR)
    return out


@dataclass(frozen=True)
class ScorePosterior:
    """Posterior of the score of several models."""

    mean: Array  # (models,)
    sd: Array  # (models,)


def score_posterior(prior: Population, answers: Array) -> ScorePosterior:
    """Return the posterior of the score over all items, given some answers.

    Args:
        people: prior.
        answers: in [0, 1], nan where unseen, `(models, items)`.
    """
    seen = ~np.isnan(answers)
    y = np.where(seen, answers, 0.0)
    w = prior.weights
    rest = np.where(seen, 0.0, w)  # (models, items)
    weight = posterior_weights(log_posterior(prior, answers))
    p = weight @ prior.right
    mean = y @ w + (rest * p).sum(axis=1)
    unseen = prior.right @ rest.T  # (G, models)
    first = (weight.T * unseen).sum(axis=0)
    spread = np.maximum((weight.T * unseen**2).sum(axis=0) - first**2, 0.0)
    inner = ((rest**2) * (weight @ (prior.right * (1.0 - prior.right)))).sum(axis=1)
    variance = spread + inner  # law of total variance: between particles, and of the answers within one
    thin = 1.0 / (weight**2).sum(axis=1) < MIN_EFFECTIVE  # effective sample size (Kish)
    if thin.any():
        items = prior.parameters
        ability = estimate_ability(answers[thin], items.a, items.b, items.ability_mean, items.ability_precision)
        predicted = expected_probabilities(ability.mean, ability.covariance, items.a, items.b)
        mean[thin] = 0.5 * mean[thin] + 0.5 * (y[thin] @ w + (rest[thin] * predicted).sum(axis=1))
        normal = score_variance(ability, items, answers[thin], w)
        variance[thin] = np.maximum(variance[thin], normal)
    return ScorePosterior(mean, np.sqrt(variance))


def adaptive_test(prior: Population, complete: Array, n: int, batch: int = 1, core: IntArray | None = None) -> Array:
    """Return the answers that an adaptive test of `n` items would have seen, nan elsewhere, `(models, items)`.

    Args:
        people: prior.
        complete: answers to all items, `(models, items)`; nan for items that a model cannot answer.
        n: items per model in total, at most the number that it can answer.
        batch: items chosen at once; larger batches use an accelerator better and adapt less.
        core: items that every model answers first. Random ones keep comparisons between models paired and unbiased.
    """
    seen = np.full_like(complete, np.nan)
    allowed = ~np.isnan(complete)
    answered = 0
    if core is not None and len(core):
        core = core[:n]
        seen[:, core] = complete[:, core]
        answered = len(core)
    every = np.arange(len(complete))[:, None]
    log = log_posterior(prior, seen)
    while answered < n:
        take = min(batch, n - answered)
        items = next_items(prior, seen, allowed, take, log)
        answers = complete[every, items]  # (models, take)
        seen[every, items] = answers
        for k in range(take):  # Bayes' rule, one answer at a time: the next batch needs no sum over all items
            log += answers[:, k, None] * prior.log_odds[:, items[:, k]].T + prior.log_wrong[:, items[:, k]].T
        answered += take
    return seen
