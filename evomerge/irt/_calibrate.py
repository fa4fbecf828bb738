"""Item parameters from a response table, by deterministic variational EM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import sqrtm

from evomerge.irt._curves import Array

EM_STEPS = 60
# EM stops early once no item parameter moves by more than this in a step.
EM_TOLERANCE = 2e-3
# tanh(xi/2)/(4 xi) at zero is 1/8; below this xi the quotient loses digits.
SMALL_XI = 1e-4


@dataclass(frozen=True)
class ItemPrior:
    """Normal prior of the item parameters, and the prior of the abilities.

    The defaults are wide and symmetric: a twentieth of the items of real pools discriminate negatively, and a
    positive-only prior cannot say so.
    """

    a_mean: float = 0.0  # prior mean of the first dimension's discriminations; the others have mean 0
    a_sd: float = 2.0
    b_sd: float = 3.0
    # True: abilities get mean 0, covariance I after every step, which fixes their scale where models are many.
    # False: the scale is fixed by the prior on `a` instead, and abilities are nearly free.
    whiten: bool = True
    ability_precision: float = 1.0

    @property
    def name(self) -> str:
        """Short description for provenance."""
        return f"a~N({self.a_mean:g},{self.a_sd:g}^2), b~N(0,{self.b_sd:g}^2), whiten={self.whiten}"


WIDE = ItemPrior()
# Every item discriminates about equally: a handful of models supports no more (estimation notes, 1.9).
NEAR_RASCH = ItemPrior(a_mean=1.2, a_sd=0.5, whiten=False, ability_precision=0.1)
HALF_RASCH = ItemPrior(a_mean=1.0, a_sd=0.5, whiten=True)


@dataclass(frozen=True)
class ItemParameters:
    """Calibrated items, and the population of abilities they were calibrated on."""

    a: Array  # (items, d)
    b: Array  # (items,), logits
    covariance: Array  # (items, d + 1, d + 1): posterior of (a, b) of each item
    ability_mean: Array  # (d,): prior for a new model
    ability_precision: Array  # (d, d)
    theta: Array  # (calibration models, d): posterior means
    theta_covariance: Array  # (calibration models, d, d)

    @property
    def d(self) -> int:
        """Number of ability dimensions."""
        return int(self.a.shape[1])


def _curvature(z: Array, spread: Array, mask: Array) -> Array:
    """Return twice the bound's curvature, `tanh(xi/2) / (2 xi)` with `xi^2 = z^2 + spread`, zero where masked."""
    xi = np.maximum(np.sqrt(z * z + spread), SMALL_XI)
    return mask * np.tanh(0.5 * xi) / (2.0 * xi)  # (models, items)


def _start(responses: Array, seen: Array, d: int) -> tuple[Array, Array]:
    """Return starting `a` (items, d) and `b` (items,): leading singular vectors of the centred answers."""
    count = np.maximum(seen.sum(axis=0), 1)
    mean = (np.where(seen, responses, 0.0).sum(axis=0) + 0.5) / (count + 1.0)
    centred = np.where(seen, responses - mean, 0.0)
    # The smaller Gram matrix: tables are thousands of models or thousands of items, rarely both.
    small = centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T
    values, vectors = np.linalg.eigh(small)
    keep = min(d, len(values))
    lead, power = vectors[:, ::-1][:, :keep], np.maximum(values[::-1][:keep], 0.0)
    v = lead if small.shape[0] == centred.shape[1] else centred.T @ lead / np.sqrt(np.maximum(power, 1e-12))
    a = np.zeros((responses.shape[1], d))
    a[:, :keep] = v * np.sqrt(power / max(len(responses), 1)) / np.maximum(mean * (1.0 - mean), 0.05)[:, None]
    # eigh leaves the sign of a vector open; more right answers must mean more ability, on every machine.
    sign = np.where(a.sum(axis=0) < 0.0, -1.0, 1.0)
    return a * sign, -np.log(mean / (1.0 - mean))


