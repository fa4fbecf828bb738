"""Merging into memory that is there already, a cache-sized chunk at a time: fast versions of the plain methods.

Each kernel writes one block (any consecutive stretch of a flattened tensor) of a merged tensor into `out` and gives the
same values as the plain method, whatever the block and chunk sizes. Statistics of the whole tensor come in as
arguments: cuts from `thresholds`, factors from `dare_factor`. Kernels are float32 inside; base, inputs and out may be
narrower and are widened, or rounded once, on the way. With `subtract` the inputs are the models' weights and the base
is subtracted here, so that a resident model needs no task vectors in memory.

torch releases the interpreter's lock inside its operations, so blocks may be given to threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from evomerge.merge._consensus import weight_divisor
from evomerge.merge._masks import uniform
from evomerge.merge._reductions import SERIAL_CHUNK, absolute_sum, chunks, sum_of_weights
from evomerge.merge._sparsify import TINY_NORM
from evomerge.merge.kernels import _dispatch as native
from evomerge.merge.kernels._thresholds import Cut

# Elements per chunk: long enough that the cost of calling torch fades, short enough for buffers to stay in cache.
CHUNK = 1 << 17

# Writes what is kept of a stretch of source - base: (index of its first element, source, base, out).
Thin = Callable[[int, Tensor, Tensor, Tensor], None]


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
        out: flat block to write; may be the memory of `base`, not that of an input.
        base: flat block of the base, or None.
        inputs: flat blocks of the task vectors or weights.
        weight: one coefficient per input.
        normalize: divide by the sum of weights; refuse a zero sum before calling.
        lambda_: scale of the sum.
        subtract: inputs are weights from which the base is subtracted.
        chunk: elements worked on at a time; does not change the result.
    """
    divisor = (sum_of_weights if base is None else weight_divisor)(weight, torch.float32) if normalize else None
    # (total, term) rows, reused by every chunk
    buffers = torch.empty(2, min(chunk, out.numel()), dtype=torch.float32, device=out.device)
    for to, start, given, (total, term) in _walk(out, base, inputs, buffers, _sizes(out.numel(), chunk)):
        origin = start if subtract else None
        if base is None and to.dtype == torch.float32:
            total = to  # float32 results are summed where they belong, without a copy
        torch.mul(_delta(given[0], origin, total), weight[0], out=total)
        for tensor, w in zip(given[1:], weight[1:], strict=True):
            if base is None:  # as `linear` adds: multiply and add in one rounding
                total.add_(_delta(tensor, origin, term), alpha=w)
            else:
                total.add_(torch.mul(_delta(tensor, origin, term), w, out=term))
        _finish(to, start, total, None, divisor, lambda_)


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
    # (models + 2, chunk)
    buffers = torch.empty(len(inputs) + 2, min(chunk, out.numel()), dtype=torch.float32, device=out.device)
    factors = torch.tensor([list(weight)], dtype=torch.float32, device=out.device).T  # (models, 1)
    stop = start  # flat index behind the chunk, which decides between the two bounds of a cut
    for to, origin, given, work in _walk(out, base, inputs, buffers, _sizes(out.numel(), chunk, start, cuts)):
        stop += to.numel()
        kept = work[:-2]
        for delta, tensor, bounds in zip(kept, given, cuts, strict=True):
            source = _delta(tensor, origin if subtract else None, delta)
            if bounds.keeps_all:
                delta.copy_(source)
            else:
                torch.ops.aten.hardshrink.out(source, bounds.shrink_bound(stop), out=delta)
        kept.mul_(factors)
        signs = _disjoint(kept, weight, normalize, work[-2], work[-1])
        _finish(to, origin, work[-1], signs, None, lambda_)


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
    thin: Sequence[Thin] | None = None,
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
        thin: per input, how to thin it instead of by density and key; then inputs are weights.
        chunk: elements worked on at a time; does not change the result.
    """
    buffers = torch.empty(len(inputs) + 2, min(chunk, out.numel()), dtype=torch.float32, device=out.device)
    # (2, models, 1)
    factors = torch.tensor([list(factor), list(weight)], dtype=torch.float32, device=out.device).unsqueeze(-1)
    divisor = weight_divisor(weight, torch.float32) if normalize and not elect else None
    offset = start  # masks depend on an element's index in its tensor
    for to, origin, given, work in _walk(out, base, inputs, buffers, _sizes(out.numel(), chunk)):
        kept, merged = work[:-2], work[-1]
        for index, (delta, tensor) in enumerate(zip(kept, given, strict=True)):
            if thin is not None and origin is not None:
                thin[index](offset, tensor, origin, delta)
            else:
                source = _delta(tensor, origin if subtract else None, delta)
                _thin(source, density[index], keys[index], offset, delta)
        kept.mul_(factors[0]).mul_(factors[1])  # two roundings, as the plain method has them
        signs = None
        if elect:
            signs = _disjoint(kept, weight, normalize, work[-2], merged)
        else:
            _add_rows(kept, merged)
        _finish(to, origin, merged, signs, divisor, lambda_)
        offset += to.numel()


def dare_factor(
    delta: Tensor,
    density: float,
    key: int,
    rescale_norm: str,
    *,
    base: Tensor | None = None,
    before: float | None = None,
) -> float:
    """Return what DARE multiplies the kept entries of a tensor's whole delta by; `rescale_norm` l1, inv or none.

    With `base`, `delta` is the model's weights from which the base is subtracted here; `before` is the L1 norm of the
    delta where it is known already.
    """
    if density >= 1 or density <= 0 or rescale_norm == "none":  # nothing is dropped, or nothing is left to scale
        return 1.0
    if rescale_norm == "inv":
        return 1 / density  # the expectation of the kept sum is then that of the delta (DARE)
    flat, start = delta.reshape(-1), None if base is None else base.reshape(-1)
    if start is not None and native.taken(flat, start):
        after = native.kept_sum(start, flat, density, key)
    else:
        after = _kept_sum(flat, start, density, key)
    if before is None:
        before = delta_norm(delta, base)
    return before / after if min(before, after) >= TINY_NORM else 1.0


def _kept_sum(flat: Tensor, base: Tensor | None, density: float, key: int) -> float:
    kept = torch.empty(SERIAL_CHUNK, dtype=torch.float32, device=flat.device)
    total = 0.0
    for part in chunks(flat.numel(), SERIAL_CHUNK):
        view = kept[: part.stop - part.start]  # the last chunk is shorter
        _thin(_delta(flat[part], None if base is None else base[part], view), density, key, part.start, view)
        total += float(view.abs_().sum(dtype=torch.float64))
    return total


def delta_norm(tensor: Tensor, base: Tensor | None) -> float:
    """Return the L1 norm of a tensor's whole delta, float64; with `base`, of the difference."""
    if base is None:
        return absolute_sum(tensor)
    pieces = zip(tensor.reshape(-1).split(SERIAL_CHUNK), base.reshape(-1).split(SERIAL_CHUNK), strict=True)
    # one chunk of `absolute_sum` each; the sum of one number is that number
    return sum(absolute_sum(piece.float() - start.float()) for piece, start in pieces)


