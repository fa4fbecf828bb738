"""Statistics of whole tensors: equal numbers from every implementation, and nothing computed twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evomerge.checkpoints import ranking_stride
from evomerge.engine._merge_plan import Input
from evomerge.merge._masks import bernoulli
from evomerge.merge.kernels import TensorStats
from evomerge.merge.kernels import _dispatch as native
from evomerge.merge.kernels import _thresholds as thresholds
from evomerge.merge.kernels._torch_loops import dare_factor

BASE, SOURCE = Input("base", "t"), Input("one", "t")
COUNT = 150_001


def pair(ties: bool, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(COUNT, generator=generator)
    delta = torch.randn(COUNT, generator=generator) * 0.1
    return {"base": base.to(dtype), "one": (base + ((delta * 50).round() / 50 if ties else delta)).to(dtype)}


@pytest.mark.skipif(native.compiled() is None, reason="numba is not installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ties", [False, True])
def test_the_compiled_ranking_is_the_stable_sort(ties: bool, dtype: torch.dtype) -> None:
    tensors = pair(ties, dtype)
    delta = tensors["one"].float() - tensors["base"].float()
    expected = torch.sort(delta.abs(), descending=True, stable=True).indices
    assert torch.equal(native.ranked(tensors["base"], tensors["one"]).long(), expected)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_every_backend_finds_the_same_cut(backend: str, ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "torch":
        monkeypatch.setattr(native, "compiled", lambda: None)
    tensors = pair(ties)
    delta = tensors["one"] - tensors["base"]
    ranking = thresholds.rank(delta)
    every = [TensorStats(keep=True), TensorStats(keep=True, stride=64), TensorStats(keep=False)]
    for density in (0.0, 1e-6, 0.1, 0.5, 0.77, 1 - 1e-5, 1.0):
        expected = thresholds.cut(ranking, delta, density)
        assert thresholds.cut_once(delta, density) == expected
        for stats in every:
            assert stats.cut(lambda source: tensors[source.model], BASE, SOURCE, density) == expected


def test_what_was_measured_is_not_measured_again() -> None:
    tensors = pair(False)
    reads: list[str] = []

    def read(source: Input) -> Tensor:
        reads.append(source.model)
        return tensors[source.model]

    kept, forgetful = TensorStats(keep=True), TensorStats(keep=False)
    for stats, expected in ((kept, 2), (forgetful, 4)):
        reads.clear()
        first = stats.cosine(read, BASE, SOURCE)
        assert stats.cosine(read, BASE, SOURCE) == first
        assert len(reads) == expected


@pytest.mark.skipif(native.compiled() is None, reason="numba is not installed")
def test_the_norm_of_what_dare_keeps_is_summed_in_the_plain_order() -> None:
    tensors = pair(False)
    delta = tensors["one"] - tensors["base"]
    for density, key in ((0.1, 1), (0.5, 2**63 + 11), (0.93, 12345)):
        kept = delta * bernoulli(key, COUNT, density)
        pieces = [piece.abs().sum(dtype=torch.float64).item() for piece in kept.split(1 << 14)]
        before = sum(piece.abs().sum(dtype=torch.float64).item() for piece in delta.split(1 << 14))
        expected = before / sum(pieces)
        assert dare_factor(tensors["one"], density, key, "l1", base=tensors["base"]) == expected
        assert dare_factor(delta, density, key, "l1") == expected


def test_rankings_grow_sparse_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace
    from typing import Any

    from evomerge.checkpoints import _memory as plan

    layouts: Any = [SimpleNamespace(parameters=10**6)] * 4
    for free, expected in ((25 * 10**6, 1), (23 * 10**6, 64), (None, 1)):
        monkeypatch.setattr(plan, "available_bytes", lambda device, free=free: free)
        assert ranking_stride(layouts, "cpu") == expected
