"""Sums over tensors: the few places where the order of additions matters, so it is written down once.

Two rules keep a merge the same bytes on any worker. Sums *over models* run left to right, one rounding per step, with
multiply and add kept apart (a fused multiply-add rounds once less, and whether the processor uses one depends on where
a block starts). Sums *over elements* (norms, dot products, means) are float64, in chunks of fixed length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Elements per float64 chunk: bounds scratch memory (8 MB each) whatever the size of the tensor.
CHUNK = 1 << 20


def chunks(count: int, size: int = CHUNK) -> Iterator[slice]:
    """Yield the slices of length `size` (the last one shorter) that cover `range(count)`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum of weight times tensor, added left to right, in the dtype of the tensors.

    Args:
        tensors: at least one tensor, all of one shape and dtype.
        weights: one coefficient per tensor.
    """
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor * weight)
    return total


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the element-wise sum of at least one tensor, added left to right; always a new tensor."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total.add_(tensor)
    return total


def dot(left: Tensor, right: Tensor) -> float:
    """Return the float64 dot product of two tensors of equal size, taken as flat vectors."""
    x, y = left.reshape(-1), right.reshape(-1)
    return sum(float(torch.dot(x[part].double(), y[part].double())) for part in chunks(x.numel()))


def norm(tensor: Tensor) -> float:
    """Return the float64 Euclidean (Frobenius) norm of a tensor."""
    return dot(tensor, tensor) ** 0.5


def absolute_sum(tensor: Tensor) -> float:
    """Return the float64 sum of absolute values of a tensor (its L1 norm)."""
    flat = tensor.reshape(-1)
    return sum(float(flat[part].double().abs_().sum()) for part in chunks(flat.numel()))


def standard_deviation(tensor: Tensor) -> float:
    """Return the float64 population standard deviation of a tensor's elements."""
    flat = tensor.reshape(-1)
    mean = sum(float(flat[part].double().sum()) for part in chunks(flat.numel())) / flat.numel()
    squares = sum(float((flat[part].double() - mean).square_().sum()) for part in chunks(flat.numel()))
    return (squares / flat.numel()) ** 0.5


def order_statistic(values: Tensor, index: int) -> Tensor:
    """Return the element at `index` of the ascending sorted values, a tensor without axes."""
    return values.reshape(-1).kthvalue(index + 1).values
