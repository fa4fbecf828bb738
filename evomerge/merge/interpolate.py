"""Averages and spherical interpolation of the models' own weights.

`inputs` are weights, not task vectors. All tensors share one shape and float dtype; the result is a new tensor.
Scalars that come from whole tensors (norms, angles) are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.errors import MergeError
from evomerge.merge.reductions import dot, norm, weighted_sum

# Above this |cosine| two vectors count as collinear and slerp becomes lerp; the constant is mergekit's.
_COLLINEAR = 0.9995
_TINY_NORM = 1e-8


def linear(base: Tensor | None, inputs: Sequence[Tensor], *, weight: Sequence[float], normalize: bool) -> Tensor:
    """Return the weighted sum of the inputs, divided by the sum of weights if `normalize`.

    Raises:
        MergeError: the weights sum to zero and `normalize` is set (mergekit returns infinities).

    Source: model soups, Wortsman et al. 2022, arXiv:2203.05482.
    """
    total = weighted_sum(inputs, weight)
    if not normalize:
        return total
    divisor = float(torch.tensor(list(weight), dtype=total.dtype).sum())
    if divisor == 0:
        raise MergeError(
            f"linear: weights {list(weight)} sum to zero and cannot be normalized; change them or set normalize: false"
        )
    return total.div_(divisor)


def slerp(base: Tensor, inputs: Sequence[Tensor], *, t: float) -> Tensor:
    """Return the point at fraction `t` of the great circle from `base` to the one input, flattened.

    The two coefficients multiply the tensors as they are, not their unit vectors. Nearly parallel and nearly opposite
    pairs are interpolated linearly. A zero tensor has no direction and counts as orthogonal.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", per tensor as in mergekit.
    """
    (other,) = inputs
    # Divide before multiplying: the product of two large norms may overflow, of two small ones vanish.
    lengths = [length if (length := norm(x)) > _TINY_NORM else 1.0 for x in (base, other)]
    cosine = max(-1.0, min(1.0, dot(base, other) / lengths[0] / lengths[1]))
    if abs(cosine) > _COLLINEAR:
        return weighted_sum((base, other), (1 - t, t))
    angle = math.acos(cosine)
    shares = (math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
    return weighted_sum((base, other), shares)


def passthrough(base: Tensor | None, inputs: Sequence[Tensor], *, scale: float) -> Tensor:
    """Return the one input times `scale`."""
    return inputs[0] * scale
