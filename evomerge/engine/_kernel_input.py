"""Input of the kernels: one step of a merge with its tensors at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evomerge.engine._merge_plan import Input, TensorOp
from evomerge.merge.kernels import Kernel, Read, TensorStats, Thin, dare_block, taken


@dataclass(frozen=True)
class KernelInput:
    """One step with its tensors at hand, each (elements,), in their stored dtypes."""

    step: TensorOp
    base: Tensor | None
    inputs: tuple[Tensor, ...]
    arguments: Mapping[str, Any]  # complete and checked
    keys: tuple[int, ...]
    read: Read
    stats: TensorStats
    chunk: int  # elements that kernels work on at a time

    @property
    def compiled(self) -> bool:
        """Whether the compiled loops can merge this."""
        every = self.inputs if self.base is None else (self.base, *self.inputs)
        return self.step.dtype in ("float32", "bfloat16") and taken(*every)  # the loops know no other dtype

    @property
    def origin(self) -> Input:
        """Model and name of the base tensor; only for methods that need one."""
        assert self.step.base is not None
        return self.step.base

    def parts(self, out: Tensor, start: int) -> tuple[Tensor | None, list[Tensor]]:
        """Return views of base and inputs, each (n,), for the stretch `out`, (n,), of the result from `start` on."""
        stretch = slice(start, start + out.numel())  # views, not copies
        return None if self.base is None else self.base[stretch], [tensor[stretch] for tensor in self.inputs]


def dare_kernel(
    given: KernelInput, factors: Sequence[float], elect: bool, thin: Sequence[Thin] | None = None
) -> Kernel:
    """Return the torch kernel of a DARE or DELLA merge, which writes any stretch (n,) of the result.

    Args:
        given: the step.
        factors: per input, what its kept entries are multiplied with.
        elect: merge only the entries whose sign agrees with the elected one.
        thin: per input, what drops entries from its delta; None for a drop by chance alone.
    """
    values = given.arguments

    def kernel(out: Tensor, start: int) -> None:
        base, inputs = given.parts(out, start)
        assert base is not None
        dare_block(
            out,
            base,
            inputs,
            weight=values["weight"],
            density=values["density"],
            factor=factors,
            keys=given.keys,
            elect=elect,
            normalize=values["normalize"],
            lambda_=values["lambda_"],
            start=start,
            subtract=thin is None,  # a thinning subtracts the base itself
            thin=thin,
            chunk=given.chunk,
        )

    return kernel
