"""The catalogue and the door: what is refused, how it is said, and what comes out."""

import inspect
import subprocess
import sys
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

import pytest
import torch

from evomerge.errors import MergeError
from evomerge.merge import CATALOGUE, Method, Parameter, merge, method
from evomerge.merge import _model_statistics as statistics

NAMES = list(CATALOGUE)
PLAN = {
    *("linear", "slerp", "nuslerp", "multislerp", "karcher", "task_arithmetic", "ties", "dare_linear", "dare_ties"),
    *("della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "sce", "model_stock", "nearswap", "arcee_fusion"),
    *("passthrough", "ram", "ramplus_tl", "magmax", "pcb", "cabs", "metagpt", "star", "iso_c", "iso_cts", "tsv_m"),
    *("r_tsvm", "consensus", "resta", "negation", "layer_swap", "sma", "wma", "ema", "compeft"),
}
# values for parameters that have no default
REQUIRED: Mapping[str, Any] = {"weight": 0.5, "t": 0.3, "share": 0.25}


def example(entry: Method, models: int) -> dict[str, Any]:
    """Values for everything that has to be given."""
    values = {p.name: REQUIRED[p.name] for p in entry.parameters if p.default is None}
    return {name: [value] * models if _is_per_model(entry, name) else value for name, value in values.items()}


def _is_per_model(entry: Method, name: str) -> bool:
    return next(p.per_model for p in entry.parameters if p.name == name)


def tensors(
    entry: Method, shape: tuple[int, ...] = (4, 6), scale: float = 0.1
) -> tuple[torch.Tensor | None, list[torch.Tensor], list[int]]:
    models = max(entry.models[0], 3 if entry.models[1] is None else entry.models[1])
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(shape, generator=generator)
    deltas = [torch.randn(shape, generator=generator) * scale for _ in range(models)]
    inputs = deltas if entry.inputs == "deltas" else [base + delta for delta in deltas]
    return None if entry.base == "none" else base, inputs, list(range(models)) if entry.random else []


def test_every_method_of_the_plan_is_here() -> None:
    assert set(NAMES) == PLAN


def test_reading_the_catalogue_needs_no_torch() -> None:
    code = "import sys; from evomerge.merge import CATALOGUE; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_entry_fits_its_function(name: str) -> None:
    entry = CATALOGUE[name]
    signature = inspect.signature(entry.function).parameters
    words = [p.keyword for p in entry.parameters]
    extra = (["keys"] if entry.random else []) + (["role"] if entry.by_role else [])
    assert list(signature)[:2] == ["base", "inputs"]
    assert sorted(list(signature)[2:]) == sorted(words + extra)
    assert entry.function.__doc__
    assert entry.summary
    assert entry.paper
    assert not any(iskeyword(word) for word in words)
    for parameter in entry.parameters:
        assert parameter.summary
        if parameter.default is not None:
            parameter.check(parameter.default, parameter.name)
        for end in parameter.search or ():
            parameter.check(end, parameter.name)
        if parameter.statistic:
            assert callable(getattr(statistics, parameter.statistic))
    if entry.inputs == "deltas":
        assert "lambda" in [p.name for p in entry.parameters], "LiNeS scales lambda of every task-vector method"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_result_is_new_float32_and_inputs_stay(name: str, dtype: torch.dtype) -> None:
    entry = CATALOGUE[name]
    base, inputs, keys = tensors(entry)
    base, inputs = None if base is None else base.to(dtype), [x.to(dtype) for x in inputs]
    before = [x.clone() for x in inputs] + ([] if base is None else [base.clone()])
    merged = merge(name, base, inputs, example(entry, len(inputs)), keys=keys)
    assert merged.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert merged.shape == inputs[0].shape
    assert merged.isfinite().all()
    given = [*inputs, *([] if base is None else [base])]
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))
    merged.zero_()
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 5), (5, 1), (0,), (0, 4), (2, 3, 4)], ids=str)
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    entry = CATALOGUE[name]
    base, inputs, keys = tensors(entry, shape)
    for role in ("matrix", "vocab", "vector", "router", "experts"):
        merged = merge(name, base, inputs, example(entry, len(inputs)), keys=keys, role=role)
        assert merged.shape == shape
        assert merged.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_strided_inputs(name: str) -> None:
    entry = CATALOGUE[name]
    base, inputs, keys = tensors(entry, (6, 6))
    values = example(entry, len(inputs))
    strided = [x.T.contiguous().T for x in inputs]
    other = None if base is None else base.T.contiguous().T
    merged = merge(name, other, strided, values, keys=keys)
    torch.testing.assert_close(merged, merge(name, base, inputs, values, keys=keys))


@pytest.mark.parametrize("name", NAMES)
def test_stacked_experts_are_merged_one_by_one(name: str) -> None:
    entry = CATALOGUE[name]
    if entry.random:
        pytest.skip("each slice has a mask of its own")
    base, inputs, keys = tensors(entry, (3, 4, 5))
    values = example(entry, len(inputs))
    merged = merge(name, base, inputs, values, keys=keys, role="experts")
    for index in range(3):
        start = None if base is None else base[index]
        assert torch.equal(merged[index], merge(name, start, [x[index] for x in inputs], values))