def _walk(
    out: Tensor, base: Tensor | None, inputs: Sequence[Tensor], buffers: Tensor, sizes: list[int]
) -> Iterator[tuple[Tensor, Tensor | None, tuple[Tensor, ...], Tensor]]:
    """Yield, chunk by chunk, views of out, base and inputs, and scratch rows of the same length."""
    starts = base.split(sizes) if base is not None else [None] * len(sizes)
    inputs_split = zip(*(tensor.split(sizes) for tensor in inputs), strict=True)
    for size, to, start, given in zip(sizes, out.split(sizes), starts, inputs_split, strict=True):
        yield to, start, given, buffers if size == buffers.shape[1] else buffers[:, :size]


def _delta(tensor: Tensor, base: Tensor | None, scratch: Tensor) -> Tensor:
    """Return the float32 task vector of a chunk: the tensor itself if it is one, else `scratch`."""
    if base is None:
        # `copy_` widens without another buffer
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
        # ones and zeros in float32: bool tensors are several times slower to multiply by
        kept = uniform(key, source.numel(), offset, source.device).lt_(density)
        torch.mul(source, kept, out=out)


def _add_rows(rows: Tensor, out: Tensor) -> None:
    """Write the sum of rows, added from the first to the last, into `out`."""
    if len(rows) == 1:
        out.copy_(rows[0])
    else:
        torch.add(rows[0], rows[1], out=out)
    for row in rows[2:]:
        out.add_(row)


def _disjoint(kept: Tensor, weight: Sequence[float], normalize: bool, total: Tensor, merged: Tensor) -> Tensor:
    """Write the magnitude of the disjoint merge of weighted deltas into `merged`, and return its signs (in `total`).

    `kept` (models, elements) is overwritten.
    """
    _add_rows(kept, total)
    total.add_(0.0)  # dropped entries may be negative zeros, and zero elects +
    signs = torch.copysign(torch.ones((), device=total.device), total, out=total)
    kept.mul_(signs).clamp_min_(0.0)  # magnitudes of those who agree, zero elsewhere
    _add_rows(kept, merged)
    merged.add_(0.0)  # clamping leaves negative zeros as they are
    if normalize:
        kept.sign_()  # ones where a model agrees, zeros elsewhere
        votes = kept[0].mul_(weight[0])
        for row, w in zip(kept[1:], weight[1:], strict=True):
            votes.add_(row, alpha=w)  # a product with one or zero is exact, fused or not
        merged.div_(_nonzero(votes, weight))
    return signs


def _nonzero(divisor: Tensor, weight: Sequence[float]) -> Tensor:
    """Return the divisor with a one (any number, where nothing is divided) instead of zeros, in place."""
    if min(weight) > 0:  # zero only where no model agrees
        return divisor.clamp_(min=min(weight))
    return divisor.masked_fill_(divisor == 0, 1.0)


def _finish(
    out: Tensor, base: Tensor | None, merged: Tensor, signs: Tensor | None, divisor: float | None, lambda_: float
) -> None:
    """Write base + lambda * signs * merged / divisor; `merged` is overwritten."""
    if divisor is not None:
        # a tensor, because a plain number becomes a product with its reciprocal
        merged.div_(torch.full((), divisor, dtype=torch.float32, device=merged.device))
    if lambda_ != 1:
        merged.mul_(lambda_)
    if base is None:
        if out is not merged:
            out.copy_(merged)
        return
    single = base if base.dtype == torch.float32 else base.float()  # widened late, so that only a chunk of it exists
    target = out if out.dtype == torch.float32 else merged
    if signs is None:
        torch.add(single, merged, out=target)
    else:
        torch.addcmul(single, merged, signs, out=target)  # the product is exact, fused or not
    if target is not out:
        out.copy_(target)


def _sizes(count: int, chunk: int, start: int = 0, cuts: Sequence[Cut] = ()) -> list[int]:
    """Return lengths of at most `chunk` that add up to `count`, none of which extends over the end of a cut."""
    marks = (bounds.last + 1 - start for bounds in cuts)  # relative to this block
    edges = sorted({*range(0, count, chunk), count, *(mark for mark in marks if 0 < mark < count)})
    return [right - left for left, right in pairwise(edges)]
