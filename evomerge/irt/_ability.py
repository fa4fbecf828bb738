"""Maximum-a-posteriori abilities of models from their answers, with known item parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from evomerge.irt._curves import Array, IntArray, log_likelihood, logits

MAX_NEWTON_STEPS = 100
GRADIENT_TOLERANCE = 1e-9
# 2^-30 of a Newton step: a direction that does not help by then only fights rounding.
MAX_HALVINGS = 30


@dataclass(frozen=True)
class Ability:
    """Normal approximation of the abilities of several models given their answers."""

    mean: Array  # (models, d)
    covariance: Array  # (models, d, d)


def estimate_ability(
    responses: Array,
    a: Array,
    b: Array,
    prior_mean: Array | None = None,
    prior_precision: Array | float = 1.0,
) -> Ability:
    """Return the most probable abilities and their posterior covariances.

    The log-posterior is strictly concave, so damped Newton finds its one maximum, also for all-right and all-wrong
    answers and for fewer items than dimensions. Without damping it oscillates on real items, where |a| reaches 9.

    Args:
        responses: answers in [0, 1], nan where missing, `(models, items)`.
        a: discriminations, `(items, d)`.
        b: difficulties in logits, `(items,)`.
        prior_mean: centre of the normal prior, `(d,)` or `(models, d)`; zero by default.
        prior_precision: scalar (times the identity), `(d, d)` or `(models, d, d)`; must be positive definite.

    Returns:
        One posterior per model. A model without answers gets the prior.
    """
    models, d = responses.shape[0], a.shape[1]
    centre = np.zeros((models, d)) if prior_mean is None else np.broadcast_to(prior_mean, (models, d)).astype(float)
    precision = np.asarray(prior_precision, dtype=float)
    if precision.ndim == 0:
        precision = precision * np.eye(d)
    precision = np.broadcast_to(precision, (models, d, d))
    seen = ~np.isnan(responses)
    y = np.where(seen, responses, 0.0)
    outer = (a[:, :, None] * a[:, None, :]).reshape(-1, d * d)  # (items, d * d)

    def objective(theta: Array, rows: IntArray) -> Array:
        gap = theta - centre[rows]
        penalty = 0.5 * np.einsum("md,mde,me->m", gap, precision[rows], gap)
        return log_likelihood(responses[rows], logits(theta, a, b)).sum(axis=1) - penalty

    def hessian(p: Array, rows: IntArray) -> Array:
        return (np.where(seen[rows], p * (1.0 - p), 0.0) @ outer).reshape(-1, d, d) + precision[rows]

    theta = centre.copy()
    active = np.arange(models)
    for _ in range(MAX_NEWTON_STEPS):
        p = expit(logits(theta[active], a, b))
        gap = theta[active] - centre[active]
        gradient = np.where(seen[active], y[active] - p, 0.0) @ a - np.einsum("mde,me->md", precision[active], gap)
        moving = np.abs(gradient).max(axis=1, initial=0.0) > GRADIENT_TOLERANCE
        if not moving.any():
            break
        active, gradient, p = active[moving], gradient[moving], p[moving]
        step = np.linalg.solve(hessian(p, active), gradient[:, :, None])[:, :, 0]
        before = objective(theta[active], active)
        slope = (gradient * step).sum(axis=1)  # directional derivative, for Armijo's condition below
        length = np.ones(len(active))
        for _ in range(MAX_HALVINGS):
            after = objective(theta[active] + length[:, None] * step, active)
            # Rounding may hide the last gain: the slack keeps a converged model from halving for ever.
            short = after < before + 1e-4 * length * slope - 1e-12 * np.abs(before)
            if not short.any():
                break
            length = np.where(short, length / 2.0, length)
        theta[active] += length[:, None] * step
    every = np.arange(models)
    covariance = np.linalg.inv(hessian(expit(logits(theta, a, b)), every))
    return Ability(theta, np.asarray(covariance, dtype=np.float64))
