"""Thinning one task vector: which entries survive, and how the survivors are rescaled.

Every function takes one tensor's delta and returns a new tensor of the same shape and dtype. Deltas must be finite: the
caller refuses NaN and infinity by the name of the tensor, which is not known here. Counts follow `int(density * n)` of
Python floats, including its truncation (`int(0.29 * 100)` is 28), because mergekit counts so; ties in magnitude keep
the lower flat index, where other libraries leave the choice to their sort.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.errors import MergeError
from evomerge.merge._masks import uniform
from evomerge.merge._reductions import absolute_sum, standard_deviation
from evomerge.merge._top_k import falling_order, keep_up_to, last_kept

# Below this L1 norm a delta is left as it is rather than rescaled; the constant is mergekit's.
TINY_NORM = 1e-7


def kept_count(density: float, count: int) -> int:
    """Return how many of `count` entries a density keeps: all from 1 on, none up to 0, else at least one.

    >>> kept_count(0.29, 100), kept_count(0.001, 100), kept_count(0.0, 100), kept_count(1.0, 100)
    (28, 1, 0, 100)
    """
    if density >= 1:
        return count
    if density <= 0 or count == 0:
        return 0
    return max(1, int(density * count))  # mergekit keeps at least one entry


def largest_mask(delta: Tensor, count: int) -> Tensor:
    """Return a mask, ones and zeros, of `delta`'s `count` largest magnitudes, the lower flat index winning a tie."""
    if count <= 0:
        return torch.zeros_like(delta)
    if count >= delta.numel():
        return torch.ones_like(delta)
    magnitude = delta.abs()
    value, last = last_kept(magnitude, count)  # the threshold, and how far equal entries are kept
    mask = magnitude.reshape(-1)  # the mask is written over the magnitudes, to save a buffer
    mask[: last + 1].ge_(value)
    mask[last + 1 :].gt_(value)
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
    return keep_up_to(delta, *last_kept(delta.abs(), count)) if count else torch.zeros_like(delta)


def keep_above(delta: Tensor, threshold: float) -> Tensor:
    """Return `delta` with the entries of magnitude below `threshold`, a float32 number, set to zero."""
    return delta * (delta.abs().to(torch.float32) >= threshold)  # the same bits that `global_threshold` counted


def keep_random(delta: Tensor, density: float, key: int) -> Tensor:
    """Return `delta` with each entry kept with probability `density`, by the mask of `key`; survivors not rescaled.

    Source: DARE, Yu et al. 2023, arXiv:2311.03099 (which calls 1 - density the drop rate).
    """
    if density >= 1:
        return delta.clone()
    if density <= 0:
        return torch.zeros_like(delta)
    # ones and zeros in float: bool tensors are several times slower to multiply by
    kept = uniform(key, delta.numel(), device=delta.device).lt_(density)
    return delta * kept.reshape(delta.shape)


def rescale_l1(kept: Tensor, delta: Tensor) -> Tensor:
    """Return `kept` scaled so that its L1 norm is that of `delta`; as it is where either norm is below 1e-7."""
    before, after = absolute_sum(delta), absolute_sum(kept)
    if before < TINY_NORM or after < TINY_NORM:
        return kept
    return kept * (before / after)  # one factor per tensor, float64 until the product


def drop_random(
    deltas: Sequence[Tensor], density: Sequence[float], rescale_norm: str, keys: Sequence[int]
) -> list[Tensor]:
    """Return the deltas thinned at random; survivors divided by their density (`inv`) or brought to the old L1 norm."""
    kept = [keep_random(delta, d, key) for delta, d, key in zip(deltas, density, keys, strict=True)]
    if rescale_norm == "l1":
        return [rescale_l1(k, delta) if d < 1 else k for k, delta, d in zip(kept, deltas, density, strict=True)]
    if rescale_norm == "inv":
        # DARE's divisor; nothing was dropped at density 1
        return [k * (1 / d) if 0 < d < 1 else k for k, d in zip(kept, density, strict=True)]
    return kept


