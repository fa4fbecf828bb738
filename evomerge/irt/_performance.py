"""Estimates of the score over all items from the answers to some of them.

Notation: items j with weights w_j that sum to 1, answers y_j, target T = sum_j w_j y_j, `chosen` the answered items.
All functions take the answers of several models at once and return one estimate per model.
"""

from __future__ import annotations

import numpy as np

from evomerge.errors import InputError
from evomerge.irt._curves import Array, IntArray

# Estimators of a score from few items, by name: see `FewItemEstimator`.
FEW_ITEM_METHODS = ("raw", "difference", "parents", "p-irt", "gp-irt", "mp-irt", "auto")
# An even mixture counts as this many held-out models: from 30 of them alone the best fraction is mostly noise.
EVEN_MODELS = 20.0


def normalised(weights: Array | None, items: int) -> Array:
    """Return item weights that sum to 1, equal ones by default.

    Raises:
        InputError: wrong length, a negative or non-finite weight, or all zero.
    """
    if weights is None:
        return np.full(items, 1.0 / items)
    values = np.asarray(weights, dtype=float)
    if values.shape != (items,):
        raise InputError(f"weights must hold one number per item, {items} of them, got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0.0).any() or values.sum() <= 0.0:
        raise InputError("weights must be finite, at least 0, and not all 0; leave them out for equal weights")
    return values / values.sum()


def anchor_mean(answers: Array, anchor_weights: Array) -> Array:
    """Return the weighted mean of the anchors' answers: `(models, n)` and `(n,)` to `(models,)`."""
    return answers @ anchor_weights


def p_irt(answers: Array, predicted: Array, weights: Array, chosen: IntArray) -> Array:
    """Return seen answers as they are plus predictions for the rest, `(models,)`.

    Args:
        answers: to the chosen items, `(models, n)`.
        predicted: probabilities of all items, `(models, items)`.
        weights: `(items,)`, sum 1.
        chosen: `(n,)`.

    Source: Maia Polo et al. 2024, arXiv:2402.14992, eq. 3.
    """
    rest = np.delete(np.arange(len(weights)), chosen)  # unseen items
    return answers @ weights[chosen] + predicted[:, rest] @ weights[rest]


def best_fraction(first_error: Array, second_error: Array) -> float:
    """Return the weight of the first of two estimates in their mixture of smallest squared error.

    `(E[e2^2] - E[e1 e2]) / E[(e1 - e2)^2]`, clipped to [0, 1] and shrunk to one half; one half if the two agree.

    Args:
        first_error: errors on held-out models, `(models,)`.
        second_error: errors of the other estimate on the same models.

    Source: mixture of gp-IRT, Maia Polo et al. 2024, arXiv:2402.14992, section 4.3.
    """
    gap = float(((first_error - second_error) ** 2).mean()) if len(first_error) else 0.0
    if gap < 1e-12:  # the two estimates agree, so any mixture is the same
        return 0.5
    fraction = float(np.clip(((second_error**2).mean() - (first_error * second_error).mean()) / gap, 0.0, 1.0))
    return (len(first_error) * fraction + EVEN_MODELS * 0.5) / (len(first_error) + EVEN_MODELS)


def difference(
    answers: Array, predicted: Array, weights: Array, chosen: IntArray, anchor_weights: Array | None = None
) -> Array:
    """Return the mean prediction over all items plus the mean residual on the chosen ones, `(models,)`.

    Unbiased for random items however wrong the prediction; as precise as the prediction is good.

    Args:
        answers: `(models, n)`.
        predicted: `(models, items)` or `(items,)`, e.g. the mean answers of the parents.
        weights: `(items,)`, sum 1.
        chosen: `(n,)`.
        anchor_weights: `(n,)` weight of each chosen item's residual, sum 1; proportional to `weights` by default.
    """
    h = np.broadcast_to(predicted, (len(answers), len(weights)))  # (models, items)
    w = weights[chosen] / weights[chosen].sum() if anchor_weights is None else anchor_weights
    return h @ weights + (answers - h[:, chosen]) @ w
