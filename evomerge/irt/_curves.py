"""Item response curves: the probability of a right answer given an ability.

Convention of the whole package: `z = a . theta - b`, `P(right) = sigmoid(z)`. `b` is an offset in logits, not a
point on the ability scale: with `a` near zero or negative, `b / a` means nothing, and both occur in real pools.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Probit approximation: the mean of sigmoid(z) for z ~ N(m, v) is about sigmoid(m / sqrt(1 + pi v / 8)).
PROBIT_SCALE = np.pi / 8.0


def logits(theta: Array, a: Array, b: Array) -> Array:
    """Return the log-odds of a right answer.

    Args:
        theta: abilities, `(models, d)`.
        a: discriminations, `(items, d)`; any sign.
        b: difficulties in logits, `(items,)`.

    Returns:
        `(models, items)` float64.
    """
    return theta @ a.T - b


def probabilities(theta: Array, a: Array, b: Array) -> Array:
    """Return the probabilities of a right answer, `(models, items)`; shapes as in `logits`.

    >>> import numpy as np
    >>> probabilities(np.zeros((1, 1)), np.ones((2, 1)), np.array([0.0, 2.0])).round(3).tolist()
    [[0.5, 0.119]]
    """
    return expit(logits(theta, a, b))


def expected_probabilities(theta: Array, covariance: Array, a: Array, b: Array) -> Array:
    """Return the probabilities of a right answer, averaged over normal errors of the abilities.

    The plug-in `probabilities(theta)` is overconfident while few items have been answered.

    Args:
        theta: posterior means, `(models, d)`.
        covariance: posterior covariances, `(models, d, d)`.
        a: discriminations, `(items, d)`.
        b: difficulties in logits, `(items,)`.

    Returns:
        `(models, items)` float64.

    Source: the probit approximation of MacKay, "The evidence framework applied to classification networks", 1992.
    """
    variance = projected_variance(covariance, a)  # (models, items)
    return expit(logits(theta, a, b) / np.sqrt(1.0 + PROBIT_SCALE * variance))


def projected_variance(covariance: Array, a: Array) -> Array:
    """Return `a' covariance a` for every model and item, `(models, items)`; shapes as in `expected_probabilities`."""
    d = a.shape[1]
    outer = (a[:, :, None] * a[:, None, :]).reshape(-1, d * d)  # (items, d*d)
    return covariance.reshape(-1, d * d) @ outer.T


def log_likelihood(responses: Array, z: Array) -> Array:
    """Return the fractional-logit log-likelihood of each answer, zero where there is none.

    Args:
        responses: answers in [0, 1], nan where missing. A graded answer counts as that fraction of a right one (Papke
            and Wooldridge 1996), a quasi-likelihood: no threshold is needed, and its variance is not `p (1 - p)`.
        z: log-odds, same shape.

    Returns:
        Same shape, float64, at most 0.
    """
    # y z - log(1 + e^z), which never overflows.
    return np.where(np.isnan(responses), 0.0, np.nan_to_num(responses) * z - np.logaddexp(0.0, z))
