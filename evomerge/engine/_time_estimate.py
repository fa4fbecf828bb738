"""Estimated time per candidate on this machine, from two measurements of a few milliseconds each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evomerge.checkpoints import WIDTHS, Layout

# Assumed tokens per item without a measurement: question, examples and answers.
TOKENS_PER_ITEM = 200
_COPY_BYTES = 1 << 25
_MATRIX = 768


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds per candidate, and what they were worked out from. Within a factor of a few, not more."""

    merge_seconds: float
    score_seconds: float
    copy_rate: float  # bytes per second, measured
    compute_rate: float  # floating-point operations per second, measured

    @property
    def seconds(self) -> float:
        """Seconds per candidate."""
        return self.merge_seconds + self.score_seconds

    @property
    def basis(self) -> str:
        """The assumptions and measured rates behind the estimate, one sentence."""
        return (
            f"every parent read and the result written at {self.copy_rate / 1e9:.1f} GB/s, 2 operations per parameter "
            f"and token at {self.compute_rate / 1e9:.0f} GFLOP/s, {TOKENS_PER_ITEM} tokens per item; rates measured on "
            "this machine's CPU just now"
        )


def estimate_time(layouts: Sequence[Layout], items: int) -> TimeEstimate:
    """Return the time that one candidate takes here.

    Args:
        layouts: of all models that are merged, the base first.
        items: that a candidate answers, over all tasks.
    """
    copy_rate, compute_rate = _copy_rate(), _compute_rate()
    moved = sum(layout.bytes for layout in layouts) + layouts[0].bytes  # parents read, result written
    # one multiplication and one addition per parameter and token
    operations = 2 * layouts[0].parameters * TOKENS_PER_ITEM * items
    return TimeEstimate(moved / copy_rate, operations / compute_rate, copy_rate, compute_rate)


def export_bytes(layout: Layout, dtype: str | None) -> int:
    """Return the disk that an exported model of this layout takes, in a dtype or else in its own."""
    width = WIDTHS.get(dtype or layout.dtype, WIDTHS[layout.dtype])
    return layout.parameters * width + sum(info.bytes for info in layout.buffers.values())


def _copy_rate() -> float:
    import torch

    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = _quickest(lambda: target.copy_(source))
    return 2 * _COPY_BYTES / seconds  # read and written


def _compute_rate() -> float:
    import torch

    matrix = torch.ones(_MATRIX, _MATRIX)
    seconds = _quickest(lambda: matrix @ matrix)
    return 2 * _MATRIX**3 / seconds


def _quickest(call: Callable[[], object], times: int = 3) -> float:
    call()  # warms caches and allocator; not timed
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return max(min(taken), 1e-9)  # the minimum: other processes only add time
