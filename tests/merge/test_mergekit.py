"""Tensor by tensor against mergekit 0.1.5, for every method it has.

mergekit takes norms in float32 (spherical methods, rescaling) and adds five models and more in an order that depends on
the column, so single bits may differ; the bounds below are a few units in the last place of the result. Its random
methods are compared on our masks.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge.errors import MergeError
from evomerge.merge import CATALOGUE
from evomerge.merge._masks import bernoulli
from evomerge.merge._sparsify import keep_probability

from .fixtures import run

merge_methods = pytest.importorskip("mergekit.merge_methods")

SHAPES = [(12, 17), (61,), (1, 40), (40, 1)]
DARE = [
    {"density": 0.5},
    {"density": [0.9, 0.2, 0.6, 1.0], "rescale": False, "lambda": 0.7},
    {"normalize": True, "density": 0.3},
]
DELLA = [{"density": 0.5}, {"density": [0.7, 0.4, 0.6, 1.0], "epsilon": 0.2, "rescale": False, "normalize": False}]
CRUMBS = [
    {"density": 0.5, "gamma": 0.1},
    {"density": [0.9, 0.3, 0.6, 1.0], "gamma": [0.3, 0.0, 0.01, 0.2], "rescale": True, "lambda": 1.3},
    {"density": 0.01, "normalize": True},
]
# method: (number of models beside a base, parameter settings, bound on the difference in float32)
WEIGHT = [0.7, 0.3, -0.2, 1.1]
CASES: dict[str, tuple[int, list[dict[str, Any]], float]] = {
    "linear": (4, [{"weight": WEIGHT}, {"weight": WEIGHT, "normalize": False}], 0.0),
    "slerp": (1, [{"t": 0.0}, {"t": 0.37}, {"t": 1.0}], 2e-6),
    "nuslerp": (2, [{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}], 2e-6),
    "multislerp": (4, [{}, {"normalize_weights": False}], 2e-6),
    "karcher": (4, [{}, {"max_iter": 1}], 2e-6),
    "model_stock": (4, [{}, {"filter_wise": True}], 2e-6),
    "nearswap": (1, [{"t": 0.3}, {"t": 1e-4}], 0.0),
    "passthrough": (1, [{}, {"scale": -0.5}], 0.0),
    "task_arithmetic": (4, [{}, {"normalize": True}, {"lambda": 0.4}], 0.0),
    "ties": (4, [{}, {"density": [0.5, 0.29, 0.001, 1.0]}, {"density": 0.57, "normalize": False, "lambda": 0.9}], 0.0),
    "dare_linear": (4, DARE, 2e-6),
    "dare_ties": (4, DARE, 5e-6),
    "della_linear": (4, DELLA, 2e-6),
    "della": (4, DELLA, 5e-6),
    "breadcrumbs": (4, CRUMBS, 2e-6),
    "breadcrumbs_ties": (4, CRUMBS, 5e-6),
    "sce": (4, [{}, {"select_topk": 0.5}, {"select_topk": 0.0}], 2e-6),
    "ram": (4, [{}, {"epsilon": 0.05}], 0.0),
    "ramplus_tl": (4, [{"epsilon": 0.05}, {"r": 0.4, "alpha": 0.5, "epsilon": 0.1}], 0.0),
    "arcee_fusion": (1, [{}], 0.0),
}
SETTINGS = [(name, index) for name, (_, settings, _) in CASES.items() for index in range(len(settings))]
HAS_NO_BASE = {"linear", "karcher", "passthrough"}


def theirs(name: str, base: Tensor | None, models: list[Tensor], **values: Any) -> Tensor:
    tensors = models if base is None else [base, *models]
    per_model = {parameter.name for parameter in CATALOGUE[name].parameters if parameter.per_model}
    for key in per_model & set(values):
        values[key] = values[key] if isinstance(values[key], list) else [values[key]] * len(models)
    return merge_methods.merge_tensors(
        [tensor.clone() for tensor in tensors], name, parameters=values, base_index=None if base is None else 0
    )


def settings(name: str, index: int, models: int) -> dict[str, Any]:
    values = dict(CASES[name][1][index])
    if name not in ("passthrough", "karcher") and "weight" in {p.name for p in CATALOGUE[name].parameters}:
        values.setdefault("weight", WEIGHT[:models])
    return values


def random_models(shape: tuple[int, ...], count: int, seed: int, spread: float = 0.3) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    return base, [base + spread * torch.randn(shape, generator=generator) for _ in range(count)]


def lattice_models(shape: tuple[int, ...], count: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Tensors of up to 120 elements that bfloat16 holds exactly, whose deltas it holds too, no two magnitudes equal."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel()
    base = torch.randint(-100, 101, shape, generator=generator)
    models = []
    for _ in range(count):
        magnitude = torch.randperm(size, generator=generator) + 1
        sign = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
        models.append(((base + (magnitude * sign).reshape(shape)) / 64).bfloat16())
    return (base / 64).bfloat16(), models


@pytest.fixture
def our_masks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make mergekit's Bernoulli draws ours: key 1 for the first model, and so on; density 1 draws nothing."""

    def install(models: list[int]) -> None:
        keys: Iterator[int] = iter(models)

        def draw(probability: Tensor) -> Tensor:
            mask = bernoulli(next(keys), probability.numel(), probability.flatten().float())
            return mask.reshape(probability.shape).to(probability.dtype)

        monkeypatch.setattr(torch, "bernoulli", draw)

    return install


