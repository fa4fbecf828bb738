"""Descendants of task arithmetic that thin each task vector first: DARE, DELLA, Breadcrumbs, CABS, ComPEFT.

Signatures and order of operations are those of `arithmetic`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.errors import MergeError
from evomerge.merge._consensus import disjoint_merge, plain_merge, times
from evomerge.merge._masks import bernoulli
from evomerge.merge._sparsify import (
    drop_random,
    keep_groups,
    keep_inliers,
    keep_inliers_by_row,
    keep_probability,
    rescale_l1,
    ternary,
)


def dare_linear(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    rescale: bool,
    rescale_norm: str,
    lambda_: float,
    keys: Sequence[int],
) -> Tensor:
    """Return base + lambda * the weighted sum of randomly dropped and rescaled deltas.

    Source: DARE, Yu et al. 2023, arXiv:2311.03099; `rescale_norm` l1 as in mergekit, inv as in the paper.
    """
    kept = drop_random(inputs, density, rescale_norm if rescale else "none", keys)  # thinned, not yet weighted
    return base + plain_merge(times(kept, weight), weight, normalize) * lambda_


def dare_ties(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    rescale: bool,
    rescale_norm: str,
    lambda_: float,
    keys: Sequence[int],
) -> Tensor:
    """Return base + lambda * the disjoint merge of randomly dropped and rescaled deltas.

    Source: DARE, Yu et al. 2023, arXiv:2311.03099, with the election of TIES; `rescale_norm` as in `dare_linear`.
    """
    kept = drop_random(inputs, density, rescale_norm if rescale else "none", keys)
    # dropped entries are zero and do not vote
    return base + disjoint_merge(times(kept, weight), weight, normalize) * lambda_


def della_linear(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    normalize: bool,
    rescale: bool,
    rescale_norm: str,
    lambda_: float,
    keys: Sequence[int],
) -> Tensor:
    """Return base + lambda * the weighted sum of deltas dropped at random, small entries more often.

    Source: DELLA-Merging, Deep et al. 2024, arXiv:2406.11617; `rescale_norm` l1 as in mergekit, inv (each entry divided
    by its own probability of being kept) as in the paper.
    """
    kept = _della(inputs, density, epsilon, rescale_norm if rescale else "none", keys)  # chance by rank in the row
    return base + plain_merge(times(kept, weight), weight, normalize) * lambda_


def della(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    normalize: bool,
    rescale: bool,
    rescale_norm: str,
    lambda_: float,
    keys: Sequence[int],
) -> Tensor:
    """Return base + lambda * the disjoint merge of deltas dropped at random, small entries more often.

    Source: DELLA-Merging, Deep et al. 2024, arXiv:2406.11617; `rescale_norm` as in `della_linear`.
    """
    kept = _della(inputs, density, epsilon, rescale_norm if rescale else "none", keys)
    return base + disjoint_merge(times(kept, weight), weight, normalize) * lambda_


def breadcrumbs(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    variant: str,
) -> Tensor:
    """Return base + lambda * the weighted sum of deltas without their largest and smallest entries.

    Source: Model Breadcrumbs, Davari and Belilovsky 2023, arXiv:2312.06795. `variant` mergekit cuts per tensor,
    reference (the released code) per row.
    """
    kept = _breadcrumbs(inputs, density, gamma, rescale, variant)  # mid-sized entries only
    return base + plain_merge(times(kept, weight), weight, normalize) * lambda_


def breadcrumbs_ties(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    variant: str,
) -> Tensor:
    """Return base + lambda * the disjoint merge of deltas without their largest and smallest entries.

    Source: Model Breadcrumbs, Davari and Belilovsky 2023, arXiv:2312.06795, with the election of TIES.
    """
    kept = _breadcrumbs(inputs, density, gamma, rescale, variant)
    return base + disjoint_merge(times(kept, weight), weight, normalize) * lambda_


def cabs(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    n: Sequence[int],
    m: int,
    order: Sequence[float],
    overlap: bool,
    lambda_: float,
) -> Tensor:
    """Return base + lambda * the weighted sum of deltas that take turns in choosing entries.

    Models choose in ascending `order` (equal values: as listed); each takes the `n` largest entries that are still free
    in every `m` consecutive ones.

    Source: CABS, Yang et al. 2025, arXiv:2503.01874.
    """
    for index, kept in enumerate(n):
        if kept > m:  # checked here, because the ranges of single parameters cannot compare two
            raise MergeError(f"cabs: n of model {index + 1} must be at most the group length m = {m}, got {kept}")
    free = torch.ones(base.shape, dtype=torch.bool, device=base.device)  # entries that no model has taken yet
    thinned = list(inputs)  # filled by turn, summed in the order of the models: sums are order-dependent
    # Python's sort is stable, so equal values keep the recipe's order
    for turn in sorted(range(len(inputs)), key=lambda model: order[model]):
        thinned[turn], taken = keep_groups(inputs[turn], n[turn], m, free, overlap)
        free &= ~taken  # later models take from the rest, so their supports do not overlap
    return base + plain_merge(times(thinned, weight), weight, False) * lambda_


def compeft(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    alpha: Sequence[float],
    elect: bool,
    normalize: bool,
    lambda_: float,
) -> Tensor:
    """Return base + lambda * the merge of ternary task vectors, summed or, with `elect`, disjointly merged.

    Source: ComPEFT, Yadav et al. 2023, arXiv:2311.13171.
    """
    kept = [ternary(delta, d, a) for delta, d, a in zip(inputs, density, alpha, strict=True)]
    combine = disjoint_merge if elect else plain_merge  # the plain sum is the default
    return base + combine(times(kept, weight), weight, normalize) * lambda_


def _della(
    deltas: Sequence[Tensor],
    density: Sequence[float],
    epsilon: Sequence[float],
    rescale_norm: str,
    keys: Sequence[int],
) -> list[Tensor]:
    """Return the deltas thinned by rank-dependent chance; rescaled as in `drop_random`, `inv` by each entry's own."""
    thinned = []
    for delta, d, e, key in zip(deltas, density, epsilon, keys, strict=True):
        if d >= 1 or d <= 0:
            # no mask: the interval of chances would leave (0, 1)
            thinned.append(delta.clone() if d >= 1 else torch.zeros_like(delta))
            continue
        probability = keep_probability(delta, d, e)  # shaped like the delta; the largest of a row highest
        mask = bernoulli(key, delta.numel(), probability.reshape(-1), device=delta.device)  # (entries,) bool
        kept = delta * mask.reshape(delta.shape)
        if rescale_norm == "inv":
            kept = kept / probability  # unbiased entry by entry (inverse probability weighting)
        thinned.append(rescale_l1(kept, delta) if rescale_norm == "l1" else kept)
    return thinned


def _breadcrumbs(
    deltas: Sequence[Tensor], density: Sequence[float], gamma: Sequence[float], rescale: bool, variant: str
) -> list[Tensor]:
    keep = keep_inliers_by_row if variant == "reference" else keep_inliers  # per row, or per tensor as mergekit
    kept = [keep(delta, d, g) for delta, d, g in zip(deltas, density, gamma, strict=True)]
    # Breadcrumbs itself does not rescale; mergekit offers it
    return [rescale_l1(k, delta) for k, delta in zip(kept, deltas, strict=True)] if rescale else kept
