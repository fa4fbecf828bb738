"""Averages of checkpoints of one training run, given from the earliest to the latest.

Source: "Model merging in pre-training of large language models", Li et al. 2025, arXiv:2505.12082.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from evomerge.merge._reductions import fused_sum


def sma_weights(count: int) -> list[float]:
    """Return equal weights of `count` checkpoints; they sum to one."""
    return [1 / count] * count


def wma_weights(count: int) -> list[float]:
    """Return weights that grow linearly from the first to the last of `count` checkpoints; they sum to one."""
    return [2 * (index + 1) / (count * (count + 1)) for index in range(count)]


def ema_weights(count: int, decay: float) -> list[float]:
    """Return weights proportional to (1 - decay) to the power of a checkpoint's age; they sum to one.

    >>> ema_weights(2, 0.5)
    [0.3333333333333333, 0.6666666666666666]
    """
    raw = [(1 - decay) ** (count - 1 - index) for index in range(count)]  # the latest checkpoint has age 0 and weight 1
    total = sum(raw)  # closed form avoided: it divides by zero at decay 0
    return [value / total for value in raw]


def sma(base: Tensor | None, inputs: Sequence[Tensor]) -> Tensor:
    """Return the plain mean of checkpoints, each of the shape of the result."""
    # the rounding of `linear`, so that equal weights give equal bits
    return fused_sum(inputs, sma_weights(len(inputs)))


def wma(base: Tensor | None, inputs: Sequence[Tensor]) -> Tensor:
    """Return the mean of checkpoints with linearly growing weights."""
    return fused_sum(inputs, wma_weights(len(inputs)))


def ema(base: Tensor | None, inputs: Sequence[Tensor], *, decay: float) -> Tensor:
    """Return the exponentially weighted mean of checkpoints, the latest weighing most."""
    return fused_sum(inputs, ema_weights(len(inputs), decay))
