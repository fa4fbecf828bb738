"""Kernels against plain functions: every method, the same bits, for any blocks and any number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge.engine import _parallel as module
from evomerge.engine._assemble import assemble
from evomerge.engine._fingerprint import describe, examine
from evomerge.engine._fused_kernels import make_kernel
from evomerge.engine._merge_plan import Input, TensorOp
from evomerge.engine._parallel import Memory, ParallelMerger
from evomerge.errors import CandidateError, MergeError
from evomerge.merge import CATALOGUE, method
from evomerge.merge.kernels import TensorStats
from evomerge.merge.kernels import _dispatch as native

MODELS = ("base", "one", "two", "three")
REVISIONS = {model: f"revision of {model}" for model in MODELS}
# one element, odd, one row of the fingerprint and a bit, several blocks
SHAPES = [(), (1,), (7, 3), (8193,), (3, 99, 101)]

# What a search varies, per method; what is missing takes its default.
PER_MODEL: dict[str, list[Any]] = {"weight": [0.7, -0.3, 1.2], "density": [0.31, 1.0, 0.05], "n": [2, 3, 1]}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "linear": [{}, {"normalize": False}, {"weight": [0.5, 0.0, 0.5]}],
    "slerp": [{"t": 0.0}, {"t": 0.3}, {"t": 1.0}],
    "nearswap": [{"t": 0.01}],
    "passthrough": [{}, {"scale": 0.7}, {"scale": -1.0}],
    "layer_swap": [{"share": 0.25}, {"share": 1.0}],
    "task_arithmetic": [{}, {"normalize": True, "lambda": 0.8}, {"weight": [0.0, 0.0, 0.0]}],
    "negation": [{}, {"lambda": -0.5}],
    "ties": [
        {},
        {"normalize": False, "lambda": 1.3},
        {"density": [0.0, 0.5, 0.999]},
        {"density": [1.0, 1.0, 1.0]},
        {"weight": [-0.5, -0.2, -0.1]},
        {"rescale": True},
        {"variant": "reference"},
    ],
    "dare_linear": [{}, {"rescale": False}, {"rescale_norm": "inv", "normalize": True}, {"density": [0.0, 0.5, 0.9]}],
    "dare_ties": [{}, {"rescale": False}, {"rescale_norm": "inv", "normalize": True}, {"lambda": 0.5}],
    "della": [
        {"density": [0.4, 1.0, 0.6]},
        {"density": [0.0, 0.5, 0.6], "epsilon": [0.1, 0.3, 0.05], "normalize": True, "lambda": 0.7},
        {"density": [0.4, 0.5, 0.6], "rescale_norm": "inv"},
        {"density": [0.4, 0.5, 0.6], "rescale": False},
    ],
    "della_linear": [
        {"density": [0.4, 1.0, 0.6]},
        {"density": [0.4, 0.5, 0.6], "rescale_norm": "inv", "normalize": True},
    ],
    "sce": [
        {},
        {"select_topk": 0.3},
        {"select_topk": 0.0},
        {"select_topk": 0.6, "variant": "reference", "lambda": 0.8},
    ],
    "cabs": [{"m": 5}],
}


@pytest.fixture(autouse=True, params=["torch", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds with torch alone, and with the compiled loops where numba is installed."""
    if request.param == "torch":
        monkeypatch.setattr(native, "compiled", lambda: None)
    elif native.compiled() is None:
        pytest.skip("numba is not installed")
    return request.param


