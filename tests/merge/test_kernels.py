"""Cuts and block kernels against the plain methods: the same values, bit for bit, whatever is cut where."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merge import merge
from evomerge.merge._sparsify import keep_largest
from evomerge.merge.kernels import _thresholds as thresholds
from evomerge.merge.kernels import _torch_loops as kernels

SIZE = 400
DENSITIES = [0.0, 1e-4, 0.29, 0.5, 0.57, 0.999, 1.0]


def tensors(seed: int, count: int = 3, ties: bool = False) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(SIZE, generator=generator)
    deltas = [torch.randn(SIZE, generator=generator) for _ in range(count)]
    return base, [(delta * 4).round() / 4 if ties else delta for delta in deltas]  # quarters: zeros and many ties


def kept_by(bounds: thresholds.Cut, delta: Tensor) -> Tensor:
    """The readable reference: an entry stays if it is larger, or equal and not behind the last one."""
    kept = [
        abs(x) > bounds.value or (abs(x) == bounds.value and i <= bounds.last) for i, x in enumerate(delta.tolist())
    ]
    return delta * torch.tensor(kept)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("stride", [1, 7, 64, 5000])
def test_cut_keeps_what_sorting_keeps(stride: int, ties: bool) -> None:
    _, (delta, *_) = tensors(0, ties=ties)
    ranking = thresholds.rank(delta, stride)
    for density in DENSITIES:
        bounds = thresholds.cut(ranking, delta, density)
        expected = keep_largest(delta, density)
        assert torch.equal(delta if bounds.keeps_all else kept_by(bounds, delta), expected)


@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=40), st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_cut_at_every_rank(values: list[float], data: st.DataObject) -> None:
    delta = torch.tensor(values)
    ranking = thresholds.rank(delta, data.draw(st.integers(1, 9)))
    kept = data.draw(st.integers(0, len(values)))
    bounds = thresholds.cut_at(ranking, delta, kept)
    largest = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:kept]
    expected = torch.tensor([x if i in largest else 0.0 for i, x in enumerate(values)])
    assert torch.equal(delta if bounds.keeps_all else kept_by(bounds, delta), expected)


def test_shrink_bound_is_the_next_float_below() -> None:
    bounds = thresholds.Cut(0.5, 10)
    assert bounds.shrink_bound(11) == torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)).item()
    assert bounds.shrink_bound(12) == 0.5
    assert thresholds.KEEP_NONE.shrink_bound(5) == float("inf")


def in_blocks(kernel: Any, base: Tensor | None, inputs: list[Tensor], block: int, **values: Any) -> Tensor:
    out = torch.full((SIZE,), torch.nan)
    for start in range(0, SIZE, block):
        part = slice(start, start + block)
        offsets = {} if kernel is kernels.sum_block else {"start": start}
        kernel(out[part], None if base is None else base[part], [x[part] for x in inputs], **values, **offsets)
    return out


BLOCKS = [(SIZE, 64), (SIZE, 4096), (1, 64), (133, 50), (256, 256)]


@pytest.mark.parametrize(("block", "chunk"), BLOCKS)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_sum_block(block: int, chunk: int, count: int) -> None:
    base, deltas = tensors(1, count)
    weight = [0.7, -0.2, 1.3, 0.1, 0.4][:count]
    for normalize in (False, True):
        linear = in_blocks(kernels.sum_block, None, deltas, block, weight=weight, normalize=normalize, chunk=chunk)
        assert torch.equal(linear, merge("linear", None, deltas, {"weight": weight, "normalize": normalize}))
        values = {"weight": weight, "normalize": normalize, "lambda": 0.9}
        summed = in_blocks(
            kernels.sum_block, base, deltas, block, weight=weight, normalize=normalize, lambda_=0.9, chunk=chunk
        )
        assert torch.equal(summed, merge("task_arithmetic", base, deltas, values))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("block", "chunk"), BLOCKS)
@pytest.mark.parametrize("weight", [[1.0], [0.7, 0.3, 1.2], [0.7, -0.7, -1.2], [-0.5, -0.2], [1.0, 0.0, 1.0]], ids=str)
def test_ties_block(block: int, chunk: int, weight: list[float], ties: bool) -> None:
    base, deltas = tensors(2, len(weight), ties)
    for density in ([0.3] * 3, [1.0, 0.5, 0.0], [1e-9, 0.9, 0.2]):
        density = density[: len(weight)]
        cuts = [thresholds.cut(thresholds.rank(x, 16), x, d) for x, d in zip(deltas, density, strict=True)]
        for normalize, scale in ((True, 1.0), (False, -0.8)):
            out = in_blocks(
                kernels.ties_block,
                base,
                deltas,
                block,
                cuts=cuts,
                weight=weight,
                normalize=normalize,
                lambda_=scale,
                chunk=chunk,
            )
            values = {"weight": weight, "density": density, "normalize": normalize, "lambda": scale}
            assert torch.equal(out, merge("ties", base, deltas, values))


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize(("block", "chunk"), BLOCKS)
@pytest.mark.parametrize("norm", ["l1", "inv", "none"])
def test_dare_block(name: str, block: int, chunk: int, norm: str) -> None:
    base, deltas = tensors(3)
    weight, density, keys = [0.7, 0.3, 1.2], [0.4, 1.0, 0.9], [11, 12, 13]
    factor = [kernels.dare_factor(x, d, k, norm) for x, d, k in zip(deltas, density, keys, strict=True)]
    for normalize in (False, True):
        out = in_blocks(
            kernels.dare_block, base, deltas, block, weight=weight, density=density, factor=factor, keys=keys,
            elect=name == "dare_ties", normalize=normalize, chunk=chunk,
        )  # fmt: skip
        rescale = {"rescale": False} if norm == "none" else {"rescale_norm": norm}
        values = {"weight": weight, "density": density, "normalize": normalize, **rescale}
        assert torch.equal(out, merge(name, base, deltas, values, keys=keys))


def test_blocks_from_narrow_weights_round_once() -> None:
    base, deltas = tensors(4)
    base = base.bfloat16()
    models = [(base.float() + delta).bfloat16() for delta in deltas]
    exact = [model.float() - base.float() for model in models]
    weight, density = [0.7, 0.3, 1.2], [0.4, 0.5, 0.6]
    cuts = [thresholds.cut(thresholds.rank(x), x, d) for x, d in zip(exact, density, strict=True)]
    out = torch.empty(SIZE, dtype=torch.bfloat16)
    kernels.ties_block(out, base, models, cuts, weight=weight, subtract=True, chunk=100)
    assert torch.equal(out, merge("ties", base, exact, {"weight": weight, "density": density}).bfloat16())
    kernels.sum_block(out, base, models, weight=weight, subtract=True, chunk=100)
    assert torch.equal(out, merge("task_arithmetic", base, exact, {"weight": weight}).bfloat16())
    kernels.sum_block(out, None, models, weight=weight, chunk=100)
    assert torch.equal(out, merge("linear", None, models, {"weight": weight, "normalize": False}).bfloat16())


def test_blocks_may_be_written_over_the_base_and_leave_inputs_alone() -> None:
    base, deltas = tensors(5)
    copies = [delta.clone() for delta in deltas]
    expected = merge("ties", base, deltas, {"weight": [1.0] * 3, "density": [1.0] * 3})
    kernels.ties_block(base, base, deltas, [thresholds.KEEP_ALL] * 3, weight=[1.0] * 3)
    assert torch.equal(base, expected)
    assert all(torch.equal(delta, copy) for delta, copy in zip(deltas, copies, strict=True))


def test_many_switches_leave_no_trace() -> None:
    """Two hundred candidates in one resident tensor, each as if it were the first."""
    base, deltas = tensors(6)
    out = base.clone()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        weight = torch.rand(3, generator=generator).tolist()
        kernels.sum_block(out, base, deltas, weight=weight)
        assert torch.equal(out, merge("task_arithmetic", base, deltas, {"weight": weight}))
