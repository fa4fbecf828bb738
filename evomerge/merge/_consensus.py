"""Reconciling task vectors that disagree: sign election and the mean of those who agree.

Functions take deltas that are already thinned and multiplied by their weights, and return one delta.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.merge._reductions import divide_, sum_of, sum_of_weights

# A sum of weights closer to zero than this is not divided by; the constant is mergekit's.
_TINY_WEIGHT = 1e-8


def times(deltas: Sequence[Tensor], weight: Sequence[float]) -> list[Tensor]:
    """Return each delta multiplied by its weight."""
    return [delta * w for delta, w in zip(deltas, weight, strict=True)]


def elect_signs(deltas: Sequence[Tensor]) -> Tensor:
    """Return +1 or -1 per element: the sign of the sum over models, a sum of zero electing +1."""
    # computed in place: a bool tensor and `where` cost two more passes
    return sum_of(deltas).ge_(0.0).mul_(2.0).sub_(1.0)


def agreement(deltas: Sequence[Tensor], signs: Tensor) -> list[Tensor]:
    """Return each delta's magnitude where its sign is the elected one, and zero elsewhere."""
    return [(delta * signs).clamp_(min=0.0) for delta in deltas]  # magnitude times agreement, without a mask in memory


def votes(agreeing: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return, per element, the sum of weights of the models that agree there (`agreement`)."""
    # a zero entry does not vote, as in mergekit
    return sum_of([magnitude.sign().mul_(w) for magnitude, w in zip(agreeing, weights, strict=True)])


def disjoint_merge(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Return the sum of the entries that agree with the elected sign, divided by their weights if `normalize`.

    Args:
        deltas: thinned deltas, each already multiplied by its weight, all of one shape.
        weights: those weights; used as divisors only.
        normalize: divide each element by the sum of weights of the models that agree there. The weights are then
            relative: one model alone comes back whole whatever its weight, even a negative one.

    Source: the elect and disjoint-merge steps of TIES-Merging, Yadav et al. 2023, arXiv:2306.01708, with mergekit's
    rules (a zero sum elects +; the divisor is a sum of weights, not a count).
    """
    signs = elect_signs(deltas)
    return _merge_agreeing(deltas, signs, weights, normalize)


def _merge_agreeing(deltas: Sequence[Tensor], signs: Tensor, weights: Sequence[float], normalize: bool) -> Tensor:
    agreeing = agreement(deltas, signs)
    merged = sum_of(agreeing)
    if normalize:
        divisor = votes(agreeing, weights)
        merged.div_(divisor.masked_fill_(divisor == 0, 1.0))
    return merged.mul_(signs).add_(0.0)  # no negative zeros: block kernels compute zeros with another sign


def plain_merge(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Return the sum of deltas, each already multiplied by its weight, divided by those weights if `normalize`."""
    merged = sum_of(deltas)
    return divide_(merged, weight_divisor(weights, merged.dtype)) if normalize else merged


def weight_divisor(weights: Sequence[float], dtype: torch.dtype) -> float:
    """Return the sum of weights in the given precision, or 1 where it is too close to zero to divide by."""
    divisor = sum_of_weights(weights, dtype)
    return divisor if abs(divisor) >= _TINY_WEIGHT else 1.0


def counted_merge(deltas: Sequence[Tensor], normalize: bool) -> Tensor:
    """Return the disjoint merge by the rules of the TIES paper's code: ties follow the majority, means count models.

    An element whose sum over models is zero takes the sign of the sum of all elected signs in this tensor.
    """
    total = sum_of(deltas).sign_()
    # float64, because the count of signs exceeds what float32 holds exactly
    majority = 1.0 if float(total.sum(dtype=torch.float64)) >= 0 else -1.0
    return _merge_agreeing(deltas, total.masked_fill_(total == 0, majority), [1.0] * len(deltas), normalize)
