"""Averages and spherical interpolation of the models' own weights, and their relatives.

Unless said otherwise `inputs` are weights, not task vectors. All tensors share one shape and float dtype; the result
is a new tensor. Scalars that come from whole tensors (norms, angles) are float64. On raw weights fine-tunes of one base
are nearly parallel, so spherical methods without a base are nearly linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.errors import MergeError
from evomerge.merge._reductions import divide_, fused_sum, gram, norm, sum_of, sum_of_weights, weighted_sum

# Above this |cosine| two vectors count as collinear and slerp becomes lerp; the constant is mergekit's.
_COLLINEAR = 0.9995
_TINY_NORM = 1e-8
# nuslerp: norms are at least this, and 1 - cosine**2 at most that is collinear; mergekit's constants.
_ROW_NORM = 1e-7
_ROW_COLLINEAR = 1e-16


def linear(base: Tensor | None, inputs: Sequence[Tensor], *, weight: Sequence[float], normalize: bool) -> Tensor:
    """Return the weighted sum of the inputs, divided by the sum of weights if `normalize`.

    Raises:
        MergeError: the weights sum to zero and `normalize` is set (mergekit returns infinities).

    Source: model soups, Wortsman et al. 2022, arXiv:2203.05482.
    """
    total = fused_sum(inputs, weight)
    return divide_(total, _divisor("linear", weight, total.dtype)) if normalize else total


def slerp(base: Tensor, inputs: Sequence[Tensor], *, t: float) -> Tensor:
    """Return the point at fraction `t` of the great circle from `base` to the one input, flattened.

    The two coefficients multiply the tensors as they are, not their unit vectors. Nearly parallel and nearly opposite
    pairs are interpolated linearly. A zero tensor has no direction and counts as orthogonal.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", per tensor as in mergekit.
    """
    (other,) = inputs
    # two roundings per product, as mergekit
    return weighted_sum((base, other), slerp_coefficients(t, *cosine_of(base, other)))


def cosine_of(left: Tensor, right: Tensor) -> tuple[float, bool]:
    """Return the cosine between two flattened tensors, and whether they count as collinear; 0 if one is zero."""
    # Divide before multiplying: the product of two large norms may overflow, of two small ones vanish.
    (left_square, product), (_, right_square) = gram((left, right))
    # a zero tensor has cosine 0: product is 0 too
    lengths = [length if (length := square**0.5) > _TINY_NORM else 1.0 for square in (left_square, right_square)]
    cosine = max(-1.0, min(1.0, product / lengths[0] / lengths[1]))
    return cosine, abs(cosine) > _COLLINEAR


def slerp_coefficients(t: float, cosine: float, collinear: bool) -> tuple[float, float]:
    """Return the coefficients of the two ends; a new `t` costs no pass over the tensors once the cosine is known."""
    if collinear:
        return 1 - t, t
    angle = math.acos(cosine)  # strictly between 0 and pi: collinear pairs have left already
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def nuslerp(
    base: Tensor | None,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    nuslerp_flatten: bool,
    nuslerp_row_wise: bool,
) -> Tensor:
    """Return the slerp of two models, or of their task vectors if there is a base, at t = w2 / (w1 + w2).

    Not flattened, each vector of an axis is interpolated by its own angle: the last axis, or the *first* one with
    `nuslerp_row_wise` (mergekit's name reads backwards). Weights that sum to zero mean t = 0.5.

    Source: NuSLERP, as in mergekit.
    """
    total = weight[0] + weight[1]  # only the ratio of weights matters
    t = 0.5 if abs(total) < 1e-6 else weight[1] / total
    left, right = inputs if base is None else (inputs[0] - base, inputs[1] - base)
    if nuslerp_flatten:
        (left_square, product), (_, right_square) = gram((left, right))
        cosine = product / max(left_square**0.5, _ROW_NORM) / max(right_square**0.5, _ROW_NORM)
        # no axes: broadcasts to the whole tensor
        cosines = torch.tensor(cosine, dtype=torch.float64, device=left.device)
        merged = _slerp_by_cosine(left, right, t, cosines)
    elif nuslerp_row_wise:
        # the first axis becomes the last one and goes back
        merged = _slerp_last_axis(left.transpose(0, -1), right.transpose(0, -1), t).transpose(0, -1).contiguous()
    else:
        merged = _slerp_last_axis(left, right, t)
    return merged if base is None else base + merged


def _slerp_last_axis(left: Tensor, right: Tensor, t: float) -> Tensor:
    # unit vectors first: vectors of one element must come out as exactly plus or minus one
    units = [
        x / torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float64).clamp(min=_ROW_NORM).to(x.dtype)
        for x in (left, right)
    ]
    return _slerp_by_cosine(left, right, t, (units[0] * units[1]).sum(dim=-1, keepdim=True, dtype=torch.float64))


def _slerp_by_cosine(left: Tensor, right: Tensor, t: float, cosine: Tensor) -> Tensor:
    """Return the slerp of two tensors given their cosines, float64, which broadcast against them."""
    cosine = cosine.clamp(-1, 1)  # rounding may leave the domain of acos
    # to float32: where mergekit, in that precision, sees a sine of zero, so do we
    collinear = 1 - cosine.float().double().square() <= _ROW_COLLINEAR
    angle = torch.acos(torch.where(collinear, 0.0, cosine))  # collinear entries are replaced before 0 / 0 arises
    left_weight = torch.where(collinear, 1 - t, torch.sin((1 - t) * angle) / torch.sin(angle))
    right_weight = torch.where(collinear, t, torch.sin(t * angle) / torch.sin(angle))
    return left * left_weight.to(left.dtype) + right * right_weight.to(left.dtype)


def multislerp(
    base: Tensor | None,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    normalize_weights: bool,
    eps: float,
) -> Tensor:
    """Return the weighted mean direction of the models (of their task vectors if there is a base) at their mean norm.

    Mapping to the tangent space at that mean and back, as published, changes nothing: the tangent vectors' weighted sum
    is zero there. A single model comes back as it is, whatever its weight.

    Raises:
        MergeError: the weighted directions cancel (for two models they are averaged instead), or weights sum to zero.

    Source: Multi-SLERP, as in mergekit (Goddard 2025).
    """
    if len(inputs) == 1:
        return inputs[0].clone()
    vectors = list(inputs) if base is None else [x - base for x in inputs]
    divisor = _divisor("multislerp", weight) if normalize_weights else 1.0
    fractions = [w / divisor for w in weight]  # relative weights; they sum to one if normalised
    lengths = [norm(x) for x in vectors]
    mean = weighted_sum(
        vectors, [fraction / (length + eps) for fraction, length in zip(fractions, lengths, strict=True)]
    )
    mean_length = norm(mean)  # near zero where the directions cancel
    if mean_length >= eps:
        merged = mean * (
            sum(fraction * length for fraction, length in zip(fractions, lengths, strict=True)) / mean_length
        )
    elif len(vectors) == 2 or max(lengths) < eps:  # zero task vectors, of a frozen layer, have no directions to cancel
        merged = weighted_sum(vectors, fractions)
    else:
        raise MergeError(f"multislerp: the directions of {len(vectors)} models cancel at weights {list(weight)}")
    return merged if base is None else base + merged


def karcher(
    base: Tensor | None, inputs: Sequence[Tensor], *, weight: Sequence[float], max_iter: int, tol: float
) -> Tensor:
    """Return the Riemannian (Karcher) mean of the models' directions at the weighted mean of their norms.

    The mean is a combination of the models, so the iteration runs on its coefficients and the models' Gram matrix: two
    passes over the tensors, whatever the number of steps. Tensors of norm at most `tol` have no direction but count in
    the mean norm.

    Raises:
        MergeError: the weights sum to zero.

    Source: Karcher 1977; as in mergekit (which weighs all models alike), arXiv:2603.04972.
    """
    if len(inputs) == 1:
        return inputs[0].clone()
    divisor = _divisor("karcher", weight)
    fractions = [w / divisor for w in weight]
    products = gram(inputs)  # (models, models), float64; one pass over memory
    lengths = [products[i][i] ** 0.5 for i in range(len(inputs))]
    # a tensor without a direction cannot be normalised
    valid = [index for index, length in enumerate(lengths) if length > tol]
    if not valid:
        return torch.zeros_like(inputs[0])
    cosines = torch.tensor(
        [[products[i][j] / lengths[i] / lengths[j] for j in valid] for i in valid], dtype=torch.float64
    )
    directed = [fractions[index] for index in valid]  # renormalised over the models that have a direction
    alpha = torch.tensor(directed, dtype=torch.float64) / _divisor("karcher", directed)
    mean = _karcher_coefficients(cosines, alpha, max_iter, tol)
    # the mean norm counts zero tensors too
    scale = sum(fraction * length for fraction, length in zip(fractions, lengths, strict=True))
    return weighted_sum(
        [inputs[index] for index in valid],
        [scale * float(c) / lengths[index] for c, index in zip(mean, valid, strict=True)],
    )


def _karcher_coefficients(products: Tensor, alpha: Tensor, max_iter: int, tol: float) -> Tensor:
    """Return the mean of unit vectors as their coefficients; `products` holds their dot products, float64."""

    def length(c: Tensor) -> float:
        return max(float(c @ products @ c), 0.0) ** 0.5  # the norm of a combination follows from the Gram matrix

    start = length(alpha)
    mean = torch.eye(len(alpha), dtype=torch.float64)[0] if start < tol else alpha / start
    for _ in range(max_iter):
        cosine = (products @ mean).clamp(-1, 1)
        angle = torch.acos(cosine)
        # no direction leads to a vector that is here already, and none is distinguished to the opposite one
        moving = (angle >= tol) & (math.pi - angle >= tol)
        pull = torch.where(moving, alpha * angle / torch.where(moving, torch.sin(angle), 1.0), 0.0)
        tangent = pull - float(pull @ cosine) * mean  # the part orthogonal to the mean moves it along the sphere
        step = length(tangent)
        if step < tol:
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent  # the exponential map of the sphere
        mean = mean / length(mean)  # rounding errors would add up over steps
    return mean


def model_stock(base: Tensor, inputs: Sequence[Tensor], *, filter_wise: bool, clamp: bool, lambda_: float) -> Tensor:
    """Return base + lambda * t * the mean task vector, t following from the mean cosine between task vectors.

    Args:
        base: the base tensor.
        inputs: task vectors, two at least.
        filter_wise: one t per row (last axis) instead of one per tensor.
        clamp: keep t in [0, 1]. Without it, as in mergekit, task vectors that point apart on average give a negative t,
            which moves away from the models.
        lambda_: factor of t.

    Source: Model Stock, Jang et al. 2024, arXiv:2403.19522.
    """
    n = len(inputs)
    if filter_wise:
        ratio = _mean_row_cosine(inputs).to(base.dtype)  # (..., rows, 1)
    else:
        products = gram(inputs)
        lengths = [products[i][i] ** 0.5 for i in range(n)]
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        cosines = [products[i][j] / max(lengths[i] * lengths[j], 1e-6) for i, j in pairs]
        mean = sum(max(-1.0, min(1.0, value)) for value in cosines) / len(cosines)
        ratio = torch.tensor(mean, dtype=torch.float64)
    divisor = 1 + (n - 1) * ratio
    singular = divisor.abs() < 1e-6  # cosine -1 / (n - 1): the deltas sum to zero
    t = torch.where(singular, 0.0, n * ratio / torch.where(singular, 1.0, divisor))
    if clamp:
        t = t.clamp(0, 1)
    return base + divide_(sum_of(inputs), n) * (t * lambda_).to(base.dtype)  # t is float64 until here and rounds once


def _mean_row_cosine(deltas: Sequence[Tensor]) -> Tensor:
    lengths = [torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float64) for x in deltas]
    cosines = [
        ((deltas[i] * deltas[j]).sum(dim=-1, keepdim=True, dtype=torch.float64))
        .div_((lengths[i] * lengths[j]).clamp(min=1e-6))
        .clamp_(-1, 1)
        for i in range(len(deltas))
        for j in range(i + 1, len(deltas))
    ]
    return sum_of(cosines) / len(cosines)


def nearswap(base: Tensor, inputs: Sequence[Tensor], *, t: float) -> Tensor:
    """Return the base moved towards the one input by at most `t` per entry.

    Source: NearSwap (alchemonaut 2024), as in mergekit.
    """
    (other,) = inputs
    fraction = (t / (base - other).abs_().clamp_(min=1e-6)).clamp_(0, 1)  # entries nearer than t are taken over whole
    return fraction * other + (1 - fraction) * base


def passthrough(base: Tensor | None, inputs: Sequence[Tensor], *, scale: float) -> Tensor:
    """Return the one input times `scale`."""
    return inputs[0] * scale


def layer_swap(base: Tensor | None, inputs: Sequence[Tensor], *, share: float) -> Tensor:
    """Return (1 - share) * task model + share * language model; 0 and 1 are copies. `depth.layer_swap` gives `share`.

    Source: Bandarkar et al. 2024, "Layer swapping for zero-shot cross-lingual transfer", arXiv:2410.01335.
    """
    if share in (0, 1):  # a copy is exact, a product with 1 and 0 is not for infinities
        return inputs[int(share)].clone()
    return weighted_sum(inputs, (1 - share, share))


def _divisor(method: str, weight: Sequence[float], dtype: torch.dtype = torch.float64) -> float:
    """Return the sum of weights, refusing zero."""
    divisor = sum_of_weights(weight, dtype)
    if divisor == 0:
        raise MergeError(f"{method}: weights {list(weight)} sum to zero and cannot be normalized; change them")
    return divisor
