"""DELLA without sorting per candidate: the rank of every entry in its row, found once, gives its chance to be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.merge._masks import bernoulli
from evomerge.merge._reductions import SERIAL_CHUNK, chunks
from evomerge.merge._sparsify import TINY_NORM, check_chances
from evomerge.merge._top_k import falling_order
from evomerge.merge.kernels import _dispatch as native

_NARROW = 1 << 15  # a rank below this fits int16
_ROWS = 1 << 18  # elements ranked at a time; bounds scratch memory


@dataclass(frozen=True)
class RowRanks:
    """Ranks of a task vector's entries within their rows (vectors along the last axis), the smallest magnitude first.

    2 bytes per entry for rows of up to 32768 entries, else 4. They depend on the models alone, not on a candidate.
    """

    ranks: Tensor  # (count,) int16 or int32, flat; length - 1 is the largest magnitude of its row
    length: int  # entries in a row, 2 or more


def rank_rows(source: Tensor, base: Tensor) -> RowRanks:
    """Return the ranks of source - base, float32; the lower index counts as larger in a tie, as `keep_probability`."""
    length = source.shape[-1]
    narrow = torch.int16 if length <= _NARROW else torch.int32
    ranks = torch.empty(source.numel(), dtype=narrow, device=source.device)
    rows, starts, ranked = source.reshape(-1, length), base.reshape(-1, length), ranks.view(-1, length)
    falling = torch.arange(length - 1, -1, -1, dtype=narrow, device=source.device)
    for part in chunks(len(rows), max(1, _ROWS // length)):
        order = falling_order((rows[part].float() - starts[part].float()).abs())
        ranked[part].scatter_(-1, order, falling.expand(order.shape))
    return RowRanks(ranks, length)


@dataclass(frozen=True)
class Chances:
    """How one task vector is thinned: by the ranks of its entries, or all alike where there are none."""

    density: float  # 1 and more keeps everything, 0 and less nothing
    epsilon: float
    key: int  # seed of the mask
    ranks: RowRanks | None
    own: bool = False  # divide each kept entry by its own chance

    def of(self, start: int, stop: int) -> Tensor:
        """Return the chances of a stretch, float32; the operations are those of `sparsify.keep_probability`."""
        assert self.ranks is not None
        chance = self.ranks.ranks[start:stop].to(torch.float32)
        return chance.div_(self.ranks.length - 1).mul_(2).mul_(self.epsilon).add_(self.density - self.epsilon)

    def thin(self, start: int, source: Tensor, base: Tensor, out: Tensor) -> None:
        """Write the kept entries of the stretch of source - base that begins at the even index `start` into `out`."""
        if self.density <= 0:
            out.zero_()
            return
        if self.density < 1 and native.taken(source, base):
            assert self.ranks is not None
            native.thin_by_rank(
                out, source, base, start, self.ranks.ranks, self.ranks.length,
                (2.0, self.epsilon, self.density - self.epsilon), self.key, self.own,
            )  # fmt: skip
            return
        torch.sub(source.float(), base.float(), out=out)
        if self.density < 1:
            chance = self.of(start, start + out.numel())
            out.mul_(bernoulli(self.key, out.numel(), chance, start, out.device))
            if self.own:
                out.div_(chance)

    def factor(self, source: Tensor, base: Tensor, before: Callable[[], float]) -> float:
        """Return what brings the kept entries of the whole, flat source - base to its L1 norm `before`."""
        if self.density >= 1 or self.density <= 0:
            return 1.0
        kept = torch.empty(SERIAL_CHUNK, dtype=torch.float32, device=source.device)
        after = 0.0
        for part in chunks(source.numel(), SERIAL_CHUNK):  # the chunks of `absolute_sum`
            view = kept[: part.stop - part.start]
            self.thin(part.start, source[part], base[part], view)
            after += float(view.abs_().sum(dtype=torch.float64))
        norm = before()
        return norm / after if min(norm, after) >= TINY_NORM else 1.0


def chances(density: float, epsilon: float, key: int, own: bool, ranks: Callable[[], RowRanks]) -> Chances:
    """Return how a density thins one task vector; `ranks` is called only where they matter.

    Raises:
        MergeError: a probability would leave (0, 1).
    """
    if density >= 1 or density <= 0:
        return Chances(density, epsilon, key, None)
    check_chances(density, epsilon)
    return Chances(density, epsilon, key, ranks(), own)
