"""Finding the n-th largest of many numbers, and keeping those above it, without sorting them.

The bits of float32 numbers, read as integers, sort like the numbers (after a flip of the negative ones). Two counts of
16 bits each find any order statistic in two passes over memory, exactly, of one tensor or of a whole model.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evomerge.merge._reductions import chunks

_BITS = 16
_BINS = 1 << _BITS
_CHUNK = 1 << 18  # elements counted at a time; bounds scratch memory
_INDEX = 1 << 31  # an index below this fits 31 bits, and a magnitude 32 bits above them


def order_statistic(values: Tensor, index: int) -> Tensor:
    """Return the element at `index` of the ascending sorted values, a tensor without axes."""
    if values.dtype != torch.float32 or values.device.type != "cpu":
        return values.reshape(-1).kthvalue(index + 1).values  # kthvalue counts from one
    return torch.tensor(nth_smallest([values], index), dtype=torch.float32)


def nth_smallest(tensors: Sequence[Tensor], index: int) -> float:
    """Return the element at `index` of all tensors' values, sorted ascending and rounded to float32."""
    # first the upper 16 bits of the wanted key
    upper, index = _bin_of(sum(_count(tensor, None) for tensor in tensors), index)
    # then the lower 16 bits among the keys that share them
    lower, _ = _bin_of(sum(_count(tensor, upper) for tensor in tensors), index)
    key = ((upper - _BINS // 2) << _BITS) | lower
    return float(_keys(torch.tensor(key, dtype=torch.int32).view(torch.float32)).view(torch.float32))


def last_kept(magnitude: Tensor, kept: int) -> tuple[float, int]:
    """Return magnitude and flat index of the last of the `kept` largest entries, earlier indices first in a tie.

    Args:
        magnitude: non-negative, any shape.
        kept: between 1 and the number of entries.
    """
    flat = magnitude.reshape(-1)
    value = float(order_statistic(flat, flat.numel() - kept))
    # entries equal to the value are few or many; those that stay are the first ones
    above = sum(int(torch.count_nonzero(flat[part] > value)) for part in chunks(flat.numel(), _CHUNK))
    missing = kept - above  # how many of the equal entries stay
    for part in chunks(flat.numel(), _CHUNK):
        indices = torch.nonzero(flat[part] == value).reshape(-1)
        if len(indices) >= missing:
            return value, part.start + int(indices[missing - 1])
        missing -= len(indices)
    raise AssertionError("the order statistic is among the values")


def keep_up_to(delta: Tensor, value: float, last: int) -> Tensor:
    """Return `delta` with magnitudes below `value` set to zero, and from index `last` + 1 on those equal to it too."""
    flat = delta.reshape(-1)
    kept = torch.empty_like(flat)
    # hardshrink keeps |x| > bound, so `below` lets equal ones stay
    torch.ops.aten.hardshrink.out(flat[: last + 1], below(value, delta.dtype), out=kept[: last + 1])
    torch.ops.aten.hardshrink.out(flat[last + 1 :], value, out=kept[last + 1 :])
    return kept.reshape(delta.shape)


def below(value: float, dtype: torch.dtype) -> float:
    """Return the next smaller number of a float32 or float64 magnitude; 0 of 0, since zeros need no keeping."""
    if value == 0:
        return 0.0
    form, whole = ("<d", "<Q") if dtype == torch.float64 else ("<f", "<I")
    (bits,) = struct.unpack(whole, struct.pack(form, value))  # the bits of positive floats sort like the floats
    return struct.unpack(form, struct.pack(whole, bits - 1))[0]


def falling_order(magnitude: Tensor) -> Tensor:
    """Return the indices along the last axis by falling magnitude, the lower index first in a tie; int64."""
    length = magnitude.shape[-1]
    if magnitude.dtype != torch.float32 or magnitude.device.type != "cpu" or length >= _INDEX:
        return torch.sort(magnitude, dim=-1, descending=True, stable=True).indices
    # magnitude and index share one integer, so that a plain in-place sort is stable: half the time, half the memory
    keys = torch.iinfo(torch.int32).max - magnitude.abs().view(torch.int32)
    packed = keys.to(torch.int64).mul_(_INDEX).add_(torch.arange(length)).contiguous()
    np.ndarray.sort(packed.numpy(), axis=-1)
    return packed.bitwise_and_(_INDEX - 1)


def _keys(values: Tensor) -> Tensor:
    """Return int32 keys that sort like the float32 values; applied to a key (as float32) it gives the value's bits."""
    bits = values.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats sort the other way round, so their bits are flipped


def _count(tensor: Tensor, upper: int | None) -> Tensor:
    """Count the upper halves of all keys, or the lower halves of those whose upper half is `upper`; `(65536,)`."""
    counts = torch.zeros(_BINS, dtype=torch.int64)
    flat = tensor.reshape(-1)
    for part in chunks(flat.numel(), _CHUNK):
        keys = _keys(flat[part].to(torch.float32))
        high = (keys >> _BITS).add_(_BINS // 2)
        halves = high if upper is None else (keys & (_BINS - 1))[high == upper]  # (elements,) bin numbers
        counts += torch.bincount(halves, minlength=_BINS).cpu()
    return counts


def _bin_of(counts: Tensor | int, index: int) -> tuple[int, int]:
    """Return the bin that holds the entry at `index`, and the entry's index within that bin."""
    cumulative = torch.as_tensor(counts).cumsum(0)
    found = int(torch.searchsorted(cumulative, index, right=True))
    return found, index - (int(cumulative[found - 1]) if found else 0)
