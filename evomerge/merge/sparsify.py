"""Thinning one task vector: which entries survive, and how the survivors are rescaled.

Every function takes one tensor's delta and returns a new tensor of the same shape and dtype. Deltas must be finite: the
caller refuses NaN and infinity by the name of the tensor, which is not known here. Counts follow `int(density * n)` of
Python floats, including its truncation (`int(0.29 * 100)` is 28), because mergekit counts so; ties in magnitude keep
the lower flat index, where other libraries leave the choice to their sort.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.merge.masks import bernoulli
from evomerge.merge.reductions import absolute_sum

# Below this L1 norm a delta is left as it is rather than rescaled; the constant is mergekit's.
_TINY_NORM = 1e-7


def kept_count(density: float, count: int) -> int:
    """Return how many of `count` entries a density keeps: all from 1 on, none up to 0, else at least one.

    >>> kept_count(0.29, 100), kept_count(0.001, 100), kept_count(0.0, 100), kept_count(1.0, 100)
    (28, 1, 0, 100)
    """
    if density >= 1:
        return count
    if density <= 0 or count == 0:
        return 0
    return max(1, int(density * count))


def largest_mask(delta: Tensor, count: int) -> Tensor:
    """Return a bool mask of `delta`'s `count` largest magnitudes, the lower flat index winning a tie."""
    mask = torch.zeros(delta.numel(), dtype=torch.bool, device=delta.device)
    order = torch.sort(delta.reshape(-1).abs(), descending=True, stable=True).indices
    mask[order[:count]] = True
    return mask.reshape(delta.shape)


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """Return `delta` with all but its largest-magnitude entries set to zero.

    Args:
        delta: task vector of one tensor, any shape.
        density: fraction of entries kept. 0 gives zeros, 1 gives `delta` back; in between exactly
            max(1, int(density * n)) survive.

    Source: the trim step of TIES-Merging, Yadav et al. 2023, arXiv:2306.01708; count as in mergekit.
    """
    count = kept_count(density, delta.numel())
    if count == delta.numel():
        return delta.clone()
    return delta * largest_mask(delta, count)


def keep_random(delta: Tensor, density: float, key: int) -> Tensor:
    """Return `delta` with each entry kept with probability `density`, by the mask of `key`; survivors not rescaled.

    Source: DARE, Yu et al. 2023, arXiv:2311.03099 (which calls 1 - density the drop rate).
    """
    if density >= 1:
        return delta.clone()
    if density <= 0:
        return torch.zeros_like(delta)
    return delta * bernoulli(key, delta.numel(), density, device=delta.device).reshape(delta.shape)


def rescale_l1(kept: Tensor, delta: Tensor) -> Tensor:
    """Return `kept` scaled so that its L1 norm is that of `delta`; as it is where either norm is below 1e-7."""
    before, after = absolute_sum(delta), absolute_sum(kept)
    if before < _TINY_NORM or after < _TINY_NORM:
        return kept
    return kept * (before / after)