def keep_inliers(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Return `delta` without its largest and its smallest entries: mergekit's Breadcrumbs, over the whole tensor.

    int(density * n) entries survive: those that follow the int(gamma * n) largest. Where density + gamma exceeds 1
    fewer of the largest are dropped, and density 1 drops nothing at all. A density that rounds to no entries keeps
    none.

    Source: Model Breadcrumbs, Davari and Belilovsky 2023, arXiv:2312.06795; order of the two cuts as in mergekit.
    """
    if density >= 1:
        return delta.clone()
    first, last = inlier_ranks(density, gamma, delta.numel())  # ranks by falling magnitude
    outliers, kept = (delta * largest_mask(delta, count) for count in (first, last))
    return kept - outliers  # exact: the outliers are among the kept entries


def inlier_ranks(density: float, gamma: float, count: int) -> tuple[int, int]:
    """Return the first rank kept and the one after the last, rank 0 being the largest of `count` magnitudes.

    >>> inlier_ranks(0.5, 0.125, 8), inlier_ranks(0.9, 0.5, 10)
    ((1, 5), (1, 10))
    """
    kept, dropped_largest = int(max(density, 0.0) * count), int(gamma * count)
    dropped_smallest = max(0, count - kept - dropped_largest)  # density + gamma above 1: fewer of the largest go
    return count - dropped_smallest - kept, count - dropped_smallest


def keep_inliers_by_row(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Return `delta` without each row's int(gamma * len) largest entries and all but the int(density * len) next ones.

    A row is a vector along the last axis. Source: the released code of Model Breadcrumbs, arXiv:2312.06795.
    """
    length = delta.shape[-1]
    first, kept = int(length * gamma), int(length * density)
    order = falling_order(delta.abs())  # (..., rows, length) int64
    mask = torch.zeros(delta.shape, dtype=torch.bool, device=delta.device)
    return delta * mask.scatter_(-1, order[..., first : first + kept], True)


def keep_probability(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """Return DELLA's probability of keeping each entry: from density - epsilon to density + epsilon by rank in its row.

    A row is a vector along the last axis (mergekit ranks a stack of matrices along its middle axis); the largest
    magnitude gets the highest probability, the lower index counting as larger in a tie. A row of one entry gets
    `density`.

    Raises:
        MergeError: a probability would leave (0, 1).

    Source: MAGPRUNE of DELLA-Merging, Deep et al. 2024, arXiv:2406.11617.
    """
    check_chances(density, epsilon)
    length = delta.shape[-1]
    if length == 1:
        return torch.full_like(delta, density)  # a rank among one entry would be 0 / 0
    order = falling_order(delta.abs())
    ascending = torch.arange(length - 1, -1, -1, dtype=delta.dtype, device=delta.device)
    # inverts the permutation: rank per entry instead of entry per rank
    rank = torch.empty_like(delta).scatter_(-1, order, ascending.expand(delta.shape))
    # mergekit's order of operations, for equal bits
    return rank.div_(length - 1).mul_(2).mul_(epsilon).add_(density - epsilon)


def check_chances(density: float, epsilon: float) -> None:
    """Refuse a spread of DELLA's probabilities that leaves (0, 1).

    Raises:
        MergeError: says which epsilon would do.
    """
    if density - epsilon <= 0 or density + epsilon >= 1:
        raise MergeError(
            f"della: density {density} with epsilon {epsilon} gives keep probabilities outside (0, 1); "
            f"epsilon must be below {min(density, 1 - density):g} here"
        )


def keep_groups(delta: Tensor, n: int, m: int, free: Tensor, overlap: bool) -> tuple[Tensor, Tensor]:
    """Return `delta` thinned to the `n` largest *free* entries of every `m` consecutive ones, and the mask of those.

    Args:
        delta: task vector of one tensor; groups run over the flattened tensor, the last one padded with zeros.
        n: entries kept per group, at most; fewer where fewer are free.
        m: group length.
        free: bool, shaped like `delta`: the entries that earlier models have not taken.
        overlap: fill a group that has fewer than `n` free entries with its largest taken ones.

    Source: CABS, Yang et al. 2025, arXiv:2503.01874.
    """
    count = delta.numel()
    groups = -(-count // m)  # rounded up: the last group may be short
    magnitude = delta.reshape(-1).abs().double()  # float64, so that adding `span` keeps small differences
    span = float(magnitude.max()) + 1  # more than any difference between two magnitudes
    # free entries first, then taken ones where they may be used at all, then the padding
    worth = torch.full((groups * m,), -2 * span, dtype=torch.float64, device=delta.device)
    worth[:count] = torch.where(free.reshape(-1), magnitude, magnitude - span if overlap else -torch.inf)
    worth = worth.reshape(groups, m)
    order = torch.sort(worth, dim=-1, descending=True, stable=True).indices[:, : min(n, m)]
    mask = torch.zeros_like(worth, dtype=torch.bool).scatter_(-1, order, True)
    mask &= worth > -torch.inf  # a group may have fewer free entries than n
    mask = mask.reshape(-1)[:count].reshape(delta.shape)
    return delta * mask, mask


def ternary(delta: Tensor, density: float, alpha: float) -> Tensor:
    """Return the ComPEFT compression of `delta`: sign times one scalar on the largest entries, zero elsewhere.

    The scalar is alpha times the population standard deviation of the whole delta (the paper is silent on the divisor).

    Source: ComPEFT, Yadav et al. 2023, arXiv:2311.13171.
    """
    # one bit per kept entry and one scalar, the compressed form
    return keep_largest(delta, density).sign_() * (alpha * standard_deviation(delta))
