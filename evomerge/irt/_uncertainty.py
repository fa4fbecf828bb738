"""Uncertainty of an estimate: model-based variance, and a conformal correction from held-out models."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import norm, t

from evomerge.irt._ability import Ability
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._curves import Array, logits

# With fewer held-out models, a t interval with a shrunken variance replaces the quantile of their errors.
QUANTILE_MODELS = 20
# The model-based variance counts as this many held-out models.
PRIOR_MODELS = 20.0


def score_variance(ability: Ability, items: ItemParameters, answers: Array, weights: Array) -> Array:
    """Return the variance of the p-IRT estimate, `(models,)`.

    Three parts: variance of the unseen answers, `sum w^2 p (1 - p)`; error of the ability, `g' Sigma g` with
    `g = sum w p (1 - p) a` over the unseen; and error of the item parameters, by the delta method through both the
    predictions for unseen items and the effect of seen items on the ability.

    Args:
        ability: posterior given `answers`.
        items: parameters with their posterior covariances.
        answers: nan where not seen, `(models, items)`.
        weights: `(items,)`, sum 1.
    """
    theta, sigma = ability.mean, ability.covariance
    seen = ~np.isnan(answers)
    p = expit(logits(theta, items.a, items.b))
    pq = p * (1.0 - p)
    rest = np.where(seen, 0.0, weights)
    chance = (rest**2 * pq).sum(axis=1)
    g = (rest * pq) @ items.a  # (models, d)
    pull = np.einsum("mde,me->md", sigma, g)
    of_ability = (g * pull).sum(axis=1)
    # Derivative of the estimate by (a_j, b_j). Unseen: w p(1-p) (theta, -1). Seen: through the ability, pull' D_j with
    # D_j = [(y - p) I - p(1-p) a_j theta', p(1-p) a_j].
    along = pull @ items.a.T  # (models, items): pull' a_j
    miss = np.where(seen, np.nan_to_num(answers) - p, 0.0)
    by_a = np.where(seen, -pq * along, rest * pq)[:, :, None] * theta[:, None, :] + miss[:, :, None] * pull[:, None, :]
    by_b = np.where(seen, pq * along, -rest * pq)
    slope = np.concatenate([by_a, by_b[:, :, None]], axis=2)  # (models, items, d + 1)
    of_items = np.einsum("mnk,nkl,mnl->m", slope, items.covariance, slope, optimize=True)
    return chance + of_ability + of_items


def raw_variance(answers: Array, items: int) -> Array:
    """Return the variance of a plain mean of `n` random items out of `items`, `(models,)`.

    `(1 - n/N) s^2 / n`, with s^2 shrunk to 1/4 by one item on either side, so that all right does not mean no error.

    Args:
        answers: `(models, n)`.
        items: N, the items the estimate speaks for.
    """
    n = answers.shape[1]
    mean = (answers.sum(axis=1) + 1.0) / (n + 2.0)
    square = ((answers**2).sum(axis=1) + 1.0) / (n + 2.0)
    return (1.0 - n / items) * np.maximum(square - mean**2, 0.0) / n


def conformal_factor(errors: Array, sds: Array, level: float = 0.9) -> float:
    """Return the factor on standard errors with which normal intervals cover held-out models at `level`.

    With `QUANTILE_MODELS` or more held-out models: the finite-sample quantile of |error| / sd over the normal one
    (split conformal prediction). With fewer there is no such quantile: the mean square of error / sd, shrunk to 1, with
    a t interval for the few degrees of freedom.

    Args:
        errors: estimate minus truth on models that were not used in the fit, `(models,)`.
        sds: their standard errors, positive.
        level: nominal coverage, in (0, 1).

    Source: Lei et al. 2018, "Distribution-free predictive inference for regression", arXiv:1604.04173.
    """
    normal = float(norm.ppf(0.5 + level / 2.0))
    count = len(errors)
    if count == 0:
        return float(t.ppf(0.5 + level / 2.0, PRIOR_MODELS)) / normal
    ratio = np.abs(errors) / np.maximum(sds, 1e-12)
    rank = int(np.ceil((count + 1) * level))  # finite-sample rank of split conformal prediction
    if count < QUANTILE_MODELS or rank > count:
        degrees = PRIOR_MODELS + count
        square = (PRIOR_MODELS + float((ratio**2).sum())) / degrees
        return float(np.sqrt(square) * t.ppf(0.5 + level / 2.0, degrees)) / normal
    return float(np.sort(ratio)[rank - 1]) / normal


def interval(estimate: Array, sd: Array, level: float = 0.9) -> tuple[Array, Array]:
    """Return low and high ends of normal intervals, cut to [0, 1]; `sd` already carries the conformal factor."""
    half = float(norm.ppf(0.5 + level / 2.0)) * sd
    return np.clip(estimate - half, 0.0, 1.0), np.clip(estimate + half, 0.0, 1.0)
