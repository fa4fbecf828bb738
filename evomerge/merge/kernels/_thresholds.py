"""Which entries any density keeps, without sorting again: rank a task vector once, look up a cut per candidate.

A cut names the last entry kept in the order of falling magnitude, earlier index first among equals. That is all a block
kernel needs: before that entry's index magnitudes from its own upwards stay, behind it only larger ones.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evomerge.merge._reductions import chunks
from evomerge.merge._sparsify import kept_count

_INDEX = 1 << 31  # an index below this fits 31 bits, and a magnitude 32 bits above them
_SCAN = 1 << 18  # elements per step when a bracket is searched


@dataclass(frozen=True)
class Cut:
    """The entries that a density keeps: those above `value`, and of those equal to it the ones up to index `last`."""

    value: float  # a float32 magnitude; infinity keeps nothing
    last: int  # flat index

    @property
    def keeps_all(self) -> bool:
        """Whether every entry is kept (zeros count as kept: thinning does not change them)."""
        return self.value == 0.0

    def shrink_bound(self, stop: int) -> float:
        """Return b such that a stretch that ends before index `stop` keeps the magnitudes above b.

        The stretch must not extend over `last` + 1, where the bound changes.
        """
        if stop > self.last + 1:
            return self.value
        (bits,) = struct.unpack("<I", struct.pack("<f", self.value))
        return struct.unpack("<f", struct.pack("<I", bits - 1))[0] if bits else 0.0  # the float32 just below


KEEP_ALL = Cut(0.0, -1)
KEEP_NONE = Cut(math.inf, -1)


@dataclass(frozen=True)
class Ranking:
    """Every `stride`-th entry of a task vector in the order of falling magnitude; made once per source and tensor.

    With stride 1 a cut is one look-up, at 4 bytes per element (8 from 2**31 elements on). With a larger stride memory
    shrinks by it, and a cut that falls between two ranked entries reads the task vector once.
    """

    order: Tensor  # (ceil(count / stride),) flat indices, int32 or int64
    count: int
    stride: int


def rank(delta: Tensor, stride: int = 1) -> Ranking:
    """Return the ranking of a task vector of any shape, float32; ties go to the lower flat index.

    Args:
        delta: finite values; a NaN has no rank.
        stride: 1 for the fastest cuts, 64 or so to spend a sixteenth of a byte per element.
    """
    flat, count = delta.reshape(-1), delta.numel()
    if flat.device.type == "cpu" and flat.dtype == torch.float32 and count < _INDEX:
        return Ranking(torch.from_numpy(_packed_order(flat)[::stride].astype(np.int32)), count, stride)
    order = torch.sort(flat.abs(), descending=True, stable=True).indices[::stride]
    return Ranking(order.to(torch.int32) if count < _INDEX else order.clone(), count, stride)


def _packed_order(flat: Tensor) -> npt.NDArray[np.int64]:
    """Return the indices of float32 entries by falling magnitude, ties by index.

    Magnitude and index share one integer, so that a plain in-place sort is stable: half the time and memory of sorting
    values with their indices. The bits of non-negative floats sort like the floats.
    """
    keys = torch.iinfo(torch.int32).max - flat.abs().view(torch.int32)
    packed = keys.to(torch.int64).mul_(_INDEX).add_(torch.arange(flat.numel())).numpy()
    packed.sort()
    packed &= _INDEX - 1
    return packed


def cut(ranking: Ranking, delta: Tensor, density: float) -> Cut:
    """Return the cut of a density in [0, 1]: exactly the entries that `sparsify.keep_largest` keeps.

    Args:
        ranking: of this `delta`.
        delta: the task vector that was ranked.
        density: fraction kept; max(1, int(density * n)) entries for values strictly between 0 and 1.
    """
    return cut_at(ranking, delta, kept_count(density, ranking.count))


def cut_at(ranking: Ranking, delta: Tensor, kept: int) -> Cut:
    """Return the cut that keeps the `kept` largest entries."""
    if kept <= 0:
        return KEEP_NONE
    if kept >= ranking.count:
        return KEEP_ALL
    flat = delta.reshape(-1)
    rank_of_last = kept - 1
    position, beyond = divmod(rank_of_last, ranking.stride)
    index = int(ranking.order[position])
    if beyond:
        index = _search(ranking, flat, position, beyond)
    return Cut(abs(float(flat[index])), index)


def cut_once(delta: Tensor, density: float) -> Cut:
    """Return the cut of a density without ranking first: the faster way where only one density is wanted."""
    flat = delta.reshape(-1)
    kept = kept_count(density, flat.numel())
    if kept <= 0:
        return KEEP_NONE
    if kept >= flat.numel():
        return KEEP_ALL
    magnitude = flat.abs()
    value = _order_statistic(magnitude, flat.numel() - kept)
    beyond = kept - int((magnitude > value).sum()) - 1
    return Cut(value, int(torch.nonzero(magnitude == value).reshape(-1)[beyond]))


def _order_statistic(values: Tensor, position: int) -> float:
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return float(np.partition(values.numpy(), position)[position])  # several times faster than kthvalue
    return float(values.kthvalue(position + 1).values)


def _search(ranking: Ranking, flat: Tensor, position: int, beyond: int) -> int:
    """Return the index of the entry that ranks `beyond` ranks behind ranked entry `position`."""
    first = int(ranking.order[position])
    top = float(flat[first].abs())
    after = int(ranking.order[position + 1]) if position + 1 < len(ranking.order) else None
    bottom = float(flat[after].abs()) if after is not None else 0.0
    found = []
    for part in chunks(flat.numel(), _SCAN):
        magnitude = flat[part].abs()
        # only entries between two ranked ones can be the answer
        found.append(torch.nonzero((magnitude <= top) & (magnitude >= bottom)).reshape(-1) + part.start)
    candidates = torch.cat(found)  # ascending, as a stable sort wants them
    magnitude = flat[candidates].abs()
    candidates = candidates[~((magnitude == top) & (candidates < first))]
    order = torch.sort(flat[candidates].abs(), descending=True, stable=True).indices
    return int(candidates[order[beyond]])