def drawing(values: dict[str, Any], models: int) -> list[int]:
    density = values.get("density", 1.0)
    density = density if isinstance(density, list) else [density] * models
    return [index + 1 for index, d in enumerate(density) if d < 1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "index"), SETTINGS, ids=[f"{name}-{index}" for name, index in SETTINGS])
def test_mergekit_float32(name: str, index: int, shape: tuple[int, ...], our_masks: Callable) -> None:
    if name.startswith("della") and shape[-1] == 1:
        pytest.skip("mergekit divides zero by zero in rows of one element")
    count, _, bound = CASES[name]
    for seed in range(3):
        base, models = random_models(shape, count, seed)
        if name.startswith("ram"):  # made for sparse deltas
            models = [torch.where((model - base).abs() > 0.3, model, base) for model in models]
        values = settings(name, index, count)
        start = None if name in HAS_NO_BASE else base
        our_masks(drawing(values, count))
        expected = theirs(name, start, models, **values)
        merged = run(name, start, models, **values)
        assert (merged - expected).abs().max() <= bound


@pytest.mark.parametrize("name", ["nuslerp", "multislerp"])
def test_mergekit_without_base(name: str) -> None:
    _, models = random_models((12, 17), 2, 0, spread=2.0)
    torch.testing.assert_close(
        run(name, None, models, weight=[0.7, 0.4]), theirs(name, None, models, weight=[0.7, 0.4])
    )


def test_mergekit_with_many_models_differs_in_the_order_of_additions_only() -> None:
    base, models = random_models((33, 65), 9, 0)
    weight = [0.1 * (index + 1) for index in range(9)]
    for name in ("linear", "task_arithmetic", "ties"):
        start = None if name == "linear" else base
        values = {"weight": weight} | ({"density": 0.4} if name == "ties" else {})
        difference = run(name, start, models, **values) - theirs(name, start, models, **values)
        assert difference.abs().max() <= 4e-6


