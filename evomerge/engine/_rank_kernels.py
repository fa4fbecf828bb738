"""Kernels of methods that choose entries by rank: DELLA within rows, SCE by variance over models."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from evomerge.engine._kernel_input import KernelInput, dare_kernel
from evomerge.merge import energy_fractions, sce_sum
from evomerge.merge.kernels import Kernel, chances, energies


def della(given: KernelInput) -> Kernel | None:
    """Return the kernel of `della`: ranks of all rows, (rows, length), once; then blocks (n,) alone."""
    return _thinned_by_rank(given, elect=True)


def della_linear(given: KernelInput) -> Kernel | None:
    """Return the kernel of `della_linear`; shapes as for `della`."""
    return _thinned_by_rank(given, elect=False)


def sce(given: KernelInput) -> Kernel | None:
    """Return the kernel of `sce`: variances over models, (elements,), once; then blocks (n,) alone."""
    values, base = given.arguments, given.base
    if base is None:
        return None  # without a base there is no task vector to rank
    mask = None
    if values["select_topk"] < 1:
        mask = given.stats.variances(given.read, given.origin, given.step.inputs).mask(values["select_topk"])
    fractions = energy_fractions(energies(given.inputs, base, mask), values["variant"])
    whole = mask is None or values["variant"] == "reference"  # what is merged, not what is weighed

    def kernel(out: Tensor, start: int) -> None:
        base, inputs = given.parts(out, start)
        assert base is not None
        origin = base.float()  # widened block by block
        deltas = [tensor.float() - origin for tensor in inputs]
        if not whole and mask is not None:
            kept = mask(start, start + out.numel())
            deltas = [delta * kept for delta in deltas]
        out.copy_(sce_sum(origin, deltas, fractions, values["lambda_"]))

    return kernel


def _thinned_by_rank(given: KernelInput, *, elect: bool) -> Kernel | None:
    values, base = given.arguments, given.base
    if base is None or not given.step.shape or given.step.shape[-1] < 2:
        return None  # rows of one entry have no ranks
    norm = values["rescale_norm"] if values["rescale"] else "none"
    each = list(zip(values["density"], values["epsilon"], given.keys, given.step.inputs, strict=True))
    thinnings = [
        chances(density, epsilon, key, norm == "inv", partial(given.stats.row_ranks, given.read, given.origin, source))
        for density, epsilon, key, source in each
    ]
    factors = [1.0] * len(thinnings)  # `inv` divides entry by entry, inside the thinning
    if norm == "l1":
        factors = [
            thinning.factor(tensor, base, partial(given.stats.norm, given.read, given.origin, source))
            for thinning, tensor, (_, _, _, source) in zip(thinnings, given.inputs, each, strict=True)
        ]

    return dare_kernel(given, factors, elect, [thinning.thin for thinning in thinnings])
