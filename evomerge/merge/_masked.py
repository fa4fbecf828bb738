"""Methods that choose, entry by entry, whose change to keep: by variance, size, competition, overlap or importance.

Functions take the base tensor and the task vectors `inputs` (source minus base), except `arcee_fusion`, which takes the
other model's weights; all of one shape and float dtype. They return the merged weights as a new tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.merge._consensus import agreement, elect_signs, times, votes
from evomerge.merge._reductions import dot, sum_of
from evomerge.merge._sparsify import largest_mask
from evomerge.merge._top_k import order_statistic

# mergekit's SCE gives every model the same say where the mean squares sum to less; ordinary fine-tunes do.
_TINY_SQUARES = 1e-6
_TINY_DIVISOR = 1e-6


def sce(base: Tensor, inputs: Sequence[Tensor], *, select_topk: float, variant: str, lambda_: float) -> Tensor:
    """Return base + lambda * the sign-elected mean of the entries that vary most, models weighted by their energy.

    Args:
        base: the base tensor.
        inputs: task vectors.
        select_topk: fraction, of the entries whose variance over models is not zero, that is selected.
        variant: mergekit merges the selected entries only, and weighs all models alike where their mean squares sum to
            less than 1e-6 (true of ordinary fine-tunes). reference (FuseChat's code) uses the selection for the models'
            weights only and merges the whole task vectors.
        lambda_: scale of the merged delta.

    With select_topk below 1 and no variance (one model, or equal ones) nothing is selected: mergekit's variant returns
    the base, the reference the mean.

    Source: SCE of FuseChat, Wan et al. 2024, arXiv:2408.07990.
    """
    selected = list(inputs)  # select_topk 1 needs no variance, and no mask
    if select_topk < 1:
        variance = variance_over_models(inputs)
        # one mask for all models: the entry varies, not the model
        mask = largest_mask(variance, selected_count(int(torch.count_nonzero(variance)), select_topk))
        selected = [delta * mask for delta in inputs]
    # the mean square of what was selected
    fractions = energy_fractions([dot(delta, delta) / delta.numel() for delta in selected], variant)
    return sce_sum(base, inputs if variant == "reference" else selected, fractions, lambda_)


def sce_sum(base: Tensor, deltas: Sequence[Tensor], fractions: Sequence[float], lambda_: float) -> Tensor:
    """Return base + lambda * the sign-elected mean of deltas; element by element, so a block gives that block of it."""
    signs = elect_signs(deltas)
    total = sum_of(agreement(times(deltas, fractions), signs)).mul_(signs)  # magnitudes get their sign back
    divisor = votes(agreement(deltas, signs), fractions)  # the weights of the models that agree, per entry
    return base + total.div_(divisor.clamp_(min=_TINY_DIVISOR)) * lambda_


def variance_over_models(deltas: Sequence[Tensor]) -> Tensor:
    """Return each entry's population variance over models, computed in float64, in the deltas' dtype.

    torch.var gives the same numbers (its float64 steps differ, so one in many millions may round the other way) and
    takes ten times as long over a short first axis.
    """
    wide = [delta.double() for delta in deltas]  # float32 squares of small deltas would lose half their digits
    mean = sum_of(wide).div_(len(wide))
    squares = [(value - mean).square_() for value in wide]
    return sum_of(squares).div_(len(squares)).to(deltas[0].dtype)


def selected_count(nonzero: int, fraction: float) -> int:
    """Return how many of the entries that vary are selected.

    A float32 product of a tensor and a number, as in mergekit: 0.29 of 100 is 29 here.
    """
    return int(torch.tensor(nonzero) * fraction)


def energy_fractions(energy: Sequence[float], variant: str) -> list[float]:
    """Return each delta's mean square divided by the sum of them; equal ones where mergekit has them."""
    total, floor = sum(energy), 0.0 if variant == "reference" else _TINY_SQUARES
    return [value / total if total > floor else 1 / len(energy) for value in energy]


def magmax(base: Tensor, inputs: Sequence[Tensor], *, weight: Sequence[float], lambda_: float) -> Tensor:
    """Return base + lambda * the weighted delta of largest magnitude, entry by entry; the later model wins a tie.

    Source: MagMax, Marczak et al. 2024, arXiv:2407.06322.
    """
    chosen = inputs[0] * weight[0]
    for delta, w in zip(inputs[1:], weight[1:], strict=True):
        scaled = delta * w
        # `>=` lets the later model win
        chosen = torch.where(scaled.abs() >= chosen.abs(), scaled, chosen)
    return base + chosen * lambda_


def consensus(base: Tensor, inputs: Sequence[Tensor], *, alpha: float, mu: float, k: int, lambda_: float) -> Tensor:
    """Return base + lambda * alpha * the sum of deltas where at least `k` models find the sum useful.

    A model finds an entry useful where its own delta exceeds mu times what the others would change (TALL mask).

    Source: Wang et al. 2024, "Localizing task information for improved model merging and compression",
    arXiv:2405.07813.
    """
    joint = sum_of(inputs) * alpha  # the multi-task vector that the masks are compared with
    # int32: torch does not add bool tensors
    votes = sum_of([tall_mask(delta, joint, mu).to(torch.int32) for delta in inputs])
    return base + joint * (votes >= k) * lambda_  # entries that few models need are dropped whole


def tall_mask(delta: Tensor, joint: Tensor, mu: float) -> Tensor:
    """Return where |delta| exceeds mu * |joint - delta|, bool, `joint` being the scaled sum of all deltas."""
    return delta.abs() > (joint - delta).abs() * mu


def ram(base: Tensor, inputs: Sequence[Tensor], *, epsilon: float, lambda_: float) -> Tensor:
    """Return base + lambda * each entry's mean over the models that changed it by more than epsilon.

    Source: Reinforced Agent Merging, arXiv:2601.13572. Made for sparse deltas: dense ones are simply averaged.
    """
    return base + _overlap_merge(inputs, [1.0] * len(inputs), epsilon) * lambda_


def ramplus_tl(
    base: Tensor, inputs: Sequence[Tensor], *, r: float, alpha: float, epsilon: float, lambda_: float
) -> Tensor:
    """Return `ram` with the entries that only one model changed amplified by how much else that model shares.

    Model i's own entries are multiplied by 1 + r * min(rho, alpha), rho being the number of its shared entries over the
    number of its own ones, in this tensor.

    Source: RAM+ (tensor-local), arXiv:2601.13572.
    """
    active, count = _activity(inputs, epsilon)
    factors = []
    for mask in active:
        # entries of this model, in this tensor
        shared, own = int((mask & (count > 1)).sum()), int((mask & (count == 1)).sum())
        # epsilon also keeps the divisor from zero
        factors.append(1 + r * min(max(shared / max(own, epsilon), 0.0), alpha))
    return base + _overlap_merge(inputs, factors, epsilon) * lambda_


def _activity(deltas: Sequence[Tensor], epsilon: float) -> tuple[list[Tensor], Tensor]:
    """Return where each delta exceeds epsilon, and how many do."""
    active = [delta.abs() > epsilon for delta in deltas]
    return active, sum_of([mask.to(torch.int32) for mask in active])


def _overlap_merge(deltas: Sequence[Tensor], factors: Sequence[float], epsilon: float) -> Tensor:
    active, count = _activity(deltas, epsilon)
    own, divisor = count == 1, count.clamp(min=1)  # (entries,): changed by one model, and by how many
    parts = [
        torch.where(own, delta * factor, delta / divisor) * mask
        for delta, factor, mask in zip(deltas, factors, active, strict=True)
    ]
    return sum_of(parts)


def pcb(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    clip: float,
    variant: str,
    lambda_: float,
) -> Tensor:
    """Return base + lambda * the mean of deltas weighted by how well each entry does in competition.

    Args:
        base: the base tensor.
        inputs: task vectors.
        weight: coefficients of the models, outside the competition.
        density: fraction of entries whose competition score counts; the others share the lowest score.
        clip: fraction of the smallest, and of the largest, magnitudes that are clipped to the next one.
        variant: released compares a model's delta with the sum of deltas; vision with the sum of normalised ones.
        lambda_: scale of the merged delta.

    Source: PCB-Merging, Du et al. 2024, arXiv:2410.02396, the released code (the paper's text has a softmax).
    """
    magnitudes = [_clipped(delta.abs(), clip) for delta in inputs]
    clipped = [delta.sign() * magnitude for delta, magnitude in zip(inputs, magnitudes, strict=True)]
    fractions = [_min_max(magnitude) for magnitude in magnitudes]
    # the competition is between the task vectors as they are; only what is merged is clipped
    rivals = inputs if variant == "released" else [x.sign() * s for x, s in zip(clipped, fractions, strict=True)]
    together = sum_of(rivals)  # its sign says whether an entry's rivals pull the same way
    total, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for delta, merged, size, w, d in zip(inputs, clipped, fractions, weight, density, strict=True):
        # intra-competition grows with an entry's size in its model, inter-competition with agreement between models
        worth = torch.exp(len(inputs) * size.square()) * torch.tanh(delta * together)
        # entries below it are levelled, not removed: their score is the lowest
        floor = order_statistic(worth, min(int(worth.numel() * (1 - d)), worth.numel() - 1))
        score = _min_max(torch.maximum(worth, floor))
        total.add_(merged * score * w)
        divisor.add_(score)  # unweighted: `weight` stays outside the competition
    return base + total.div_(divisor.clamp_(min=1e-12)) * lambda_


def _clipped(magnitude: Tensor, clip: float) -> Tensor:
    """Return magnitudes clamped between the values at two truncated positions in their ascending order."""
    count = magnitude.numel()
    low, high = min(int(count * clip), count - 1), max(int(count * (1 - clip) - 1), 0)
    return magnitude.clamp(order_statistic(magnitude, low), order_statistic(magnitude, high))


def _min_max(values: Tensor) -> Tensor:
    """Return values mapped linearly to [0, 1]; zeros where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / torch.where(high > low, high - low, 1.0)  # the divisor 1 turns equal values into zeros


def arcee_fusion(base: Tensor, inputs: Sequence[Tensor], *, iqr_factor: float, lambda_: float) -> Tensor:
    """Return base + lambda * the changes of one model whose importance stands out.

    An entry's importance is its absolute change times the divergence between the softmaxes of its row (last axis) in
    the two models; it stands out from the median plus iqr_factor times the interquartile range. Quartiles are exact
    here; mergekit samples them in tensors of more than a million entries.

    Source: Arcee Fusion, as in mergekit.
    """
    (other,) = inputs
    delta = other - base
    importance = delta.abs() * _row_divergence(other, base)
    # exact, where torch.quantile refuses 16 million entries and more
    quartiles = [order_statistic(importance, int(q * (importance.numel() - 1))) for q in (0.25, 0.5, 0.75)]
    threshold = quartiles[1] + (quartiles[2] - quartiles[0]) * iqr_factor
    return base + delta * (importance >= threshold) * lambda_


def _row_divergence(left: Tensor, right: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of softmaxed rows, last axis kept with length 1."""
    # the constant, mergekit's, keeps the logarithm finite
    p, q = torch.softmax(left, dim=-1) + 1e-8, torch.softmax(right, dim=-1) + 1e-8
    return (p * torch.log(p / q)).sum(dim=-1, keepdim=True)
