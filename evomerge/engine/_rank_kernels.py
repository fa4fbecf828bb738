"""Kernels of methods that choose entries by rank: DELLA within rows, SCE by variance over models."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from evomerge.engine._kernel_input import Task, dare_fill
from evomerge.merge import Fill, chances, energies, energy_shares, sce_sum


def della(task: Task) -> Fill | None:
    """Return the kernel of `thinned.della`."""
    return _thinned_by_rank(task, elect=True)


def della_linear(task: Task) -> Fill | None:
    """Return the kernel of `thinned.della_linear`."""
    return _thinned_by_rank(task, elect=False)


def sce(task: Task) -> Fill | None:
    """Return the kernel of `selective.sce`."""
    values, base = task.arguments, task.base
    if base is None:
        return None  # without a base there is no task vector to rank
    mask = None
    if values["select_topk"] < 1:
        mask = task.measures.variances(task.read, task.origin, task.step.inputs).mask(values["select_topk"])
    shares = energy_shares(energies(task.inputs, base, mask), values["variant"])
    whole = mask is None or values["variant"] == "reference"  # what is merged, not what is weighed

    def fill(out: Tensor, start: int) -> None:
        base, inputs = task.parts(out, start)
        assert base is not None
        origin = base.float()  # widened block by block
        deltas = [tensor.float() - origin for tensor in inputs]
        if not whole and mask is not None:
            kept = mask(start, start + out.numel())
            deltas = [delta * kept for delta in deltas]
        out.copy_(sce_sum(origin, deltas, shares, values["lambda_"]))

    return fill


def _thinned_by_rank(task: Task, *, elect: bool) -> Fill | None:
    values, base = task.arguments, task.base
    if base is None or not task.step.shape or task.step.shape[-1] < 2:
        return None  # rows of one entry have no ranks
    norm = values["rescale_norm"] if values["rescale"] else "none"
    each = list(zip(values["density"], values["epsilon"], task.keys, task.step.inputs, strict=True))
    thinnings = [
        chances(density, epsilon, key, norm == "inv", partial(task.measures.row_ranks, task.read, task.origin, source))
        for density, epsilon, key, source in each
    ]
    factors = [1.0] * len(thinnings)  # `inv` divides entry by entry, inside the thinning
    if norm == "l1":
        factors = [
            thinning.factor(tensor, base, partial(task.measures.norm, task.read, task.origin, source))
            for thinning, tensor, (_, _, _, source) in zip(thinnings, task.inputs, each, strict=True)
        ]

    return dare_fill(task, factors, elect, [thinning.thin for thinning in thinnings])