def fit_items(responses: Array, d: int = 1, prior: ItemPrior = WIDE, steps: int = EM_STEPS) -> ItemParameters:
    """Return item parameters that explain a response table.

    Deterministic: no random start. Missing answers are left out of every sum, graded ones enter as they are
    (fractional logit). Constant rows and columns, duplicated models, one model or one item give finite results
    governed by the priors.

    Args:
        responses: answers in [0, 1], nan where missing, `(models, items)`.
        d: ability dimensions, at least 1.
        prior: of the item parameters.
        steps: EM iterations; 40 to 80 are usual.

    Returns:
        Parameters with posterior covariances. For `d` = 1 the sign is such that `a` is positive on average; for more
        dimensions only probabilities, not abilities, compare between two fits.

    Source: bound of Jaakkola and Jordan, "Bayesian parameter estimation via variational methods", 2000.
    """
    seen = ~np.isnan(responses)
    mask = seen.astype(float)
    y = np.where(seen, responses, 0.0)
    kappa = np.where(seen, y - 0.5, 0.0)
    models, items = responses.shape
    a, b = _start(y, seen, d)
    if prior.a_mean:
        a[:, 0] = 0.5 * a[:, 0] + 0.5 * prior.a_mean if prior.whiten else prior.a_mean
    centre = np.zeros(d + 1)
    centre[0] = prior.a_mean
    lambda0 = np.diag([*([prior.a_sd**-2.0] * d), prior.b_sd**-2.0])
    precision = np.eye(d) * prior.ability_precision
    mean, cov = np.zeros((models, d)), np.broadcast_to(np.eye(d), (models, d, d)).copy()
    weight = _curvature(-b, (a**2).sum(axis=1), mask)  # (models, items)
    item_precision = np.broadcast_to(lambda0, (items, d + 1, d + 1))
    for _ in range(max(steps, 1)):
        outer = (a[:, :, None] * a[:, None, :]).reshape(items, d * d)
        cov = _inverse((weight @ outer).reshape(models, d, d) + precision)
        mean = np.einsum("mde,me->md", cov, (kappa + weight * b) @ a)
        if prior.whiten:
            mean, cov, a, b = _whiten(mean, cov, a, b)
            outer = (a[:, :, None] * a[:, None, :]).reshape(items, d * d)
        # The bound holds for any xi, so one update per step is enough: the next E step starts from this one.
        weight = _curvature(mean @ a.T - b, cov.reshape(models, d * d) @ outer.T, mask)
        x = np.concatenate([mean, -np.ones((models, 1))], axis=1)
        second = x[:, :, None] * x[:, None, :]
        second[:, :d, :d] += cov
        item_precision = (weight.T @ second.reshape(models, -1)).reshape(items, d + 1, d + 1) + lambda0
        solved = np.linalg.solve(item_precision, (kappa.T @ x + lambda0 @ centre)[:, :, None])[:, :, 0]
        moved = max(float(np.abs(solved[:, :d] - a).max()), float(np.abs(solved[:, d] - b).max()))
        a, b = solved[:, :d], solved[:, d]
        if moved < EM_TOLERANCE:
            break
    if d == 1 and a.sum() < 0.0:
        a, mean = -a, -mean
    return ItemParameters(
        a=a,
        b=b,
        covariance=_inverse(item_precision),
        ability_mean=np.zeros(d) if prior.whiten else mean.mean(axis=0),
        ability_precision=precision,
        theta=mean,
        theta_covariance=cov,
    )


def _inverse(matrices: Array) -> Array:
    return np.asarray(np.linalg.inv(matrices), dtype=np.float64)


def _whiten(mean: Array, cov: Array, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """Return the same probabilities with abilities of mean 0 and covariance I."""
    shift = mean.mean(axis=0)
    spread = np.cov(mean.T, bias=True).reshape(len(shift), -1) + cov.mean(axis=0)
    root: Array = np.real(sqrtm(spread)).astype(np.float64)
    inverse = np.linalg.inv(root)
    return (mean - shift) @ inverse.T, inverse @ cov @ inverse.T, a @ root, b - a @ shift
