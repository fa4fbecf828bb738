"""Merging into memory that is there already, a cache-sized chunk at a time: the fast twins of the plain methods.

Each kernel writes one block (any consecutive stretch of a flattened tensor) of a merged tensor into `out` and gives the
same values as the plain method, whatever the block and chunk sizes. Statistics of the whole tensor come in as
arguments: cuts from `thresholds`, factors from `dare_factor`. Kernels are float32 inside; base, inputs and out may be
narrower and are widened, or rounded once, on the way. With `subtract` the inputs are the models' weights and the base
is subtracted here, so that a resident model needs no task vectors in memory.

torch releases the interpreter's lock inside its operations, so blocks may be given to threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from evomerge.merge.consensus import weight_divisor
from evomerge.merge.masks import bernoulli
from evomerge.merge.reductions import SERIAL_CHUNK, absolute_sum, chunks
from evomerge.merge.sparsify import TINY_NORM
from evomerge.merge.thresholds import Cut

# Elements per chunk: a handful of float32 buffers of this length stay in a core's second-level cache.
CHUNK = 1 << 14


def sum_block(
    out: Tensor,
    base: Tensor | None,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    normalize: bool = False,
    lambda_: float = 1.0,
    subtract: bool = False,
    chunk: int = CHUNK,
) -> None:
    """Write a block of `linear` (base None) or `task_arithmetic` into `out`.

    Args:
        out: flat block to write; may be the memory of `base` or of an input's block.
        base: flat block of the base, or None.
        inputs: flat blocks of the task vectors or weights.
        weight: one coefficient per input.
        normalize: divide by the sum of weights; refuse a zero sum before calling.
        lambda_: scale of the sum.
        subtract: inputs are weights from which the base is subtracted.
        chunk: elements worked on at a time; does not change the result.
    """
    work = _Scratch(out, chunk, buffers=2)
    divisor = (sum(weight) if base is None else weight_divisor(weight, torch.float32)) if normalize else None
    for part in chunks(out.numel(), chunk):
        total, term = work.views(part)
        start = None if base is None else base[part]
        for index, (tensor, w) in enumerate(zip(inputs, weight, strict=True)):
            target = term if index else total
            torch.mul(_delta(tensor[part], start if subtract else None, target), w, out=target)
            if index:
                total.add_(term)
        _finish(out[part], start, total, divisor, lambda_)


def ties_block(
    out: Tensor,
    base: Tensor,
    inputs: Sequence[Tensor],
    cuts: Sequence[Cut],
    *,
    weight: Sequence[float],
    normalize: bool = True,
    lambda_: float = 1.0,
    start: int = 0,
    subtract: bool = False,
    chunk: int = CHUNK,
) -> None:
    """Write a block of `ties` (mergekit's variant, no rescaling) into `out`.

    Args:
        out: flat block to write; may be the memory of `base`.
        base: flat block of the base.
        inputs: flat blocks of the task vectors.
        cuts: per input, what its density keeps (`thresholds.cut`).
        weight: one coefficient per input.
        normalize: average the agreeing entries.
        lambda_: scale of the merged delta.
        start: flat index of the block's first element in its tensor.
        subtract: inputs are weights from which the base is subtracted.
        chunk: elements worked on at a time; does not change the result.
    """
    count = len(inputs)
    work = _Scratch(out, chunk, buffers=count + 3)
    for part in _stretches(out.numel(), chunk, [c.last + 1 - start for c in cuts]):
        *kept, total, merged, term = work.views(part)
        origin = base[part]
        for delta, given, bounds, w in zip(kept, inputs, cuts, weight, strict=True):
            source = _delta(given[part], origin if subtract else None, delta)
            if not bounds.keeps_all:
                bound = bounds.shrink_bound(start + part.stop)
                source = torch.ops.aten.hardshrink.out(source, bound, out=delta)
            torch.mul(source, w, out=delta)
        _disjoint(kept, weight, normalize, total, merged, term)
        _finish(out[part], origin, merged, None, lambda_)


def dare_block(
    out: Tensor,
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    factor: Sequence[float],
    keys: Sequence[int],
    elect: bool,
    normalize: bool = False,
    lambda_: float = 1.0,
    start: int = 0,
    subtract: bool = False,
    chunk: int = CHUNK,
) -> None:
    """Write a block of `dare_linear`, or with `elect` of `dare_ties`, into `out`.

    Args:
        out: flat block to write; may be the memory of `base`.
        base: flat block of the base.
        inputs: flat blocks of the task vectors.
        weight: one coefficient per input.
        density: per input, the chance of an entry to be kept.
        factor: per input, what its kept entries are multiplied by (`dare_factor`).
        keys: per input, its mask key.
        elect: elect a sign and merge disjointly.
        normalize: divide by the weights.
        lambda_: scale of the merged delta.
        start: flat index of the block's first element in its tensor.
        subtract: inputs are weights from which the base is subtracted.
        chunk: elements worked on at a time; does not change the result.
    """
    work = _Scratch(out, chunk, buffers=len(inputs) + 3)
    divisor = weight_divisor(weight, torch.float32) if normalize and not elect else None
    for part in chunks(out.numel(), chunk):
        *kept, total, merged, term = work.views(part)
        origin = base[part]
        for delta, given, d, f, key, w in zip(kept, inputs, density, factor, keys, weight, strict=True):
            source = _delta(given[part], origin if subtract else None, delta)
            _thin(source, d, key, start + part.start, delta)
            delta.mul_(f).mul_(w)
        if elect:
            _disjoint(kept, weight, normalize, total, merged, term)
        else:
            merged.copy_(kept[0])
            for delta in kept[1:]:
                merged.add_(delta)
        _finish(out[part], origin, merged, divisor, lambda_)


def dare_factor(delta: Tensor, density: float, key: int, rescale_norm: str) -> float:
    """Return what DARE multiplies the kept entries of a tensor's whole delta by; `rescale_norm` l1, inv or none."""
    if density >= 1 or density <= 0 or rescale_norm == "none":
        return 1.0
    if rescale_norm == "inv":
        return 1 / density
    flat = delta.reshape(-1)
    kept = torch.empty(SERIAL_CHUNK, dtype=torch.float32, device=delta.device)
    after = 0.0
    for part in chunks(flat.numel(), SERIAL_CHUNK):
        view = kept[: part.stop - part.start]
        _thin(flat[part], density, key, part.start, view)
        after += float(view.abs_().sum(dtype=torch.float64))
    before = absolute_sum(delta)
    return before / after if min(before, after) >= TINY_NORM else 1.0


class _Scratch:
    """Float32 buffers of one chunk each, allocated once per block."""

    def __init__(self, like: Tensor, chunk: int, buffers: int) -> None:
        length = min(chunk, like.numel())
        self.buffers = [torch.empty(length, dtype=torch.float32, device=like.device) for _ in range(buffers)]

    def views(self, part: slice) -> list[Tensor]:
        length = part.stop - part.start
        return [buffer[:length] for buffer in self.buffers]


def _delta(tensor: Tensor, base: Tensor | None, scratch: Tensor) -> Tensor:
    """Return the float32 task vector of a chunk: the tensor itself if it is one, else `scratch`."""
    if base is None:
        return tensor if tensor.dtype == torch.float32 else scratch.copy_(tensor)
    if tensor.dtype == base.dtype == torch.float32:
        return torch.sub(tensor, base, out=scratch)
    return scratch.copy_(tensor).sub_(base.float())


def _thin(source: Tensor, density: float, key: int, offset: int, out: Tensor) -> None:
    if density >= 1:
        out.copy_(source)
    elif density <= 0:
        out.zero_()
    else:
        torch.mul(source, bernoulli(key, source.numel(), density, offset, source.device), out=out)


def _disjoint(
    kept: Sequence[Tensor], weight: Sequence[float], normalize: bool, total: Tensor, merged: Tensor, term: Tensor
) -> None:
    """Write the disjoint merge of weighted deltas into `merged`; `kept`, `total` and `term` are overwritten."""
    torch.add(kept[0], kept[1] if len(kept) > 1 else 0.0, out=total)
    for delta in kept[2:]:
        total.add_(delta)
    # +1 or -1; a sum of negative zeros elects -1, for which nobody votes either way
    signs = torch.copysign(torch.ones((), device=total.device), total, out=total)
    for index, delta in enumerate(kept):  # magnitudes of those who agree, zero elsewhere
        delta.mul_(signs).clamp_(min=0.0)
        if index == 1:
            torch.add(kept[0], delta, out=merged)
        elif index:
            merged.add_(delta)
    if len(kept) == 1:
        merged.copy_(kept[0])
    if normalize:
        for index, (delta, w) in enumerate(zip(kept, weight, strict=True)):
            delta.sign_().mul_(w)
            if index:
                kept[0].add_(delta)
        merged.div_(_nonzero(kept[0], weight))
    merged.mul_(signs).add_(0.0)


def _nonzero(divisor: Tensor, weight: Sequence[float]) -> Tensor:
    """Return the divisor with a one (any number, where nothing is divided) instead of zeros, in place."""
    if min(weight) > 0:  # zero only where no model agrees
        return divisor.clamp_(min=min(weight))
    return divisor.masked_fill_(divisor == 0, 1.0)


def _finish(out: Tensor, base: Tensor | None, merged: Tensor, divisor: float | None, lambda_: float) -> None:
    """Write base + lambda * merged / divisor; `merged` is overwritten."""
    if divisor is not None:
        merged.div_(torch.full((), divisor, dtype=torch.float32, device=merged.device))
    if lambda_ != 1:
        merged.mul_(lambda_)
    if base is None:
        out.copy_(merged)
    elif out.dtype == base.dtype == torch.float32:
        torch.add(base, merged, out=out)
    else:
        out.copy_(merged.add_(base) if base.dtype == torch.float32 else merged.add_(base.float()))


def _stretches(count: int, chunk: int, marks: Sequence[int]) -> list[slice]:
    """Return slices of at most `chunk` elements that cover `range(count)` and do not extend over a mark."""
    edges = sorted({*range(0, count, chunk), count, *(mark for mark in marks if 0 < mark < count)})
    return [slice(left, right) for left, right in pairwise(edges)]
