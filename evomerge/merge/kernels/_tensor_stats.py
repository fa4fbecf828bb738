"""Statistics of whole tensors that block kernels need, computed on first use: rankings, norms, dot products.

None of it depends on a candidate's coefficients, so a resident model measures each pair of parents once, and every
candidate after that is one pass over memory. An exporter that merges once keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from evomerge.merge._interpolate import cosine_of
from evomerge.merge._reductions import dot
from evomerge.merge._sparsify import kept_count
from evomerge.merge.kernels import _dispatch as native
from evomerge.merge.kernels._row_ranks import RowRanks, rank_rows
from evomerge.merge.kernels._thresholds import KEEP_ALL, KEEP_NONE, Cut, Ranking, cut_at, cut_once, rank
from evomerge.merge.kernels._torch_loops import delta_norm
from evomerge.merge.kernels._variances import Variances, variances

_FITS_INT32 = 1 << 31

T = TypeVar("T")
# A parent's tensor, in its stored dtype, by a key that names model and tensor.
Read = Callable[[Any], Tensor]


class TensorStats:
    """Cache of whole-tensor statistics by model and tensor name; holds no weights.

    Several threads may ask at once, for different tensors.
    """

    def __init__(self, *, keep: bool, stride: int = 1) -> None:
        """Start empty.

        Args:
            keep: cache statistics. Otherwise each statistic is computed anew, by the fastest method for one.
            stride: of rankings; see `thresholds.rank`.
        """
        self._keep = keep
        self._stride = stride
        self._known: dict[tuple[object, ...], object] = {}

    def cut(self, read: Read, base: Hashable, source: Hashable, density: float) -> Cut:
        """Return the cut that a density makes in a task vector of any shape: a magnitude and a flat index."""
        tensor = read(source)
        count = tensor.numel()
        kept = kept_count(density, count)
        if kept in (0, count):  # no measurement is needed at the ends
            return KEEP_ALL if kept else KEEP_NONE
        if not self._keep:
            if native.taken(tensor, read(base)):
                return Cut(*native.select(read(base), tensor, kept))
            return cut_once(_delta(tensor, read(base)), density)
        # one sort per parent and tensor serves every density
        ranking = self._once(("rank", base, source), lambda: self._rank(tensor, read(base)))
        if self._stride > 1:
            return cut_at(ranking, _delta(tensor, read(base)), kept)
        last = int(ranking.order[kept - 1])  # index of the smallest kept entry
        entry = [flat[last].float() for flat in (tensor.reshape(-1), read(base).reshape(-1))]
        return Cut(abs(float(entry[0] - entry[1])), last)

    def row_ranks(self, read: Read, base: Hashable, source: Hashable) -> RowRanks:
        """Return the ranks of a task vector's entries in their rows, (elements,); cached unless memory is short."""
        if self._stride > 1:  # memory is short: ranks are made again for each candidate
            return rank_rows(read(source), read(base))
        return self._once(("rows", base, source), lambda: rank_rows(read(source), read(base)))

    def variances(self, read: Read, base: Hashable, sources: Sequence[Hashable]) -> Variances:
        """Return the variances over models, (elements,), that select entries; ranked where they are cached."""
        if not self._keep or self._stride > 1:
            return variances([read(source) for source in sources], read(base), ranked=False)
        key = ("variances", base, *sources)  # depends on the set of models, unlike the other statistics
        return self._once(key, lambda: variances([read(source) for source in sources], read(base), ranked=True))

    def norm(self, read: Read, base: Hashable, source: Hashable) -> float:
        """Return the L1 norm of a task vector of any shape, float64."""
        return self._once(("norm", base, source), lambda: delta_norm(read(source), read(base)))

    def squared_norm(self, read: Read, base: Hashable, source: Hashable) -> float:
        """Return the squared Euclidean norm of a task vector of any shape, float64."""

        def measure() -> float:
            delta = _delta(read(source), read(base))
            return dot(delta, delta)

        return self._once(("squared", base, source), measure)

    def cosine(self, read: Read, left: Hashable, right: Hashable) -> tuple[float, bool]:
        """Return the cosine between two models' flattened tensors, (elements,), and whether they count as collinear."""
        return self._once(("cosine", left, right), lambda: cosine_of(read(left), read(right)))

    def _rank(self, tensor: Tensor, base: Tensor) -> Ranking:
        if native.taken(tensor, base) and tensor.numel() < _FITS_INT32:
            return Ranking(native.ranked(base, tensor)[:: self._stride].contiguous(), tensor.numel(), self._stride)
        return rank(_delta(tensor, base), self._stride)  # torch's sort, where the compiled one does not apply

    def _once(self, key: tuple[object, ...], measure: Callable[[], T]) -> T:
        if key not in self._known:  # two threads never ask for one tensor, so no lock is needed
            value = measure()
            if not self._keep:
                return value
            self._known[key] = value
        return self._known[key]  # type: ignore[return-value]


def _delta(tensor: Tensor, base: Tensor) -> Tensor:
    return tensor.to(torch.float32) - base.to(torch.float32)
