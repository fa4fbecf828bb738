"""Covariance of the answers to different items over models: a sample covariance shrunk to a one-factor model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._curves import Array, IntArray, probabilities

# The sample covariance gets the weight M / (M + this). With 8 to 1000 calibration models of three tables this did as
# well as or better than the intensity of Ledoit and Wolf (2004), whose estimate is noise below 100 models.
TARGET_MODELS = 50.0
# Variances of single items are shrunk to the Bernoulli value with this many pseudo-models.
VARIANCE_MODELS = 30.0
# Smallest variance of an item that no other item explains; keeps the greedy choice well conditioned.
NOISE_FLOOR = 0.01
MAX_FACTORS = 300
NODES = 41


@dataclass(frozen=True)
class ItemCovariance:
    """Population of answers: `y_j = mean_j + factors[:, j] . u + e_j`, u ~ N(0, I), e_j ~ N(0, noise_j)."""

    mean: Array  # (items,)
    factors: Array  # (r, items)
    noise: Array  # (items,) variances, positive


def _sample_factors(centred: Array, models: int) -> Array:
    """Return F with F'F = centred' centred / (models - 1), at most `MAX_FACTORS` rows (the leading ones)."""
    scaled = centred / np.sqrt(max(models - 1, 1))
    if len(scaled) <= MAX_FACTORS:
        return scaled
    if scaled.shape[1] <= len(scaled):
        values, vectors = np.linalg.eigh(scaled.T @ scaled)
        keep = values[::-1][:MAX_FACTORS] > 0.0
        return np.sqrt(values[::-1][:MAX_FACTORS][keep])[:, None] * vectors[:, ::-1][:, :MAX_FACTORS][:, keep].T
    _, vectors = np.linalg.eigh(scaled @ scaled.T)
    return vectors[:, ::-1][:, :MAX_FACTORS].T @ scaled


def shrunk_covariance(responses: Array, one_factor: ItemParameters) -> ItemCovariance:
    """Return the covariance of the items over the population that the calibration models came from.

    Args:
        responses: answers in [0, 1], nan where missing, `(models, items)`. A missing answer counts as that item's mean.
        one_factor: a fit with d = 1 of the same table; its implied covariance is the target of the shrinkage.

    Returns:
        Factors and noise; positive definite also for one model, constant items or duplicated models.
    """
    seen = ~np.isnan(responses)
    models = len(responses)
    count = seen.sum(axis=0)
    mean = np.where(seen, responses, 0.0).sum(axis=0) / np.maximum(count, 1)
    mean = np.where(count > 0, mean, 0.5)
    centred = np.where(seen, responses - mean, 0.0)
    trust = models / (models + TARGET_MODELS)  # weight of the sample covariance
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    spread = float(np.sqrt(one_factor.theta.var() + np.mean(1.0 / one_factor.ability_precision) * (models < 2)))
    curve = probabilities(float(one_factor.theta.mean()) + spread * nodes[:, None], one_factor.a, one_factor.b)
    implied = np.sqrt(weights)[:, None] * (curve - weights @ curve)
    factors = np.concatenate(
        [np.sqrt(trust) * _sample_factors(centred, models), np.sqrt(1.0 - trust) * _compact(implied)]
    )
    sample = (centred**2).sum(axis=0) / np.maximum(count - 1, 1)
    smooth = (mean * count + 0.5) / (count + 1.0)
    bernoulli = smooth * (1.0 - smooth)
    # Graded answers vary less than right-or-wrong ones of the same mean.
    bernoulli = bernoulli * min(1.0, (sample.mean() + 1e-6) / bernoulli.mean()) if models > 2 else bernoulli
    variance = (count * sample + VARIANCE_MODELS * bernoulli) / (count + VARIANCE_MODELS)
    noise = np.maximum(variance - (factors**2).sum(axis=0), NOISE_FLOOR)
    return ItemCovariance(mean, factors, noise)


def _compact(rows: Array) -> Array:
    """Return fewer rows with the same Gram matrix of the columns, up to a relative 1e-8."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    keep = values > 1e-8 * max(values.max(), 1e-300)
    return vectors[:, keep].T @ rows


def greedy_items(population: ItemCovariance, weights: Array, n: int) -> IntArray:
    """Return items in greedy order: each lowers the variance of the weighted mean most, given those before.

    Args:
        population: covariance of the items.
        weights: of the items in the score, `(items,)`, sum 1.
        n: how many, at most the number of items.

    Returns:
        `(n,)` distinct indices. The first k of them are the choice for k.
    """
    factors, noise = population.factors, population.noise
    conditional = factors.copy()  # covariance of the latent u with each item, given the items taken so far
    variance = (factors**2).sum(axis=0) + noise
    with_score = (factors @ weights) @ factors + noise * weights
    free = np.ones(len(weights), dtype=bool)
    chosen = []
    for _ in range(n):
        gain = np.where(free, with_score**2 / variance, -1.0)
        item = int(np.argmax(gain))
        chosen.append(item)
        free[item] = False
        with_item = factors[:, item] @ conditional  # (items,): covariance with the new item, given the earlier ones
        scale = variance[item]
        with_score = with_score - with_item * (with_score[item] / scale)
        conditional = conditional - conditional[:, item][:, None] * (with_item / scale)
        variance = np.maximum(variance - with_item**2 / scale, NOISE_FLOOR * 1e-3)
    return np.array(chosen, dtype=int)


@dataclass(frozen=True)
class LinearReadout:
    """Best linear prediction of the weighted mean from some items: `intercept + answers . slopes`."""

    intercept: float
    slopes: Array  # (n,)
    variance: float  # variance of the prediction error over the population


def linear_readout(population: ItemCovariance, weights: Array, chosen: IntArray) -> LinearReadout:
    """Return the best linear prediction of the weighted mean of all items from the `chosen` ones.

    It generalises anchor weights: a slope is the fraction of the benchmark that an item stands for, shrunk to the
    population mean by the uncertainty that `n` items leave. With all items chosen it is the exact mean.

    Source: best linear unbiased prediction, Henderson 1975; as kriging, Cressie 1990.
    """
    factors, noise = population.factors[:, chosen], population.noise[chosen]
    toward = population.factors @ weights  # (r,) covariance of the score with the latent u
    gram = factors.T @ factors + np.diag(noise)  # (n, n)
    with_score = factors.T @ toward + noise * weights[chosen]
    slopes = np.linalg.solve(gram, with_score)
    total = float(toward @ toward + (population.noise * weights**2).sum())
    intercept = float(population.mean @ weights - population.mean[chosen] @ slopes)
    return LinearReadout(intercept, slopes, max(total - float(with_score @ slopes), 0.0))
