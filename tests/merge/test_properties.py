"""What must hold for any input: identical experts, zero deltas, order, scale, ends, blocks, threads."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merge import CATALOGUE, merge

from .fixtures import relaxed, run, spread
from .test_catalogue import example, tensors

DELTA_METHODS = [name for name, entry in CATALOGUE.items() if entry.inputs == "deltas"]
FULL = {  # settings at which a method keeps everything
    "sce": {"select_topk": 1.0},
    "star": {"eta": 1.0},
    "cabs": {"n": 1, "m": 1},
    "compeft": {"density": 1.0},
    "consensus": {"k": 0, "alpha": 1.0},
}


def values_for(name: str, models: int, **more: Any) -> dict[str, Any]:
    return spread(name, {**example(CATALOGUE[name], models), **more}, models)


def random_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


AVERAGING = {
    "linear": {"weight": 0.4},
    "slerp": {"t": 0.3},
    "nuslerp": {"weight": [0.3, 0.9]},
    "multislerp": {"weight": 0.2},
    "karcher": {},
    "model_stock": {},
    "nearswap": {"t": 1e9},
    "layer_swap": {"share": 0.3},
    "sma": {},
    "wma": {},
    "ema": {},
    "task_arithmetic": {"weight": 0.7, "normalize": True},
    "metagpt": {},
    "ties": {"weight": 0.3, "density": 1.0},
    "dare_ties": {"weight": 0.3, "density": 1.0, "normalize": True},
    "della": {"weight": 0.3, "density": 1.0},
    "breadcrumbs_ties": {"weight": 0.3, "normalize": True},
    "sce": {"select_topk": 1.0},
    "ram": {"epsilon": 0.0},
    "magmax": {},
    "pcb": {"clip": 0.0, "density": 1.0},
    "star": {"eta": 1.0},
}


@pytest.mark.parametrize("name", AVERAGING)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_equal_experts_give_that_expert(name: str, seed: int) -> None:
    base, expert = random_tensor(seed, 5, 4), random_tensor(seed + 1, 5, 4)
    models = 1 if CATALOGUE[name].models == (1, 1) else 2 if CATALOGUE[name].models == (2, 2) else 3
    start = None if CATALOGUE[name].base == "none" else expert if name == "slerp" else base
    merged = run(name, start, [expert] * models, **AVERAGING[name])
    if name == "pcb":  # entries that score nothing in every model are dropped
        kept = merged != base
        assert kept.double().mean() > 0.8
        merged, expert = merged[kept], expert[kept]
    torch.testing.assert_close(merged, expert, atol=1e-9, rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@relaxed
def test_equal_experts_add_up_in_sums(seed: int) -> None:
    base, delta = random_tensor(seed, 5, 4), random_tensor(seed + 1, 5, 4)
    summed = merge("task_arithmetic", base, [delta] * 3, {"weight": [1.0] * 3})
    torch.testing.assert_close(summed, base + 3 * delta)
    torch.testing.assert_close(
        merge("iso_c", base, [delta] * 3, {}) - base, 3 * (merge("iso_c", base, [delta], {}) - base)
    )
    once = merge("tsv_m", base, [delta], {"rank_fraction": 1 / 3})
    thrice = merge("tsv_m", base, [delta] * 3, {})
    left, right = once - base, thrice - base
    # the same directions three times over are three truncations of rank r / 3, made one
    assert torch.linalg.matrix_rank(right) == torch.linalg.matrix_rank(left)


@pytest.mark.parametrize("name", DELTA_METHODS)
@pytest.mark.parametrize("role", ["matrix", "vector"])
def test_zero_deltas_give_the_base(name: str, role: str) -> None:
    base, inputs, keys = tensors(CATALOGUE[name], (4, 6))
    values = values_for(name, len(inputs))
    merged = merge(name, base, [torch.zeros_like(x) for x in inputs], values, keys=keys, role=role)
    assert torch.equal(merged, base)
    one_is_zero = [inputs[0] * 0, *inputs[1:]]
    assert merge(name, base, one_is_zero, values, keys=keys, role=role).isfinite().all()


def test_zero_deltas_give_the_base_of_multislerp() -> None:
    base = random_tensor(0, 3, 4)
    assert torch.equal(run("multislerp", base, [base] * 3, weight=1.0), base)  # mergekit raises here


ORDERED = {"wma", "ema", "layer_swap", "nuslerp", "resta", "cabs", "arcee_fusion", "passthrough", "slerp", "nearswap"}
SYMMETRIC = [name for name in CATALOGUE if name not in ORDERED]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_order_of_models_does_not_matter(name: str) -> None:
    base, inputs, keys = tensors(CATALOGUE[name], (5, 7))
    values = values_for(name, 3, **({"weight": [0.5, 0.3, 0.9]} if "weight" in values_for(name, 3) else {}))
    turned = {key: [value[i] for i in (2, 0, 1)] if isinstance(value, list) else value for key, value in values.items()}
    merged = merge(name, base, inputs, values, keys=keys)
    other = merge(name, base, [inputs[i] for i in (2, 0, 1)], turned, keys=[keys[i] for i in (2, 0, 1)] if keys else [])
    torch.testing.assert_close(merged, other, atol=2e-6, rtol=1e-5)


def test_order_matters_where_it_says_so() -> None:
    base, deltas = torch.zeros(4), [torch.tensor([1.0, 0, 0, 0]), torch.tensor([-1.0, 0, 0, 0])]
    assert merge("magmax", base, deltas, {})[0] == -1  # the later model wins a tie
    values = {"weight": [1.0, 1.0], "n": [1, 1], "m": 4}
    deltas = [torch.tensor([4.0, 3, 2, 1]), torch.tensor([40.0, 30, 20, 10])]
    assert merge("cabs", base, deltas, values).tolist() == [4, 30, 0, 0]
    assert merge("cabs", base, deltas, {**values, "order": [1.0, 0.5]}).tolist() == [40, 3, 0, 0]


EQUIVARIANT = [*sorted(set(DELTA_METHODS) - {"pcb", "sce", "ram", "ramplus_tl", "model_stock"}), "sce-reference"]


@pytest.mark.parametrize("name", EQUIVARIANT)
@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_scaling_deltas_scales_the_change(name: str, factor: float) -> None:
    name, _, variant = name.partition("-")
    base, inputs, keys = tensors(CATALOGUE[name], (5, 7))
    base, inputs = base.double(), [x.double() for x in inputs]
    values = values_for(name, len(inputs), **({"variant": variant} if variant else {}))
    change = merge(name, base, inputs, values, keys=keys) - base
    scaled = merge(name, base, [x * factor for x in inputs], values, keys=keys) - base
    torch.testing.assert_close(scaled, change * factor, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.blockwise])
def test_blockwise_methods_merge_any_block_alone(name: str) -> None:
    base, inputs, _ = tensors(CATALOGUE[name], (1000,))
    values = values_for(name, len(inputs))
    whole = merge(name, base, inputs, values)
    for start, stop in ((0, 1), (1, 8), (8, 37), (37, 999), (999, 1000)):
        part = slice(start, stop)
        block = merge(name, None if base is None else base[part], [x[part] for x in inputs], values)
        assert torch.equal(block, whole[part])


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if not entry.by_role])
def test_number_of_threads_does_not_matter(name: str) -> None:
    base, inputs, keys = tensors(CATALOGUE[name], (300, 400))
    values = values_for(name, len(inputs))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = merge(name, base, inputs, values, keys=keys)
        torch.set_num_threads(3)
        assert torch.equal(single, merge(name, base, inputs, values, keys=keys))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["slerp", "nuslerp"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_spherical_ends(name: str, seed: int) -> None:
    left, right = random_tensor(seed, 6), random_tensor(seed + 1, 6)
    for t, end in ((0.0, left), (1.0, right)):
        if name == "slerp":
            merged = run(name, left, [right], t=t)
        else:
            merged = run(name, None, [left, right], weight=[1 - t, t])
        torch.testing.assert_close(merged, end)


@given(seed=st.integers(0, 10**6), t=st.floats(0, 1))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_slerp_between_equal_norms_keeps_the_norm(seed: int, t: float) -> None:
    left, right = (x / x.norm() for x in (random_tensor(seed, 6), random_tensor(seed + 1, 6)))
    merged = run("slerp", left, [right], t=t)
    assert float(merged.norm()) == pytest.approx(1, abs=2e-4)  # to the linear shortcut of near-parallel pairs
    if t == 0.5:
        torch.testing.assert_close(run("karcher", None, [left, right]), merged)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_density_one_keeps_task_vectors_whole(seed: int) -> None:
    base, delta = random_tensor(seed, 4, 5), random_tensor(seed + 1, 4, 5)
    for name in ("ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"):
        merged = run(name, base, [base + delta], weight=1.0, density=1.0)
        torch.testing.assert_close(merged, base + delta)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear", "ties"])
def test_density_zero_gives_the_base(name: str) -> None:
    base, delta = random_tensor(0, 4, 5), random_tensor(1, 4, 5)
    assert torch.equal(run(name, base, [base + delta], weight=1.0, density=0.0), base)


def test_disjoint_experts_agree_on_their_sum() -> None:
    base = random_tensor(0, 8)
    deltas = [torch.eye(8, dtype=torch.float64)[index] * (index + 1) for index in range(3)]
    expected = base + sum(deltas)
    for name in ("magmax", "ram", "task_arithmetic", "ties"):
        weight = {"weight": 1.0} if name in ("task_arithmetic", "ties") else {}
        torch.testing.assert_close(run(name, base, [base + delta for delta in deltas], **weight), expected)


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_paper_rescaling_keeps_the_expectation(name: str) -> None:
    """Mean over masks of the rescaled delta is the delta; the tensor's L1 norm is exact under mergekit's rescaling."""
    zero, delta = torch.zeros(4, 8), random_tensor(1, 4, 8).float()
    values = spread(name, {"weight": 1.0, "density": 0.4, "rescale_norm": "inv"}, 1)
    if name == "della_linear":
        values["epsilon"] = [0.2]
    total = torch.zeros(4, 8)
    for key in range(4000):
        total += merge(name, zero, [delta], values, keys=[key * 7919])
    assert ((total / 4000 - delta).abs() <= 5 * delta.abs() * (4 / 4000) ** 0.5 + 1e-6).all()
    kept = merge(name, zero, [delta], {**values, "rescale_norm": "l1"}, keys=[5])
    assert float(kept.abs().sum()) == pytest.approx(float(delta.abs().sum()), rel=1e-6)


def test_masks_are_frozen_by_their_keys() -> None:
    base, inputs, _ = tensors(CATALOGUE["dare_ties"], (30, 40))
    values = values_for("dare_ties", 3, density=0.5)
    merged = merge("dare_ties", base, inputs, values, keys=[1, 2, 3])
    assert torch.equal(merged, merge("dare_ties", base, inputs, values, keys=[1, 2, 3]))
    assert not torch.equal(merged, merge("dare_ties", base, inputs, values, keys=[1, 2, 4]))


def test_huge_and_tiny_values_stay_finite() -> None:
    for scale in (1e-30, 1e15):
        for name in CATALOGUE:
            if name in ("arcee_fusion",) and scale > 1:
                continue
            base, inputs, keys = tensors(CATALOGUE[name], (4, 6))
            base, inputs = None if base is None else base * scale, [x * scale for x in inputs]
            assert merge(name, base, inputs, values_for(name, len(inputs)), keys=keys).isfinite().all(), name


def test_rank_deficient_deltas_get_no_arbitrary_directions() -> None:
    base = torch.zeros(6, 5, dtype=torch.float64)
    deltas = [random_tensor(seed, 6, 1) @ random_tensor(seed + 9, 1, 5) for seed in range(2)]
    rows = torch.cat(deltas)
    for name in ("iso_c", "iso_cts", "tsv_m", "r_tsvm", "star"):
        change = merge(name, base, deltas, values_for(name, 2))
        # every row of the change lies in the span of the rows of the task vectors
        rest = change - change @ torch.linalg.pinv(rows, rtol=1e-9) @ rows
        assert rest.abs().max() < 1e-9, name
        assert change.isfinite().all()
    full = merge("iso_c", base, deltas, {"iso_rank": "full"})
    assert torch.linalg.matrix_rank(full) == 5
    assert torch.linalg.matrix_rank(merge("iso_c", base, deltas, {})) == 2


@pytest.mark.parametrize("role", ["vector", "vocab", "router"])
def test_spectral_methods_average_what_is_no_matrix(role: str) -> None:
    base, deltas = random_tensor(0, 4, 5), [random_tensor(1, 4, 5), random_tensor(2, 4, 5)]
    for name in ("iso_c", "iso_cts", "tsv_m", "r_tsvm", "star"):
        merged = merge(name, base, deltas, {"lambda": 0.5}, role=role)
        torch.testing.assert_close(merged, base + (deltas[0] + deltas[1]) / 4)
