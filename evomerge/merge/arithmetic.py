"""Task arithmetic and its sparsified descendants, all of the form base + lambda * combine(weight * thin(delta)).

Every function takes the base tensor and the task vectors `inputs` (source minus base), all of one shape and float
dtype, and returns the merged weights as a new tensor. The order of operations is mergekit's: thin, rescale, times
weight, elect, sum, divide, times lambda, plus base.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from evomerge.merge.consensus import disjoint_merge, plain_merge
from evomerge.merge.sparsify import keep_largest, keep_random, rescale_l1


def task_arithmetic(
    base: Tensor, inputs: Sequence[Tensor], *, weight: Sequence[float], normalize: bool, lambda_: float
) -> Tensor:
    """Return base + lambda * sum of weight * delta.

    Source: Task Arithmetic, Ilharco et al. 2022, arXiv:2212.04089. A negative weight forgets.
    """
    return base + plain_merge(_times(inputs, weight), weight, normalize) * lambda_


def ties(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
) -> Tensor:
    """Return base + lambda * the disjoint merge of the deltas trimmed to their largest entries.

    With `normalize` the weights are relative (see `disjoint_merge`); switch it off, or use lambda, for a strength.

    Source: TIES-Merging, Yadav et al. 2023, arXiv:2306.01708.
    """
    kept = [keep_largest(delta, d) for delta, d in zip(inputs, density, strict=True)]
    if rescale:
        kept = [rescale_l1(k, delta) for k, delta in zip(kept, inputs, strict=True)]
    return base + disjoint_merge(_times(kept, weight), weight, normalize) * lambda_


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
    kept = _dare(inputs, density, rescale_norm if rescale else "none", keys)
    return base + plain_merge(_times(kept, weight), weight, normalize) * lambda_


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
    kept = _dare(inputs, density, rescale_norm if rescale else "none", keys)
    return base + disjoint_merge(_times(kept, weight), weight, normalize) * lambda_


def _times(deltas: Sequence[Tensor], weight: Sequence[float]) -> list[Tensor]:
    return [delta * w for delta, w in zip(deltas, weight, strict=True)]


def _dare(deltas: Sequence[Tensor], density: Sequence[float], rescale_norm: str, keys: Sequence[int]) -> list[Tensor]:
    """Return the deltas thinned at random; survivors divided by their density (`inv`) or brought to the old L1 norm."""
    kept = [keep_random(delta, d, key) for delta, d, key in zip(deltas, density, keys, strict=True)]
    if rescale_norm == "l1":
        return [rescale_l1(k, delta) if d < 1 else k for k, delta, d in zip(kept, deltas, density, strict=True)]
    if rescale_norm == "inv":
        return [k / d if 0 < d < 1 else k for k, d in zip(kept, density, strict=True)]
    return kept
