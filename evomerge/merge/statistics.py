"""Statistics of a whole model that some methods need, computed tensor by tensor and handed in as plain numbers.

Nothing here keeps a copy of a model: a caller streams its task vectors through and stores a few numbers per recipe.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from evomerge.merge.reductions import chunks, dot

_BINS = 1 << 16
_CHUNK = 1 << 20  # bounds scratch memory


def squared_norm(deltas: Iterable[Tensor]) -> float:
    """Return the float64 squared norm of a task vector given tensor by tensor; pass tied tensors once."""
    return sum(dot(delta, delta) for delta in deltas)


def global_threshold(deltas: Iterable[Tensor], density: float) -> float:
    """Return the smallest magnitude that the reference code of TIES keeps of a whole task vector.

    With P entries in all, that is the (P - int(P * density))-th smallest magnitude; as entries *at* the threshold stay,
    one more than int(P * density) is kept where magnitudes are distinct.

    Args:
        deltas: one model's task vectors, float32 or float64 (then rounded to float32); iterated twice.
        density: fraction kept. 1 keeps everything.

    Returns:
        A float32 value; infinity if density is 0 or there are no entries.

    Source: TIES-Merging, Yadav et al. 2023, arXiv:2306.01708, released code.
    """
    tensors = list(deltas)
    total = sum(delta.numel() for delta in tensors)
    if density <= 0 or total == 0:
        return float("inf")
    rank = total - int(total * density)  # 1-based, ascending
    if rank <= 0:
        return 0.0
    # The bits of non-negative float32 numbers sort like the numbers: select the upper half, then the lower half.
    upper, rank = _select(_histogram(tensors, None), rank)
    lower, _ = _select(_histogram(tensors, upper), rank)
    return float(torch.tensor((upper << 16) | lower, dtype=torch.int32).view(torch.float32))


def _histogram(tensors: Iterable[Tensor], upper: int | None) -> Tensor:
    """Count the upper 16 bits of all magnitudes, or the lower 16 bits of those whose upper bits are `upper`."""
    counts = torch.zeros(_BINS, dtype=torch.int64)
    for tensor in tensors:
        flat = tensor.reshape(-1)
        for part in chunks(flat.numel(), _CHUNK):
            bits = flat[part].to(torch.float32).abs().view(torch.int32)
            high = bits >> 16
            values = high if upper is None else (bits & (_BINS - 1))[high == upper]
            counts += torch.bincount(values, minlength=_BINS).cpu()
    return counts


def _select(counts: Tensor, rank: int) -> tuple[int, int]:
    """Return the bin that holds the `rank`-th (1-based) entry, and its rank within that bin."""
    cumulative = counts.cumsum(0)
    index = int(torch.searchsorted(cumulative, rank))
    return index, rank - (int(cumulative[index - 1]) if index else 0)
