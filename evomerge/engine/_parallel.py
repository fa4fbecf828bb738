"""Merge plans run by several threads, block by block; each block is checked and hashed while it is in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from evomerge.engine._assemble import assemble, refuse_nonfinite
from evomerge.engine._fingerprint import description, examine, row_sums
from evomerge.engine._fused_kernels import make_kernel
from evomerge.engine._merge_plan import TensorOp
from evomerge.merge import chunks
from evomerge.merge.kernels import Kernel, TensorStats, available

# Elements per block, each a whole number of the fingerprint's rows. Alone, a thread takes blocks long enough that the
# cost of calling torch fades. Beside others, it takes blocks so short that torch does not share them among threads of
# its own, which would then outnumber the cores; compiled loops are not shared anyway. A GPU wants few launches.
_ALONE, _BESIDE, _COMPILED, _DEVICE = 1 << 17, 1 << 15, 1 << 18, 1 << 24
# Tensors larger than this are shared among threads; below the total, threads would only get in each other's way.
_SHARED = 1 << 22
_WORTH_THREADS = 1 << 20


class Target(Protocol):
    """Memory or file that receives the result of one step."""

    def block(self, start: int, stop: int) -> Tensor:
        """Return memory, (stop - start,), for these elements of the flat result, in the step's dtype."""

    def filled(self, start: int, block: Tensor) -> None:
        """Accept the block at `start`, flat, as final; called by any thread."""


@dataclass(frozen=True)
class Memory:
    """A target that is a contiguous tensor of any shape."""

    tensor: Tensor  # contiguous

    def block(self, start: int, stop: int) -> Tensor:
        """Return a view of the flat tensor, (stop - start,)."""
        return self.tensor.view(-1)[start:stop]

    def filled(self, start: int, block: Tensor) -> None:
        """Do nothing: the block (n,) is part of the tensor itself."""


@dataclass(frozen=True)
class _Part:
    """Hash sums, (rows,) int64, and non-finite count of a stretch that was written."""

    sums: Tensor  # (rows,) int64, see `fingerprint.row_sums`
    bad: int  # values that are NaN or infinite


Writes = Sequence[tuple[TensorOp, Target]]


class ParallelMerger:
    """Threads that run merge plans over the same parents. Holds measurements, no weights."""

    def __init__(
        self,
        read: Callable[[str, str], Tensor],
        revisions: Mapping[str, str],
        stats: TensorStats,
        *,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        block: int | None = None,
    ) -> None:
        """Set up without starting threads.

        Args:
            read: gives a parent's tensor (model, name), in its stored dtype; called from several threads.
            revisions: as in `assemble.assemble`.
            stats: what is remembered of the parents.
            device: where the tensors are.
            threads: None: as many as torch uses, at the time of each merge.
            block: elements per block, a power of two and a whole number of the fingerprint's rows in every dtype (from
                16384 on); None: what suits device and threads. Does not change the result.
        """
        self._read = read
        self._revisions = revisions
        self._stats = stats
        self._cpu = torch.device(device).type == "cpu"
        self._threads = threads
        self._block = block

    def run(self, work: Writes, finished: Callable[[TensorOp], None] = lambda step: None) -> dict[str, str]:
        """Write every step's result to its target and return what `fingerprint.combine` needs, by tensor.

        The hashes are taken from the targets' own memory, block by block, after it was written.

        Args:
            work: steps that merge (not those that copy a buffer), with their targets.
            finished: called after each step, by this thread.

        Raises:
            CandidateError: a result holds NaN or infinity.
            MergeError: a parameter does not fit the method.
        """
        total = sum(math.prod(step.shape) for step, _ in work)  # elements of the whole merge
        threads = 1 if not self._cpu or total < _WORTH_THREADS else self._threads or torch.get_num_threads()
        size = self._block or self._size(threads)
        hashes: dict[str, str] = {}
        # a generator: each result is checked at once
        for step, parts in self._alone(work, size) if threads == 1 else self._together(work, size, threads):
            refuse_nonfinite(step, sum(part.bad for part in parts))
            hashes[step.name] = description(step.dtype, step.shape, torch.cat([part.sums for part in parts]))
            finished(step)
        return hashes

    def _size(self, threads: int) -> int:
        if not self._cpu:
            return _DEVICE
        if available():
            return _COMPILED
        return _ALONE if threads == 1 else _BESIDE

    def _alone(self, work: Writes, size: int) -> Iterator[tuple[TensorOp, list[_Part]]]:
        for step, target in work:
            yield step, [self._whole(step, target, size)]

    def _together(self, work: Writes, size: int, threads: int) -> Iterator[tuple[TensorOp, list[_Part]]]:
        """Yield each step when its result is complete: large tensors in stretches, then small ones side by side."""
        # first: a large tensor at the end would leave threads idle
        large = [pair for pair in work if math.prod(pair[0].shape) > _SHARED]
        small = [pair for pair in work if math.prod(pair[0].shape) <= _SHARED]
        pool = ThreadPoolExecutor(threads, "merge")
        try:
            for step, target in large:
                kernel = self._kernel(step, size)
                if kernel is None:
                    yield step, [self._whole(step, target, size)]
                else:
                    stretch = partial(_stretch, target=target, kernel=kernel, size=size)
                    yield step, list(pool.map(stretch, chunks(math.prod(step.shape), _SHARED // 4)))
            results = pool.map(
                lambda pair: self._whole(pair[0], pair[1], size), small
            )  # results come in the order of the work
            for (step, _), part in zip(small, results, strict=True):
                yield step, [part]
        finally:
            pool.shutdown(cancel_futures=True)  # waits for those at work: nothing is written after an error left here

    def _kernel(self, step: TensorOp, size: int) -> Kernel | None:
        return make_kernel(
            step, lambda source: self._read(source.model, source.tensor), self._revisions, self._stats, size
        )

    def _whole(self, step: TensorOp, target: Target, size: int) -> _Part:
        kernel = self._kernel(step, size)
        if kernel is not None:
            return _stretch(slice(0, math.prod(step.shape)), target, kernel, size)
        merged = assemble(step, self._read, self._revisions).reshape(-1)
        block = target.block(0, merged.numel())
        block.copy_(merged)
        target.filled(0, block)
        return _Part(row_sums(block), 0)  # `assemble` has refused values that are not finite


def _stretch(stretch: slice, target: Target, kernel: Kernel, size: int) -> _Part:
    """Write one stretch of a step's flat result, (elements,), block by block."""
    sums, bad = [], 0
    for part in chunks(stretch.stop - stretch.start, size):
        first = stretch.start + part.start
        block = target.block(first, stretch.start + part.stop)
        kernel(block, first)
        hashed, wrong = examine(block)
        sums.append(hashed)
        bad += wrong
        target.filled(first, block)
    return _Part(torch.cat(sums), bad)
