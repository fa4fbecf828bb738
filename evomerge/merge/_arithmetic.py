"""Task arithmetic and its sparsified descendants, all of the form base + lambda * combine(weight * thin(delta)).

Every function takes the base tensor and the task vectors `inputs` (source minus base), all of one shape and float
dtype, and returns the merged weights as a new tensor. The order of operations is mergekit's: thin, rescale, times
weight, elect, sum, divide, times lambda, plus base.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from evomerge.merge._consensus import counted_merge, disjoint_merge, plain_merge, times
from evomerge.merge._model_statistics import global_threshold
from evomerge.merge._reductions import dot
from evomerge.merge._sparsify import drop_random, keep_above, keep_largest, rescale_l1


def task_arithmetic(
    base: Tensor, inputs: Sequence[Tensor], *, weight: Sequence[float], normalize: bool, lambda_: float
) -> Tensor:
    """Return base + lambda * sum of weight * delta.

    Source: Task Arithmetic, Ilharco et al. 2022, arXiv:2212.04089. A negative weight forgets.
    """
    # lambda comes after the division, as in mergekit
    return base + plain_merge(times(inputs, weight), weight, normalize) * lambda_


def negation(base: Tensor, inputs: Sequence[Tensor], *, weight: Sequence[float], lambda_: float) -> Tensor:
    """Return base - lambda * sum of weight * delta: the base without what the models learned.

    Source: the forgetting experiments of Task Arithmetic, Ilharco et al. 2022, arXiv:2212.04089.
    """
    return base - plain_merge(times(inputs, weight), weight, False) * lambda_  # never normalised: a strength is meant


def resta(
    base: Tensor, inputs: Sequence[Tensor], *, density: float, lambda_: float, keys: Sequence[int] = ()
) -> Tensor:
    """Return a compromised model re-aligned by adding the safety vector, aligned minus unaligned.

    Args:
        base: the compromised model; or, with three inputs, the common base.
        inputs: task vectors of (aligned, unaligned), or of (compromised, aligned, unaligned).
        density: with three inputs, fraction of the compromised model's task vector kept at random (DARE, survivors
            divided by density).
        lambda_: strength of the safety vector, gamma of the paper.
        keys: one mask key per input; only the first of three is used.

    Source: RESTA, Bhardwaj et al. 2024, arXiv:2402.11746.
    """
    safety = (inputs[-2] - inputs[-1]) * lambda_  # both are deltas of one base, which cancels
    if len(inputs) == 2:
        return base + safety
    return base + (drop_random(inputs[:1], [density], "inv", keys[:1])[0] + safety)  # only the fine-tune is thinned


def ties(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    variant: str,
    threshold: Sequence[float],
) -> Tensor:
    """Return base + lambda * the disjoint merge of the deltas trimmed to their largest entries.

    Args:
        base: the base tensor.
        inputs: task vectors.
        weight: coefficients. With `normalize` they are relative (see `disjoint_merge`): one model alone comes back
            whole whatever its weight. Switch `normalize` off, or use lambda, for a strength.
        density: fraction kept of each task vector.
        normalize: average the agreeing entries instead of summing them.
        rescale: bring each trimmed delta back to its L1 norm.
        lambda_: scale of the merged delta.
        variant: mergekit, or reference: the released code of the paper, which trims with one threshold per model, keeps
            one entry more, breaks a tie of the election by the majority of elected signs, and averages by count.
        threshold: reference only: smallest magnitude kept of each model, from `statistics.global_threshold` over all of
            its tensors; negative: from this tensor alone.

    Source: TIES-Merging, Yadav et al. 2023, arXiv:2306.01708.
    """
    if variant == "reference":
        # a negative threshold means that the whole model was not measured
        cuts = [global_threshold([x], d) if t < 0 else t for x, d, t in zip(inputs, density, threshold, strict=True)]
        kept = [keep_above(delta, cut) for delta, cut in zip(inputs, cuts, strict=True)]
    else:
        # mergekit trims each tensor by itself, the paper all tensors together
        kept = [keep_largest(delta, d) for delta, d in zip(inputs, density, strict=True)]
    if rescale:
        # before the weights, so that a weight scales the restored norm
        kept = [rescale_l1(k, delta) for k, delta in zip(kept, inputs, strict=True)]
    if variant == "reference":
        return base + counted_merge(times(kept, weight), normalize) * lambda_
    return base + disjoint_merge(times(kept, weight), weight, normalize) * lambda_


def metagpt(base: Tensor, inputs: Sequence[Tensor], *, squared_norm: Sequence[float], lambda_: float) -> Tensor:
    """Return base + lambda * the sum of deltas weighted by their fraction of the summed squared norms.

    Args:
        base: the base tensor.
        inputs: task vectors.
        squared_norm: squared norm of each model's whole task vector (`statistics.squared_norm`, summed over its
            tensors, tied ones once); negative: of this tensor alone.
        lambda_: scale of the merged delta.

    Source: MetaGPT, Zhou et al. 2024, arXiv:2406.11385.
    """
    weight = metagpt_weights(inputs, squared_norm)
    return base + plain_merge(times(inputs, weight), weight, False) * lambda_


def metagpt_weights(inputs: Sequence[Tensor], squared_norm: Sequence[float]) -> list[float]:
    """Return MetaGPT's coefficients, which sum to one; all zero where every task vector is zero."""
    # a negative norm means that the whole model was not measured
    norms = [dot(delta, delta) if given < 0 else given for delta, given in zip(inputs, squared_norm, strict=True)]
    total = sum(norms)
    # equal models have no task vectors, so nothing is added
    return [value / total if total > 0 else 0.0 for value in norms]