def test_unknown_method() -> None:
    with pytest.raises(MergeError, match=r"unknown merge method 'tie'\. Near: ties.*Known: linear, "):
        method("tie")
    with pytest.raises(TypeError):
        CATALOGUE["mine"] = CATALOGUE["ties"]  # type: ignore[index]


BASE, DELTA = torch.zeros(2, 3), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ties", {"weight": [1.0], "densty": [1.0]}, r"ties has no parameter 'densty'\. Near: density"),
        ("ties", {"density": [1.0]}, r"ties needs a value for weight \(coefficient of each model\)"),
        ("ties", {"weight": 1.0}, r"weight takes one value per model, 1 here, got the single value 1\.0"),
        ("ties", {"weight": [1.0, 2.0]}, r"weight takes one value per model, 1 here, got 2"),
        (
            "ties",
            {"weight": [1.0], "density": [14]},
            r"density of model 1 must be in \[0\.0, 1\.0\], got 14.*did you mean 0\.14",
        ),
        ("ties", {"weight": [float("nan")]}, r"weight of model 1 must be a finite number, got nan"),
        ("ties", {"weight": ["a"]}, r"weight of model 1 must be a finite number, got 'a'"),
        ("ties", {"weight": [True]}, r"weight of model 1 must be a finite number, got True"),
        ("ties", {"weight": [1.0], "normalize": "yes"}, r"normalize must be true or false, got 'yes'"),
        ("ties", {"weight": [1.0], "variant": "refernce"}, r"variant: unknown value 'refernce'\. Near: reference"),
        ("cabs", {"weight": [1.0], "n": [1.5]}, r"n of model 1 must be a whole number, got 1\.5"),
        ("cabs", {"weight": [1.0], "n": [9], "m": 4}, r"n of model 1 must be at most the group length m = 4, got 9"),
        ("sma", {"weight": [1.0]}, r"sma takes no parameters, got 'weight'"),
    ],
)
def test_refused_parameters(name: str, values: dict[str, Any], message: str) -> None:
    base = None if CATALOGUE[name].base == "none" else BASE
    with pytest.raises(MergeError, match=message):
        merge(name, base, [DELTA], values)


def test_refused_tensors() -> None:
    one = {"weight": [1.0]}
    with pytest.raises(MergeError, match=r"model 1 has a tensor of shape \(3,\), the base one of \(2, 3\)"):
        merge("ties", BASE, [torch.ones(3)], one)
    with pytest.raises(MergeError, match=r"model 2 has a tensor of shape \(3,\), model 1 one of \(2, 3\)"):
        merge("linear", None, [DELTA, torch.ones(3)], {"weight": [1.0, 1.0]})
    with pytest.raises(MergeError, match=r"floating-point tensors, got torch\.int64.*copy"):
        merge("ties", BASE, [torch.ones(2, 3, dtype=torch.int64)], one)
    with pytest.raises(MergeError, match=r"ties needs a base model's tensor"):
        merge("ties", None, [DELTA], one)
    with pytest.raises(MergeError, match=r"slerp merges 1 models besides the base, got 2"):
        merge("slerp", BASE, [DELTA, DELTA], {"t": 0.5})
    with pytest.raises(MergeError, match=r"model_stock merges at least 2 models besides the base, got 1"):
        merge("model_stock", BASE, [DELTA], {})
    with pytest.raises(
        MergeError, match=r"dare_linear drops entries at random and needs one mask key per model: 1, got 0"
    ):
        merge("dare_linear", BASE, [DELTA], one)
    with pytest.raises(MergeError, match=r"unknown role 'matrx' of a tensor\. Near: matrix"):
        merge("ties", BASE, [DELTA], one, role="matrx")


def test_words_without_effect_are_accepted() -> None:
    plain = merge("task_arithmetic", BASE, [DELTA], {"weight": [0.5]})
    assert torch.equal(
        plain, merge("task_arithmetic", BASE, [DELTA], {"weight": [0.5], "density": [0.1], "int8_mask": True})
    )


def test_weights_that_cancel_are_refused_where_they_are_normalized() -> None:
    for name in ("linear", "multislerp", "karcher"):
        with pytest.raises(MergeError, match="sum to zero and cannot be normalized"):
            merge(name, None, [DELTA, 2 * DELTA], {"weight": [1.0, -1.0]})
    with pytest.raises(MergeError, match="sum to zero"):
        merge("star", BASE, [DELTA, 2 * DELTA], {"weight": [1.0, -1.0]})


def test_parameter_keyword() -> None:
    assert Parameter("lambda", 1.0, False).keyword == "lambda_"
    assert Parameter("weight", 1.0, True).keyword == "weight"
