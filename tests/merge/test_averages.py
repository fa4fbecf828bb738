"""Weights over checkpoints, and the ends of a layer swap."""

import pytest
import torch

from evomerge.merge import _averages as averages
from evomerge.merge import merge


def test_layer_swap_copies_at_its_ends() -> None:
    task, language = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0])
    assert torch.equal(merge("layer_swap", None, [task, language], {"share": 0.0}), task)
    assert torch.equal(merge("layer_swap", None, [task, language], {"share": 1.0}), language)
    assert merge("layer_swap", None, [task, language], {"share": 0.5}).tolist() == [2.0, -1.0]


def test_checkpoint_weights() -> None:
    assert averages.sma_weights(4) == [0.25] * 4
    assert averages.wma_weights(3) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert averages.ema_weights(3, 0.5) == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert averages.ema_weights(3, 0.0) == pytest.approx(averages.sma_weights(3))
    assert averages.ema_weights(3, 1.0) == [0.0, 0.0, 1.0]
    checkpoints = [torch.tensor([value]) for value in (1.0, 2.0, 4.0)]
    assert float(merge("wma", None, checkpoints, {})) == pytest.approx(17 / 6)
    assert float(merge("ema", None, checkpoints, {"decay": 0.5})) == pytest.approx(3.0)
    assert float(merge("sma", None, checkpoints, {})) == pytest.approx(7 / 3)
