"""Sums over tensors: the few operations in which the order of additions matters, so it is written down once.

Two rules keep a merge the same bytes on any worker. Sums *over models* run left to right. Multiply and add are kept
apart, with a rounding each, wherever mergekit does so; `linear` fuses them, as mergekit does. Sums *over elements*
(norms, dot products, means) are float64, in chunks of fixed length that are too short for torch to share among threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# torch splits a sum over 32768 elements and more among its threads, and the split changes the last bits.
SERIAL_CHUNK = 1 << 14
# On an accelerator each chunk is a kernel launch; longer ones, and one read of the result.
_DEVICE_CHUNK = 1 << 24


def chunks(count: int, size: int) -> Iterator[slice]:
    """Yield the slices of length `size` (the last one shorter) that cover `range(count)`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum of weight times tensor, added left to right, in the dtype of the tensors.

    Args:
        tensors: at least one tensor, all of one shape and dtype.
        weights: one coefficient per tensor.
    """
    total = tensors[0] * weights[0]  # a new tensor, so that inputs stay as they are
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor * weight)  # two roundings: the product is rounded before it is added
    return total


def fused_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return `weighted_sum` with one rounding per model: torch multiplies and adds in one step where it can."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor, alpha=weight)  # a fused multiply-add: one rounding
    return total


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the element-wise sum of at least one tensor, added left to right; always a new tensor."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total.add_(tensor)
    return total


def sum_of_weights(weights: Sequence[float], dtype: torch.dtype) -> float:
    """Return the sum of coefficients, rounded to `dtype` after each addition as a sum of tensors would be."""
    total = torch.zeros((), dtype=dtype)
    for weight in weights:
        total = total + torch.tensor(weight, dtype=dtype)
    return float(total)


def divide_(tensor: Tensor, divisor: float) -> Tensor:
    """Divide a tensor in place by a number, and return it.

    Dividing by a plain number, an accelerator multiplies by its reciprocal instead, which rounds differently.
    """
    return tensor.div_(torch.full((), divisor, dtype=tensor.dtype, device=tensor.device))


def dot(left: Tensor, right: Tensor) -> float:
    """Return the float64 dot product of two tensors of equal size, taken as flat vectors."""
    return _chunked_sum(lambda x, y: (x.double() * y.double()).sum(), left, right)


def gram(tensors: Sequence[Tensor]) -> list[list[float]]:
    """Return all dot products of tensors of equal size, float64, reading each tensor once."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    pairs = [(i, j) for i in range(len(flat)) for j in range(i + 1)]  # the lower triangle; the matrix is symmetric
    size = SERIAL_CHUNK if flat[0].device.type == "cpu" else _DEVICE_CHUNK
    parts = []
    for piece in chunks(flat[0].numel(), size):
        wide = [tensor[piece].double() for tensor in flat]  # float64 of one chunk only
        parts.append(torch.stack([(wide[i] * wide[j]).sum() for i, j in pairs]))
    # one transfer from the device instead of one per chunk
    rows = torch.stack(parts).tolist() if parts else [[0.0] * len(pairs)]
    totals = {pair: sum(row[index] for row in rows) for index, pair in enumerate(pairs)}
    return [[totals[max(i, j), min(i, j)] for j in range(len(flat))] for i in range(len(flat))]


def norm(tensor: Tensor) -> float:
    """Return the float64 Euclidean (Frobenius) norm of a tensor."""
    return dot(tensor, tensor) ** 0.5


def absolute_sum(tensor: Tensor) -> float:
    """Return the float64 sum of absolute values of a tensor (its L1 norm)."""
    return _chunked_sum(lambda x: x.abs().sum(dtype=torch.float64), tensor)


def mean(tensor: Tensor) -> float:
    """Return the float64 mean of a tensor's elements."""
    return _chunked_sum(lambda x: x.sum(dtype=torch.float64), tensor) / tensor.numel()


def standard_deviation(tensor: Tensor) -> float:
    """Return the float64 population standard deviation of a tensor's elements."""
    center = mean(tensor)  # two passes: the one-pass formula cancels for large means
    return (_chunked_sum(lambda x: (x.double() - center).square_().sum(), tensor) / tensor.numel()) ** 0.5


def _chunked_sum(part: Callable[..., Tensor], *tensors: Tensor) -> float:
    """Return the sum of `part` over corresponding chunks of the flattened tensors, added left to right in float64."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    size = SERIAL_CHUNK if flat[0].device.type == "cpu" else _DEVICE_CHUNK
    # 0-dimensional, still on the device
    parts = [part(*(tensor[piece] for tensor in flat)) for piece in chunks(flat[0].numel(), size)]
    return sum(torch.stack(parts).tolist()) if parts else 0.0
