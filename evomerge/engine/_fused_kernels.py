"""Fast merging, block by block into existing memory, equal to `assemble` in every bit.

A method has a kernel if a block of its result needs that block of the parents and a few statistics of whole tensors
(`measures`). The others are merged whole, by their plain function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evomerge.engine import _rank_kernels as fused_by_rank
from evomerge.engine._kernel_input import Task, dare_fill
from evomerge.engine._merge_plan import Step
from evomerge.engine._tensor_stats import Measures, Read
from evomerge.merge import (
    Fill,
    adder,
    checked,
    dare_factor,
    dropper,
    mask_key,
    merge,
    metagpt_weights,
    method,
    slerp_shares,
    sum_block,
    sum_of_weights,
    ties_block,
    trimmer,
    weight_divisor,
    weighted_sum,
)


def filler(step: Step, read: Read, revisions: Mapping[str, str], measures: Measures, chunk: int) -> Fill | None:
    """Return a function that writes any flat stretch of a step's result, or None where only `assemble` can merge it.

    Whole tensors are read here, once per candidate at most, where the method needs new numbers about them.

    Args:
        step: what to make.
        read: gives a parent's tensor; all on one device.
        revisions: as in `assemble.assemble`.
        measures: remembers what was measured of the parents.
        chunk: elements that kernels work on at a time; does not change the result.

    Raises:
        MergeError: a parameter does not fit the method.
    """
    entry = method(step.method) if step.method and step.fold is None else None
    if entry is None or (entry.name not in _WAYS and not entry.blockwise):
        return None
    base = None if step.base is None else read(step.base)
    inputs = [read(source) for source in step.inputs]
    if not _fits(step, base, inputs):  # left to `assemble`, whose error messages are complete
        return None
    values = {word: value for word, value in step.parameters.items() if word not in entry.ignored}
    arguments = checked(entry.name, entry.parameters, values, len(inputs))
    keys = tuple(mask_key(step.mask_seed, revisions[s.model], s.tensor) for s in step.inputs) if entry.random else ()
    flat = tuple(tensor.reshape(-1) for tensor in inputs)  # views: parents are contiguous
    task = Task(step, None if base is None else base.reshape(-1), flat, arguments, keys, read, measures, chunk)
    return _WAYS.get(entry.name, _plainly)(task)


def _fits(step: Step, base: Tensor | None, inputs: list[Tensor]) -> bool:
    """Return whether kernels can merge a step; anything else (errors included) is left to `assemble`."""
    entry = method(step.method)
    fewest, most = entry.models
    every = inputs if base is None else [base, *inputs]
    return (
        fewest <= len(inputs) <= (most or len(inputs))
        and (base is not None or entry.base != "required")
        and all(tensor.dtype in (torch.float32, torch.bfloat16, torch.float16) for tensor in every)
        and step.dtype != "float64"  # kernels compute in float32
        and step.via in (None, "float32", step.dtype)  # another one would round twice
        and inputs[0].numel() > 0
        and (entry.blockwise or step.role != "experts" or len(step.shape) < 3)  # stacked experts: slice by slice
    )


def _plainly(task: Task) -> Fill:
    """Return the kernel of a blockwise method: its plain function, applied to a flat block of each tensor."""
    step = task.step
    subtract = method(step.method).inputs == "deltas"

    def fill(out: Tensor, start: int) -> None:
        base, inputs = task.parts(out, start)
        if subtract and base is not None:
            origin = base.float()
            inputs = [tensor.float() - origin for tensor in inputs]
        out.copy_(merge(step.method, base, inputs, step.parameters))  # rounds once, to the dtype of `out`

    return fill


def _linear(task: Task) -> Fill | None:
    weight, normalize = task.arguments["weight"], task.arguments["normalize"]
    divisor = sum_of_weights(weight, torch.float32) if normalize else None
    if divisor == 0:
        return None  # refused by the plain function, in its words
    if task.compiled:
        return adder(None, task.inputs, weight, divisor, fused=True)

    def fill(out: Tensor, start: int) -> None:
        sum_block(out, None, task.parts(out, start)[1], weight=weight, normalize=normalize, chunk=task.chunk)

    return fill


def _passthrough(task: Task) -> Fill:
    scale = task.arguments["scale"]

    def fill(out: Tensor, start: int) -> None:
        (tensor,) = task.parts(out, start)[1]
        if scale == 1 or tensor.dtype == out.dtype == torch.float32:
            # one pass; no float32 copy is needed
            torch.mul(tensor, scale, out=out) if scale != 1 else out.copy_(tensor)
        else:
            out.copy_(tensor.float() * scale)

    return fill


def _slerp(task: Task) -> Fill:
    source, origin = task.step.inputs[0], task.origin
    # the cosine is known from earlier candidates
    shares = slerp_shares(task.arguments["t"], *task.measures.cosine(task.read, origin, source))

    if task.compiled and task.base is not None:
        return adder(None, (task.base, *task.inputs), shares)

    def fill(out: Tensor, start: int) -> None:
        base, (other,) = task.parts(out, start)
        assert base is not None
        # a block of the formula is the formula of a block
        out.copy_(weighted_sum((base.float(), other.float()), shares))

    return fill


def _negation(task: Task) -> Fill | None:
    # base - x * lambda and base + x * -lambda are the same bits
    return _summed(task, task.arguments["weight"], False, -task.arguments["lambda_"])


def _metagpt(task: Task) -> Fill:
    known = zip(task.step.inputs, task.arguments["squared_norm"], strict=True)
    # per tensor, remembered between candidates
    norms = [task.measures.squared_norm(task.read, task.origin, s) if n < 0 else n for s, n in known]
    return _summed(task, metagpt_weights(task.inputs, norms), False, task.arguments["lambda_"])


def _task_arithmetic(task: Task) -> Fill:
    return _summed(task, task.arguments["weight"], task.arguments["normalize"], task.arguments["lambda_"])


def _summed(task: Task, weight: Sequence[float], normalize: bool, lambda_: float) -> Fill:
    if task.compiled:
        divisor = weight_divisor(weight, torch.float32) if normalize else None
        return adder(task.base, task.inputs, weight, divisor, lambda_)

    def fill(out: Tensor, start: int) -> None:
        base, inputs = task.parts(out, start)
        sum_block(
            out, base, inputs, weight=weight, normalize=normalize, lambda_=lambda_, subtract=True, chunk=task.chunk
        )

    return fill


def _ties(task: Task) -> Fill | None:
    values = task.arguments
    if values["rescale"] or values["variant"] != "mergekit":  # these need the whole trimmed delta
        return None
    places = zip(task.step.inputs, values["density"], strict=True)
    # one (value, last index) per model
    cuts = [task.measures.cut(task.read, task.origin, source, density) for source, density in places]
    if task.compiled and task.base is not None:
        more = (values["weight"], values["normalize"], values["lambda_"])
        return trimmer(task.base, task.inputs, cuts, *more)

    def fill(out: Tensor, start: int) -> None:
        base, inputs = task.parts(out, start)
        assert base is not None
        ties_block(
            out,
            base,
            inputs,
            cuts,
            weight=values["weight"],
            normalize=values["normalize"],
            lambda_=values["lambda_"],
            start=start,
            subtract=True,
            chunk=task.chunk,
        )

    return fill


def _dare_linear(task: Task) -> Fill:
    return _dare(task, elect=False)


def _dare_ties(task: Task) -> Fill:
    return _dare(task, elect=True)


def _dare(task: Task, *, elect: bool) -> Fill:
    values = task.arguments
    norm = values["rescale_norm"] if values["rescale"] else "none"
    factors = [  # L1 norms before and after the drop are whole-tensor sums
        dare_factor(
            tensor,
            density,
            key,
            norm,
            base=task.base,
            before=task.measures.norm(task.read, task.origin, source) if norm == "l1" else 0.0,
        )
        for tensor, density, key, source in zip(
            task.inputs, values["density"], task.keys, task.step.inputs, strict=True
        )
    ]
    if task.compiled and task.base is not None:
        weight, normalize = values["weight"], values["normalize"]
        divisor = weight_divisor(weight, torch.float32) if normalize and not elect else None
        thinning = (values["density"], factors, task.keys)
        return dropper(task.base, task.inputs, weight, *thinning, elect, normalize, divisor, values["lambda_"])

    return dare_fill(task, factors, elect)


_WAYS: Mapping[str, Callable[[Task], Fill | None]] = {
    "linear": _linear,
    "passthrough": _passthrough,
    "slerp": _slerp,
    "task_arithmetic": _task_arithmetic,
    "negation": _negation,
    "metagpt": _metagpt,
    "ties": _ties,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "della": fused_by_rank.della,
    "della_linear": fused_by_rank.della_linear,
    "sce": fused_by_rank.sce,
}