EXACT_BF16 = ["task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "nearswap", "sce", "linear", "slerp"]


@pytest.mark.parametrize("shape", [(8, 15), (120,), (1, 120), (120, 1)], ids=str)
@pytest.mark.parametrize(("name", "index"), [pair for pair in SETTINGS if pair[0] in EXACT_BF16])
def test_mergekit_bfloat16_where_deltas_are_exact(name: str, index: int, shape: tuple[int, ...]) -> None:
    """bfloat16 in and out, mergekit working in float32: the same bits after the last rounding."""
    count = CASES[name][0]
    base, models = lattice_models(shape, count, seed=index)
    values = settings(name, index, count)
    start = None if name in HAS_NO_BASE else base
    single = None if start is None else start.float()
    expected = theirs(name, single, [model.float() for model in models], **values).bfloat16()
    merged = (
        run(name, start, models, **values)
        if CATALOGUE[name].inputs == "weights"
        else _from_deltas(name, base, models, values)
    )
    bits = (merged.bfloat16().view(torch.int16) - expected.view(torch.int16)).abs()
    # a value within float32 rounding of the middle between two bfloat16 numbers may go either way
    assert bits.max() <= 1
    assert (bits > 0).float().mean() <= 0.02


def _from_deltas(name: str, base: Tensor, models: list[Tensor], values: dict[str, Any]) -> Tensor:
    single = base.float()
    return run(name, single, [model.float() for model in models], **values)


@pytest.mark.parametrize(
    "name", ["task_arithmetic", "ties", "linear", "slerp", "multislerp", "model_stock", "nearswap"]
)
def test_mergekit_bfloat16_rounding(name: str) -> None:
    """Left to itself mergekit computes task vectors in bfloat16; the difference is a few bfloat16 roundings."""
    count, (values, *_), _ = CASES[name]
    values = settings(name, 0, count)
    base, models = (
        random_models((12, 17), count, 0)[0].bfloat16(),
        [m.bfloat16() for m in random_models((12, 17), count, 0)[1]],
    )
    start = None if name in HAS_NO_BASE else base
    expected = theirs(name, start, models, **values).float()
    single = None if start is None else start.float()
    merged = run(name, single, [model.float() for model in models], **values)
    assert expected.dtype == torch.float32
    assert ((merged - expected).abs() <= 0.02 * merged.abs() + 0.02).all()


# --- documented differences ---


def test_mergekit_normalized_ties_of_one_model_ignores_its_weight() -> None:
    base, models = random_models((5, 7), 1, 0)
    for weight in (-0.3, 0.01, 5.0):
        ours = run("ties", base, models, weight=weight)
        torch.testing.assert_close(ours, theirs("ties", base, models, weight=[weight]))
        torch.testing.assert_close(ours, models[0])


def test_mergekit_linear_returns_infinities_where_we_raise() -> None:
    _, models = random_models((5, 7), 2, 0)
    assert not theirs("linear", None, models, weight=[1.0, -1.0]).isfinite().any()
    with pytest.raises(MergeError, match=r"sum to zero.*change them"):
        run("linear", None, models, weight=[1.0, -1.0])


def test_mergekit_sce_of_equal_models_is_the_base_below_full_selection() -> None:
    base, (model,) = random_models((5, 7), 1, 0)
    assert torch.equal(theirs("sce", base, [model, model], select_topk=0.5), base)
    assert torch.equal(run("sce", base, [model, model], select_topk=0.5), base)
    torch.testing.assert_close(run("sce", base, [model, model], select_topk=0.5, variant="reference"), model)
    torch.testing.assert_close(run("sce", base, [model, model]), model)


def test_mergekit_breadcrumbs_at_density_one_drops_no_outliers() -> None:
    base, models = random_models((5, 7), 1, 0)
    values = {"weight": 1.0, "density": 1.0, "gamma": 0.2}
    torch.testing.assert_close(run("breadcrumbs", base, models, **values), models[0])
    torch.testing.assert_close(theirs("breadcrumbs", base, models, **values), models[0])


def test_mergekit_model_stock_walks_away_from_models_that_disagree() -> None:
    base, models = random_models((5, 7), 3, 3)
    models[1] = 2 * base - models[0]
    plain, clamped = run("model_stock", base, models), run("model_stock", base, models, clamp=True)
    torch.testing.assert_close(plain, theirs("model_stock", base, models))
    assert not torch.equal(plain, base)
    assert torch.equal(clamped, base)


def test_mergekit_della_refuses_the_epsilons_that_we_refuse() -> None:
    base, models = random_models((5, 7), 1, 0)
    values = {"weight": 1.0, "density": 0.1, "epsilon": 0.15}
    with pytest.raises(ValueError, match="psilon"):
        theirs("della", base, models, **values)
    with pytest.raises(MergeError, match=r"epsilon must be below 0\.1 here"):
        run("della", base, models, **values)
    assert keep_probability(torch.ones(3, 1), 0.4, 0.2).flatten().tolist() == pytest.approx([0.4] * 3)


def test_mergekit_names_and_parameters_are_all_here() -> None:
    for known in merge_methods.registered_methods():
        ours = CATALOGUE[known.spec.name]
        assert ours.in_mergekit
        names = {parameter.name for parameter in ours.parameters if not parameter.extension}
        assert names | set(ours.ignored) == {parameter.name for parameter in known.spec.parameters}
        for spec in known.spec.parameters:
            mine = {parameter.name: parameter for parameter in ours.parameters}.get(spec.name)
            if mine is not None and mine.default is not None and spec.default is not None:
                assert mine.default == spec.default, f"{known.spec.name}: {spec.name}"
    assert sum(entry.in_mergekit for entry in CATALOGUE.values()) == len(merge_methods.registered_methods())
