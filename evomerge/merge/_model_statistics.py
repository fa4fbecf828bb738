"""Statistics of a whole model that some methods need, computed tensor by tensor and handed in as plain numbers.

Nothing here keeps a copy of a model: a caller streams its task vectors through and stores a few numbers per recipe.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from evomerge.merge._reductions import dot
from evomerge.merge._top_k import nth_smallest


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
    tensors = list(deltas)  # read twice: once to count, once to select
    total = sum(delta.numel() for delta in tensors)
    if density <= 0 or total == 0:
        return float("inf")  # keeps nothing
    rank = total - int(total * density)  # 1-based, ascending
    return nth_smallest([delta.abs() for delta in tensors], rank - 1) if rank > 0 else 0.0
