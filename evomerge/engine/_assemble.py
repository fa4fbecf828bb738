"""One step of a merge: parents' tensors in, the merged tensor out.

The resident model and the exporter both come through here, so what is scored is what is exported, by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from evomerge.checkpoints import count_nonfinite
from evomerge.engine._merge_plan import TensorOp
from evomerge.errors import CandidateError, WeightsError
from evomerge.merge import mask_key, merge, method

Read = Callable[[str, str], Tensor]  # (model, tensor name) -> tensor, in its stored dtype


def assemble(step: TensorOp, read: Read, revisions: Mapping[str, str]) -> Tensor:
    """Return the tensor that a step describes, of the step's shape and dtype.

    The arithmetic is float32 (float64 where a parent is), rounded once at the end. A task vector is taken from the
    parents at their stored precision and lives only as long as the step.

    Args:
        step: what to make.
        read: gives a parent's tensor; all on one device.
        revisions: a name of every model that does not depend on where it lies. Random masks are keyed by it, so the
            same recipe draws the same masks on any machine.

    Raises:
        CandidateError: the result holds NaN or infinity.
        MergeError: a parameter does not fit the method.
        WeightsError: a buffer differs between the parents.
    """
    if not step.method:  # integers and tables are copied, not merged
        return _buffer(step, read)
    entry = method(step.method)
    base = None if step.base is None else read(step.base.model, step.base.tensor)
    inputs = [read(source.model, source.tensor) for source in step.inputs]
    if entry.inputs == "deltas" and base is not None:
        start = _wide(base)  # subtracted here, so that no task vector outlives its tensor
        inputs = [_wide(tensor) - start for tensor in inputs]
    keys = [mask_key(step.mask_seed, revisions[s.model], s.tensor) for s in step.inputs] if entry.random else []
    merged = merge(step.method, base, inputs, step.parameters, keys=keys, role=step.role)
    if step.fold is not None:
        # float64, so that folding rounds no more than the dtype in which the tensor is stored
        merged = (merged.double() + step.fold.offset) * step.fold.scale - step.fold.offset
    if step.via is not None:
        merged = merged.to(getattr(torch, step.via))  # mergekit rounds to `dtype` first, then to `out_dtype`
    merged = merged.to(getattr(torch, step.dtype))
    refuse_nonfinite(step, count_nonfinite(merged))
    return merged


def _wide(tensor: Tensor) -> Tensor:
    # float32 even for bfloat16 parents: 1.7 % of bfloat16 task vectors would not give their model back
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def refuse_nonfinite(step: TensorOp, bad: int) -> None:
    """Raise a CandidateError that describes the step if `bad`, the number of its values not finite, is not zero."""
    if bad:
        values = ", ".join(f"{name} {value}" for name, value in step.parameters.items())
        raise CandidateError(
            f"merged tensor '{step.name}' holds {bad} values that are NaN or infinite in {step.dtype}, of "
            f"{math.prod(step.shape)} ({step.method} with {values})"
        )


def _buffer(step: TensorOp, read: Read) -> Tensor:
    first, *others = step.inputs
    tensor = read(first.model, first.tensor)
    for source in others:
        if not torch.equal(tensor, read(source.model, source.tensor)):
            raise WeightsError(
                f"buffer '{step.name}' differs between '{first.model}' and '{source.model}'; buffers are copied, "
                "not merged, and must be equal"
            )
    return tensor.clone()  # the caller may write into it, and the parent must stay as it is
