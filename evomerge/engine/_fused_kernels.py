"""Fast merging, block by block into existing memory, equal to `assemble` in every bit.

A method has a kernel if a block of its result needs that block of the parents and a few statistics of whole tensors
(`stats`). The others are merged whole, by their plain function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evomerge.engine import _rank_kernels as fused_by_rank
from evomerge.engine._kernel_input import KernelInput, dare_kernel
from evomerge.engine._merge_plan import TensorOp
from evomerge.merge import (
    checked,
    mask_key,
    merge,
    metagpt_weights,
    method,
    slerp_coefficients,
    sum_of_weights,
    weight_divisor,
    weighted_sum,
)
from evomerge.merge.kernels import (
    Kernel,
    Read,
    TensorStats,
    adder,
    dare_factor,
    dropper,
    sum_block,
    ties_block,
    trimmer,
)


def make_kernel(
    step: TensorOp, read: Read, revisions: Mapping[str, str], stats: TensorStats, chunk: int
) -> Kernel | None:
    """Return a kernel that writes any flat stretch (n,) of a step's result, or None where only `assemble` can merge it.

    Whole tensors are read here, once per candidate at most, where the method needs new numbers about them.

    Args:
        step: what to make.
        read: gives a parent's tensor; all on one device.
        revisions: as in `assemble.assemble`.
        stats: remembers what was measured of the parents.
        chunk: elements that kernels work on at a time; does not change the result.

    Raises:
        MergeError: a parameter does not fit the method.
    """
    entry = method(step.method) if step.method and step.fold is None else None
    if entry is None or (entry.name not in KERNELS and not entry.blockwise):
        return None
    base = None if step.base is None else read(step.base)
    inputs = [read(source) for source in step.inputs]
    if not _fits(step, base, inputs):  # left to `assemble`, whose error messages are complete
        return None
    values = {word: value for word, value in step.parameters.items() if word not in entry.ignored}
    arguments = checked(entry.name, entry.parameters, values, len(inputs))
    keys = tuple(mask_key(step.mask_seed, revisions[s.model], s.tensor) for s in step.inputs) if entry.random else ()
    flat = tuple(tensor.reshape(-1) for tensor in inputs)  # views: parents are contiguous
    given = KernelInput(step, None if base is None else base.reshape(-1), flat, arguments, keys, read, stats, chunk)
    return KERNELS.get(entry.name, _plainly)(given)


def _fits(step: TensorOp, base: Tensor | None, inputs: list[Tensor]) -> bool:
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


def _plainly(given: KernelInput) -> Kernel:
    """Return the kernel of a blockwise method: its plain function, applied to a flat block of each tensor."""
    step = given.step
    subtract = method(step.method).inputs == "deltas"

    def kernel(out: Tensor, start: int) -> None:
        base, inputs = given.parts(out, start)
        if subtract and base is not None:
            origin = base.float()
            inputs = [tensor.float() - origin for tensor in inputs]
        out.copy_(merge(step.method, base, inputs, step.parameters))  # rounds once, to the dtype of `out`

    return kernel


def _linear(given: KernelInput) -> Kernel | None:
    weight, normalize = given.arguments["weight"], given.arguments["normalize"]
    divisor = sum_of_weights(weight, torch.float32) if normalize else None
    if divisor == 0:
        return None  # refused by the plain function, in its words
    if given.compiled:
        return adder(None, given.inputs, weight, divisor, fused=True)

    def kernel(out: Tensor, start: int) -> None:
        sum_block(out, None, given.parts(out, start)[1], weight=weight, normalize=normalize, chunk=given.chunk)

    return kernel


def _passthrough(given: KernelInput) -> Kernel:
    scale = given.arguments["scale"]

    def kernel(out: Tensor, start: int) -> None:
        (tensor,) = given.parts(out, start)[1]
        if scale == 1 or tensor.dtype == out.dtype == torch.float32:
            # one pass; no float32 copy is needed
            torch.mul(tensor, scale, out=out) if scale != 1 else out.copy_(tensor)
        else:
            out.copy_(tensor.float() * scale)

    return kernel


def _slerp(given: KernelInput) -> Kernel:
    source, origin = given.step.inputs[0], given.origin
    # the cosine is known from earlier candidates
    coefficients = slerp_coefficients(given.arguments["t"], *given.stats.cosine(given.read, origin, source))

    if given.compiled and given.base is not None:
        return adder(None, (given.base, *given.inputs), coefficients)

    def kernel(out: Tensor, start: int) -> None:
        base, (other,) = given.parts(out, start)
        assert base is not None
        # a block of the formula is the formula of a block
        out.copy_(weighted_sum((base.float(), other.float()), coefficients))

    return kernel


def _negation(given: KernelInput) -> Kernel | None:
    # base - x * lambda and base + x * -lambda are the same bits
    return _summed(given, given.arguments["weight"], False, -given.arguments["lambda_"])


def _metagpt(given: KernelInput) -> Kernel:
    known = zip(given.step.inputs, given.arguments["squared_norm"], strict=True)
    # per tensor, remembered between candidates
    norms = [given.stats.squared_norm(given.read, given.origin, s) if n < 0 else n for s, n in known]
    return _summed(given, metagpt_weights(given.inputs, norms), False, given.arguments["lambda_"])


def _task_arithmetic(given: KernelInput) -> Kernel:
    return _summed(given, given.arguments["weight"], given.arguments["normalize"], given.arguments["lambda_"])


def _summed(given: KernelInput, weight: Sequence[float], normalize: bool, lambda_: float) -> Kernel:
    if given.compiled:
        divisor = weight_divisor(weight, torch.float32) if normalize else None
        return adder(given.base, given.inputs, weight, divisor, lambda_)

    def kernel(out: Tensor, start: int) -> None:
        base, inputs = given.parts(out, start)
        sum_block(
            out, base, inputs, weight=weight, normalize=normalize, lambda_=lambda_, subtract=True, chunk=given.chunk
        )

    return kernel


def _ties(given: KernelInput) -> Kernel | None:
    values = given.arguments
    if values["rescale"] or values["variant"] != "mergekit":  # these need the whole trimmed delta
        return None
    densities = zip(given.step.inputs, values["density"], strict=True)
    # one (value, last index) per model
    cuts = [given.stats.cut(given.read, given.origin, source, density) for source, density in densities]
    if given.compiled and given.base is not None:
        more = (values["weight"], values["normalize"], values["lambda_"])
        return trimmer(given.base, given.inputs, cuts, *more)

    def kernel(out: Tensor, start: int) -> None:
        base, inputs = given.parts(out, start)
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
            chunk=given.chunk,
        )

    return kernel


def _dare_linear(given: KernelInput) -> Kernel:
    return _dare(given, elect=False)


def _dare_ties(given: KernelInput) -> Kernel:
    return _dare(given, elect=True)


def _dare(given: KernelInput, *, elect: bool) -> Kernel:
    values = given.arguments
    norm = values["rescale_norm"] if values["rescale"] else "none"
    factors = [  # L1 norms before and after the drop are whole-tensor sums
        dare_factor(
            tensor,
            density,
            key,
            norm,
            base=given.base,
            before=given.stats.norm(given.read, given.origin, source) if norm == "l1" else 0.0,
        )
        for tensor, density, key, source in zip(
            given.inputs, values["density"], given.keys, given.step.inputs, strict=True
        )
    ]
    if given.compiled and given.base is not None:
        weight, normalize = values["weight"], values["normalize"]
        divisor = weight_divisor(weight, torch.float32) if normalize and not elect else None
        thinning = (values["density"], factors, given.keys)
        return dropper(given.base, given.inputs, weight, *thinning, elect, normalize, divisor, values["lambda_"])

    return dare_kernel(given, factors, elect)


KERNELS: Mapping[str, Callable[[KernelInput], Kernel | None]] = {
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
