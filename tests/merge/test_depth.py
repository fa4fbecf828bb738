"""Shapes over depth and weights over checkpoints."""

import pytest
import torch

from evomerge.errors import MergeError
from evomerge.merge import averages, depth
from evomerge.merge.catalogue import merge


def test_lines_grows_from_the_first_layer_to_the_last() -> None:
    assert [depth.lines(layer, 4, 0.25, 0.75) for layer in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert depth.lines(None, 4, 0.25, 0.75) == 0.25  # embeddings, final norm, head
    assert depth.lines(0, 1, 0.25, 0.75) == 0.25


def test_lines_alpha_of_task_arithmetic_is_one_over_models() -> None:
    assert depth.lines_alpha(6.0, 6.0, 3) == pytest.approx(1 / 3)
    assert depth.lines_alpha(0.0, 0.0, 3) == 1.0


def test_lines_scales_any_task_vector_method_through_lambda() -> None:
    base, delta = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    factor = depth.lines(2, 3, 0.5, 0.5)
    half = merge("ties", base, [delta], {"weight": [1.0], "lambda": factor / 2})
    assert torch.equal(half, delta / 2)


@pytest.mark.parametrize(
    ("bottom", "top", "transition", "expected"),
    [
        (0, 0, 0, [0, 0, 0, 0]),
        (0, 0, 1, [0, 0, 0, 0]),
        (1, 1, 0, [1, 0, 0, 1]),
        (1, 3, 0, [1, 1, 1, 1]),
        (1, 1, 1, [1, 0.5, 0.5, 1]),
        (2, 0, 1, [1, 1, 0.5, 0]),
        (0, 1, 2, [0, 0.5, 0.5, 1]),
    ],
)
def test_layer_swap(bottom: int, top: int, transition: int, expected: list[float]) -> None:
    assert [depth.layer_swap(layer, 4, bottom, top, transition) for layer in range(4)] == expected
    assert depth.layer_swap(None, 4, bottom, top, transition) == (1.0 if bottom + top else 0.0)


def test_layer_swap_refuses_more_layers_than_there_are() -> None:
    with pytest.raises(MergeError, match="bottom 3 \\+ top 2 must be 0 to 4 layers"):
        depth.layer_swap(0, 4, 3, 2)


def test_layer_swap_copies_at_its_ends() -> None:
    task, language = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0])
    assert torch.equal(merge("layer_swap", None, [task, language], {"share": 0.0}), task)
    assert torch.equal(merge("layer_swap", None, [task, language], {"share": 1.0}), language)
    assert merge("layer_swap", None, [task, language], {"share": 0.5}).tolist() == [2.0, -1.0]


def test_gradient_is_piecewise_linear() -> None:
    assert [depth.gradient([0, 1, 0.5], t) for t in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 1, 0.75, 0.5]
    assert depth.gradient([0.3], 0.7) == 0.3
    assert [depth.gradient([1, 2], t) for t in (-1, 2)] == [1, 2]
    assert [depth.depth(layer, 3) for layer in range(3)] == [0, 0.5, 1]
    assert depth.depth(0, 1) == 1.0
    with pytest.raises(MergeError, match="at least one value"):
        depth.gradient([], 0.5)


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