def parents(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """A base and three fine-tunes, some of whose entries did not change or changed by equal amounts."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    made = {"base": base}
    for index, model in enumerate(MODELS[1:]):
        delta = torch.randn(shape, generator=generator) * 0.1
        made[model] = base + (delta if index else (delta * 8).round() / 8)
    return {model: tensor.to(dtype) for model, tensor in made.items()}


def step_of(name: str, shape: tuple[int, ...], dtype: str = "float32", **values: Any) -> TensorOp:
    entry = method(name)
    count = entry.models[1] or 3
    base = None if entry.base == "none" else Input("base", "t")
    parameters = {
        p.name: tuple(PER_MODEL[p.name][:count]) for p in entry.parameters if p.name in PER_MODEL and p.per_model
    }
    more = {key: tuple(value[:count]) if isinstance(value, list) else value for key, value in values.items()}
    inputs = tuple(Input(model, "t") for model in MODELS[1 : count + 1])
    role: Any = "vector" if len(shape) < 2 else "matrix"
    parameters = {**parameters, **more}
    return TensorOp("t", shape, dtype, name, inputs, base, parameters, role, mask_seed=5)


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def check(step: TensorOp, tensors: dict[str, Tensor], revisions: dict[str, str] = REVISIONS, **options: Any) -> None:
    """Write a step into memory full of NaN, twice (the second time from remembered measures), and compare."""

    def read(model: str, name: str) -> Tensor:
        return tensors[model]

    before = {model: tensor.clone() for model, tensor in tensors.items()}
    expected = assemble(step, read, revisions)
    for keep, stride in ((True, 1), (True, 7), (False, 1)):
        merger = ParallelMerger(read, revisions, TensorStats(keep=keep, stride=stride), **options)
        for _ in range(2 if keep else 1):
            out = torch.full(step.shape, torch.nan, dtype=getattr(torch, step.dtype))
            hashes = merger.run([(step, Memory(out))])
            assert torch.equal(bits(out), bits(expected)), (step.method, step.parameters, step.shape, step.dtype)
            assert hashes == {"t": describe(expected)}
    assert all(torch.equal(bits(tensors[model]), bits(before[model])) for model in tensors)


CASES = [(name, values) for name in CATALOGUE for values in SETTINGS.get(name, [{}])]


@pytest.mark.parametrize(("name", "values"), CASES, ids=lambda value: str(value))
def test_every_method_gives_the_plain_bits(name: str, values: dict[str, Any]) -> None:
    for shape in SHAPES:
        check(step_of(name, shape, **values), parents(shape, torch.float32), block=8192)


FAST = [
    *("linear", "slerp", "passthrough", "task_arithmetic", "ties", "dare_linear", "dare_ties", "magmax", "negation"),
    *("della", "sce"),
]
DTYPES = [
    (torch.bfloat16, "bfloat16"),
    (torch.float16, "float16"),
    (torch.float32, "bfloat16"),
    (torch.bfloat16, "float32"),
    (torch.float32, "float64"),
    (torch.float64, "float32"),
]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize(("stored", "written"), DTYPES, ids=str)
def test_other_precisions(name: str, stored: torch.dtype, written: str) -> None:
    for values in SETTINGS.get(name, [{}]):
        check(step_of(name, (5, 3333), written, **values), parents((5, 3333), stored), block=16384)


def test_parents_of_different_precision() -> None:
    tensors = parents((5, 3333), torch.float32)
    tensors |= {"one": tensors["one"].bfloat16(), "two": tensors["two"].half()}
    for name in FAST:
        check(step_of(name, (5, 3333), **SETTINGS.get(name, [{}])[0]), tensors, block=8192)


@pytest.mark.parametrize(("threads", "block"), [(1, 8192), (2, 8192), (3, 16384), (2, None)])
def test_threads_and_blocks(threads: int, block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tensors, some shared among threads; each name has parameters of its own, as over depth."""
    monkeypatch.setattr(module, "_WORTH_THREADS", 0)
    monkeypatch.setattr(module, "_SHARED", 1 << 16)
    shapes = [(300, 301), (17,), (70_000,), (3, 5), (65536,)]
    every = {f"t{index}": parents(shape, torch.float32, index) for index, shape in enumerate(shapes)}

    def read(model: str, name: str) -> Tensor:
        return every[name][model]

    merger = ParallelMerger(read, REVISIONS, TensorStats(keep=True), threads=threads, block=block)
    for name in ("linear", "ties", "dare_ties", "sce", "slerp"):
        steps = []
        for index, shape in enumerate(shapes):
            values = {"slerp": {"t": 0.1 * index}, "sce": {"select_topk": 0.4}}
            values = values.get(name, {"weight": [0.2 * index + 0.1, 0.5, 1.0]})
            made = step_of(name, shape, **values)
            places = [tuple(Input(i.model, f"t{index}") for i in made.inputs), made.base and Input("base", f"t{index}")]
            steps.append(
                TensorOp(f"t{index}", shape, "float32", name, *places, made.parameters, made.role, mask_seed=5)
            )
        outs = [torch.full(shape, torch.nan) for shape in shapes]
        seen: list[str] = []
        work = [(step, Memory(out)) for step, out in zip(steps, outs, strict=True)]
        hashes = merger.run(work, lambda step, seen=seen: seen.append(step.name))
        for step, out in zip(steps, outs, strict=True):
            expected = assemble(step, read, REVISIONS)
            assert torch.equal(bits(out), bits(expected)), (name, step.name)
            assert hashes[step.name] == describe(expected)
        assert sorted(seen) == sorted(every)


def test_the_fast_way_is_really_taken() -> None:
    tensors = parents((64,), torch.float32)
    taken = {
        name
        for name, values in CASES
        if make_kernel(
            step_of(name, (64,), **values), lambda source: tensors[source.model], REVISIONS, TensorStats(keep=True), 64
        )
    }
    assert taken >= {
        *FAST,
        "sma",
        "wma",
        "ema",
        "layer_swap",
        "nearswap",
        "ram",
        "consensus",
        "metagpt",
        "della",
        "della_linear",
        "sce",
    }


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_any_number_of_models(name: str, count: int) -> None:
    """The compiled loops take four models in one pass; on either side of that it must not matter."""
    generator = torch.Generator().manual_seed(count)
    tensors = {"base": torch.randn(3001, generator=generator)}
    for index in range(count):
        tensors[f"m{index}"] = tensors["base"] + 0.1 * torch.randn(3001, generator=generator)
        tensors[f"m{index}"][::7] = tensors["base"][::7] * (-0.0 if index == 0 else 1.0)  # signed zeros, no change
    tensors["base"][::13] = -0.0
    models = [f"m{index}" for index in range(count)]
    entry = method(name)
    parameters: dict[str, Any] = {"weight": tuple(0.3 * (-1) ** index + 0.1 * index for index in range(count))}
    if name != "linear" and name != "task_arithmetic":
        parameters["density"] = tuple(0.2 + 0.7 * index / count for index in range(count))
    for normalize in (False, True):
        inputs = tuple(Input(model, "t") for model in models)
        base = None if entry.base == "none" else Input("base", "t")
        step = TensorOp("t", (3001,), "float32", name, inputs, base, {**parameters, "normalize": normalize}, "vector")
        check(step, tensors, {model: model for model in tensors}, block=16384)


def test_both_ways_hash_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype, count in itertools.product((torch.float32, torch.bfloat16, torch.int8), (0, 1, 3, 5, 8192, 40_001)):
        tensor = torch.randint(-(2**31), 2**31 - 1, (count,), generator=generator, dtype=torch.int32).view(torch.int8)
        tensor = tensor[: count * torch.empty(0, dtype=dtype).element_size()].view(dtype)
        ours = describe(tensor)
        with monkeypatch.context() as patch:
            patch.setattr(native, "compiled", lambda: None)
            assert describe(tensor) == ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_value_that_is_not_finite_is_seen_anywhere(dtype: torch.dtype) -> None:
    for place, value in itertools.product((0, 1, 2, 3, 20_001, 40_000), (torch.inf, -torch.inf, torch.nan)):
        block = torch.full((40_001,), torch.finfo(dtype).max / 8, dtype=dtype)
        assert examine(block)[1] == 0
        block[place] = value
        assert examine(block)[1] == 1


def test_stacked_experts_are_thinned_one_by_one() -> None:
    shape = (3, 20, 30)
    for name, dtype in itertools.product(("ties", "dare_linear", "linear", "della", "sce"), ("float32", "bfloat16")):
        step = step_of(name, shape, dtype, **SETTINGS.get(name, [{}])[0])
        stacked = TensorOp(
            step.name, shape, dtype, name, step.inputs, step.base, step.parameters, "experts", mask_seed=5
        )
        check(stacked, parents(shape, torch.float32), block=16384)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_not_finite_is_refused_by_name(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH_THREADS", 0)
    monkeypatch.setattr(module, "_SHARED", 1 << 14)
    tensors = {model: torch.full((40_000,), 3e38) for model in MODELS}
    merger = ParallelMerger(
        lambda model, name: tensors[model], REVISIONS, TensorStats(keep=True), threads=threads, block=8192
    )
    step = step_of("linear", (40_000,), normalize=False, weight=[1.0, 1.0, 1.0])
    with pytest.raises(CandidateError, match=r"merged tensor 't' holds 40000 values that are NaN or infinite in float"):
        merger.run([(step, Memory(torch.empty(40_000)))])
    huge = step_of("linear", (40_000,), normalize=False, weight=[0.1, 0.1, 0.1])  # finite, though their sum is not
    merger.run([(huge, Memory(torch.empty(40_000)))])


def refused(step: TensorOp, tensors: dict[str, Tensor]) -> tuple[str, str]:
    messages = []
    read: Callable[[str, str], Tensor] = lambda model, name: tensors[model]  # noqa: E731
    for run in (
        lambda: assemble(step, read, REVISIONS),
        lambda: ParallelMerger(read, REVISIONS, TensorStats(keep=True)).run([(step, Memory(torch.empty(step.shape)))]),
    ):
        with pytest.raises(MergeError) as caught:
            run()
        messages.append(str(caught.value))
    return messages[0], messages[1]


def test_bad_values_are_refused_in_the_same_words() -> None:
    tensors = parents((8,), torch.float32)
    plain, fast = refused(step_of("ties", (8,), density=[0.5, 14.0, 0.5]), tensors)
    assert (
        plain
        == fast
        == "ties: density of model 2 must be in [0.0, 1.0], got 14.0. This is a fraction; did you mean 0.14?"
    )
    plain, fast = refused(step_of("linear", (8,), weight=[1.0, -2.0, 1.0]), tensors)
    assert plain == fast
    assert "sum to zero" in plain
