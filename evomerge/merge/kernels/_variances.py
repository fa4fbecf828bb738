"""SCE without sorting per candidate: which entries vary most over models, found once for every fraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.merge._masked import selected_count, variance_over_models
from evomerge.merge._reductions import SERIAL_CHUNK, chunks
from evomerge.merge._top_k import falling_order, last_kept
from evomerge.merge.kernels import _dispatch as native

_BLOCK = 1 << 18  # elements at a time; bounds scratch memory

Mask = Callable[[int, int], Tensor]  # ones where selected, zeros elsewhere, of the elements from start to stop


@dataclass(frozen=True)
class Variances:
    """The variances of a tensor's entries over models, in the form that the next question needs.

    4 bytes per entry in either form. Neither depends on a candidate.
    """

    nonzero: int
    values: Tensor | None  # (count,) float32; None where ranked
    ranks: Tensor | None  # (count,) int32, 0 being the largest variance, the lower index first in a tie

    def mask(self, fraction: float) -> Mask:
        """Return the mask of a fraction of the entries that vary at all, those of largest variance."""
        wanted = selected_count(self.nonzero, fraction)
        if self.ranks is not None:
            ranks = self.ranks
            return lambda start, stop: (ranks[start:stop] < wanted).to(torch.float32)
        assert self.values is not None
        values = self.values
        if wanted <= 0:
            return lambda start, stop: torch.zeros_like(values[start:stop])
        value, last = last_kept(values, wanted)

        def mask(start: int, stop: int) -> Tensor:
            kept = values[start:stop] > value
            before = max(0, min(last + 1, stop) - start)
            kept[:before] |= values[start : start + before] == value
            return kept.to(torch.float32)

        return mask


def variances(sources: Sequence[Tensor], base: Tensor, *, ranked: bool) -> Variances:
    """Return the variances of the task vectors source - base; ranked, for many fractions, or plain, for one."""
    flat, origin = [source.reshape(-1) for source in sources], base.reshape(-1)
    values = torch.empty(origin.numel(), dtype=torch.float32, device=origin.device)
    if native.taken(origin, *flat):
        native.variances(values, flat, origin)
    else:
        for part in chunks(origin.numel(), _BLOCK):
            start = origin[part].float()
            values[part] = variance_over_models([source[part].float() - start for source in flat])
    nonzero = int(torch.count_nonzero(values))
    if not ranked:
        return Variances(nonzero, values, None)
    ranks = torch.empty(values.numel(), dtype=torch.int32, device=values.device)
    positions = torch.arange(values.numel(), dtype=torch.int32, device=values.device)
    return Variances(nonzero, None, ranks.scatter_(0, falling_order(values), positions))


def energies(sources: Sequence[Tensor], base: Tensor, mask: Mask | None) -> list[float]:
    """Return the mean squares of the flat task vectors source - base where the mask is one, float64."""
    totals = [0.0] * len(sources)
    for part in chunks(base.numel(), SERIAL_CHUNK):  # the chunks of `reductions.dot`
        start = base[part].float()
        kept = None if mask is None else mask(part.start, part.stop)
        for index, source in enumerate(sources):
            delta = source[part].float() - start
            wide = (delta if kept is None else delta * kept).double()
            totals[index] += float((wide * wide).sum())
    return [total / base.numel() for total in totals]
