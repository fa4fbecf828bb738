"""Vectorised functions beside loops short enough to be read."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merge import _sparsify as sparsify
from evomerge.merge import merge
from evomerge.merge._consensus import disjoint_merge
from evomerge.merge._model_statistics import global_threshold, squared_norm
from evomerge.merge._reductions import SERIAL_CHUNK, absolute_sum, dot, norm, standard_deviation
from evomerge.merge._top_k import falling_order, keep_up_to, last_kept, order_statistic

from .fixtures import relaxed

# few distinct values: plenty of ties, zeros, exact cancellations
values = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=24)
densities = st.sampled_from([0.0, 1e-6, 0.1, 0.29, 0.5, 0.57, 0.99, 1.0])


def by_size(numbers: list[float]) -> list[int]:
    """Indices from the largest magnitude down, the earlier one first in a tie."""
    return sorted(range(len(numbers)), key=lambda i: (-abs(numbers[i]), i))


def only(numbers: list[float], kept: list[int]) -> list[float]:
    return [x if i in kept else 0.0 for i, x in enumerate(numbers)]


@given(values, densities)
@relaxed
def test_keep_largest(numbers: list[float], density: float) -> None:
    count = len(numbers) if density >= 1 else 0 if density <= 0 else max(1, int(density * len(numbers)))
    assert sparsify.keep_largest(torch.tensor(numbers), density).tolist() == only(numbers, by_size(numbers)[:count])


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.data())
@relaxed
def test_order_statistics_by_counting(numbers: list[float], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(numbers) - 1))
    for dtype in (torch.float32, torch.float64):
        assert float(order_statistic(torch.tensor(numbers, dtype=dtype), index)) == sorted(numbers)[index]
    kept = index + 1
    value, last = last_kept(torch.tensor(numbers).abs(), kept)
    assert last == by_size(numbers)[index]
    assert value == abs(numbers[last])
    thinned = keep_up_to(torch.tensor(numbers), value, last)
    assert thinned.tolist() == only(numbers, by_size(numbers)[:kept])
    assert falling_order(torch.tensor([numbers, numbers])).tolist() == [by_size(numbers)] * 2


def test_selection_across_its_chunks() -> None:
    x = (torch.randn(600_000, generator=torch.Generator().manual_seed(0)) * 50).round()  # a hundred values, many ties
    order = torch.sort(x.abs(), descending=True, stable=True).indices
    for kept in (1, 1000, 300_000, 599_999, 600_000):
        assert last_kept(x.abs(), kept) == (float(x[order[kept - 1]].abs()), int(order[kept - 1]))
    assert torch.equal(falling_order(x), order)


@given(values, densities, st.sampled_from([0.0, 0.01, 0.2, 0.6, 1.0]))
@relaxed
def test_keep_inliers(numbers: list[float], density: float, gamma: float) -> None:
    n = len(numbers)
    kept, top = int(density * n), int(gamma * n)
    bottom = max(0, n - kept - top)
    ascending = by_size(numbers)[::-1]
    expected = numbers if density >= 1 else only(numbers, ascending[bottom : bottom + kept])
    assert sparsify.keep_inliers(torch.tensor(numbers), density, gamma).tolist() == expected


@given(st.lists(values.map(lambda row: (row * 5)[:5]), min_size=1, max_size=4), densities)
@relaxed
def test_keep_inliers_by_row(rows: list[list[float]], density: float) -> None:
    expected = [only(row, by_size(row)[int(5 * 0.25) :][: int(5 * density)]) for row in rows]
    assert sparsify.keep_inliers_by_row(torch.tensor(rows), density, 0.25).tolist() == expected


@given(st.lists(values.map(lambda row: (row * 5)[:5]), min_size=1, max_size=4))
@relaxed
def test_keep_probability(rows: list[list[float]]) -> None:
    expected = [[0.6 - 0.2 + 0.4 * by_size(row)[::-1].index(i) / 4 for i in range(5)] for row in rows]
    found = sparsify.keep_probability(torch.tensor(rows), 0.6, 0.2)
    torch.testing.assert_close(found, torch.tensor(expected))


@given(st.lists(values.map(lambda row: (row * 6)[:6]), min_size=1, max_size=4), st.booleans())
@relaxed
def test_disjoint_merge(rows: list[list[float]], normalize: bool) -> None:
    weights = [0.5, 1.0, -0.25, 2.0][: len(rows)]
    expected = []
    for column in zip(*rows, strict=True):
        x = [value * w for value, w in zip(column, weights, strict=True)]
        sign = 1 if sum(x) >= 0 else -1
        agreeing = [i for i, value in enumerate(x) if value * sign > 0]
        divisor = sum(weights[i] for i in agreeing) or 1.0
        expected.append(sum(x[i] for i in agreeing) / (divisor if normalize else 1.0))
    weighted = [torch.tensor(row) * w for row, w in zip(rows, weights, strict=True)]
    torch.testing.assert_close(disjoint_merge(weighted, weights, normalize), torch.tensor(expected))


@given(st.lists(values.map(lambda row: (row * 6)[:6]), min_size=1, max_size=4))
@relaxed
def test_magmax_and_ram(rows: list[list[float]]) -> None:
    largest, mean = [], []
    for column in zip(*rows, strict=True):
        chosen = 0.0
        for value in column:
            chosen = value if abs(value) >= abs(chosen) else chosen
        largest.append(chosen)
        active = [value for value in column if abs(value) > 1e-5]
        mean.append(sum(active) / max(1, len(active)))
    deltas, zero = [torch.tensor(row) for row in rows], torch.zeros(6)
    assert merge("magmax", zero, deltas, {}).tolist() == largest
    torch.testing.assert_close(merge("ram", zero, deltas, {}), torch.tensor(mean))


@given(values, st.integers(1, 5), st.integers(1, 5), st.booleans())
@relaxed
def test_cabs_takes_turns(numbers: list[float], n: int, m: int, overlap: bool) -> None:
    n = min(n, m)
    models = [numbers, numbers[::-1]]
    taken: set[int] = set()
    expected = [0.0] * len(numbers)
    for model in models:
        kept: list[int] = []
        for start in range(0, len(numbers), m):
            group = [i for i in by_size(model) if start <= i < start + m]
            free = [i for i in group if i not in taken]
            kept += (free + [i for i in group if i in taken] * overlap)[:n]
        taken |= set(kept)
        expected = [a + b for a, b in zip(expected, only(model, kept), strict=True)]
    parameters = {"weight": [1.0, 1.0], "n": [n, n], "m": m, "overlap": overlap}
    merged = merge("cabs", torch.zeros(len(numbers)), [torch.tensor(model) for model in models], parameters)
    assert merged.tolist() == expected


@given(st.lists(values, min_size=1, max_size=3), densities)
@relaxed
def test_global_threshold(tensors: list[list[float]], density: float) -> None:
    magnitudes = sorted(abs(x) for x in itertools.chain(*tensors))
    rank = len(magnitudes) - int(len(magnitudes) * density)
    expected = math.inf if density <= 0 else magnitudes[rank - 1] if rank else 0.0
    assert global_threshold([torch.tensor(t) for t in tensors], density) == expected


def test_global_threshold_of_many_numbers() -> None:
    tensors = [torch.randn(100, 30) * scale for scale in (1e-3, 1.0)]
    flat = torch.cat([t.flatten() for t in tensors]).abs().sort().values
    for density in (0.1, 0.5, 0.999):
        threshold = global_threshold(tensors, density)
        assert threshold == float(flat[len(flat) - int(len(flat) * density) - 1])
        assert int((flat >= threshold).sum()) == int(len(flat) * density) + 1


def test_reference_ties_over_a_model_of_two_tensors() -> None:
    """One threshold per model: the small tensor of a model loses everything."""
    large, small = torch.tensor([4.0, -3.0, 2.0, 1.0]), torch.tensor([0.5, -0.25])
    threshold = global_threshold([large, small], 0.34)  # int(0.34 * 6) = 2, and one more
    parameters = {"weight": [1.0], "variant": "reference", "threshold": [threshold]}
    assert merge("ties", torch.zeros(4), [large], parameters).tolist() == [4, -3, 2, 0]
    assert merge("ties", torch.zeros(2), [small], parameters).tolist() == [0, 0]


def test_metagpt_with_whole_model_norms() -> None:
    models = [[torch.ones(4), torch.ones(2) * 3], [torch.ones(4) * 2, torch.zeros(2)]]
    norms = [squared_norm(model) for model in models]
    assert norms == [22.0, 16.0]
    merged = merge("metagpt", torch.zeros(2), [model[1] for model in models], {"squared_norm": norms})
    torch.testing.assert_close(merged, torch.tensor([3 * 22 / 38] * 2))


@pytest.mark.parametrize("count", [1, SERIAL_CHUNK - 1, SERIAL_CHUNK, SERIAL_CHUNK + 1, 3 * SERIAL_CHUNK + 7])
def test_reductions_in_chunks(count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(0))
    y = x.flip(0) + 1
    assert dot(x, y) == pytest.approx(float((x.double() * y.double()).sum()), rel=1e-12)
    assert norm(x) == pytest.approx(float(x.double().norm()), rel=1e-12)
    assert absolute_sum(x) == pytest.approx(float(x.double().abs().sum()), rel=1e-12)
    assert standard_deviation(x) == pytest.approx(float(x.double().std(correction=0)), rel=1e-12)


def test_multislerp_equals_its_published_detour() -> None:
    """Tangent space at the mean and back, as mergekit computes it, in float64."""
    x = [torch.randn(6, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(3)]
    w = [0.5, 0.3, 0.2]
    units = [v / v.norm() for v in x]
    mean = sum(c * u for c, u in zip(w, units, strict=True))
    mean = mean / mean.norm()
    tangent = sum(c * (u - (u @ mean) * mean) for c, u in zip(w, units, strict=True))
    length = tangent.norm() + 1e-8
    point = mean * torch.cos(length) + tangent * torch.sin(length) / length
    expected = point * sum(c * v.norm() for c, v in zip(w, x, strict=True))
    torch.testing.assert_close(merge("multislerp", None, x, {"weight": w}), expected, atol=1e-7, rtol=0)


@given(st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_karcher_equals_the_iteration_on_vectors(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randn(8, generator=generator, dtype=torch.float64)
    x = [shift + torch.randn(8, generator=generator, dtype=torch.float64) * 0.5 for _ in range(count)]
    units = [v / v.norm() for v in x]
    mean = _unit(sum(units))
    for _ in range(10):
        angles = [torch.arccos((u @ mean).clamp(-1, 1)) for u in units]
        step = sum(a / torch.sin(a) * (u - (u @ mean) * mean) for a, u in zip(angles, units, strict=True)) / count
        if step.norm() < 1e-5:
            break
        mean = _unit(torch.cos(step.norm()) * mean + torch.sin(step.norm()) * _unit(step))
    expected = mean * sum(v.norm() for v in x) / count
    torch.testing.assert_close(merge("karcher", None, x, {}), expected, atol=1e-9, rtol=1e-9)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def test_addition_and_negation() -> None:
    base, safe, unsafe, tuned = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).unbind()
    merged = merge("resta", base, [tuned, safe, unsafe], {"lambda": 0.5}, keys=[1, 2, 3])
    torch.testing.assert_close(merged, base + tuned + 0.5 * (safe - unsafe))
    thinned = merge("resta", base, [tuned, safe, safe], {"density": 0.5}, keys=[1, 2, 3]) - base
    torch.testing.assert_close(thinned[thinned.abs() > 1e-6], (2 * tuned)[thinned.abs() > 1e-6])
    forgetful = merge("negation", base, [safe, unsafe], {"weight": [1.0, 0.5], "lambda": 2.0})
    torch.testing.assert_close(forgetful, base - 2 * safe - unsafe)


def test_compeft_with_election() -> None:
    deltas = [torch.tensor([3.0, -1.0, 0.5, 2.0]), torch.tensor([-2.0, -4.0, 1.0, 3.0])]
    signs = [torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([0.0, -1.0, 0.0, 1.0])]
    scales = [float(delta.std(correction=0)) for delta in deltas]
    summed = merge("compeft", torch.zeros(4), deltas, {"weight": [1.0, 1.0], "density": [0.5, 0.5]})
    torch.testing.assert_close(summed, signs[0] * scales[0] + signs[1] * scales[1])
    values = {"weight": [1.0, 1.0], "density": [0.5, 0.5], "elect": True, "normalize": True}
    elected = merge("compeft", torch.zeros(4), deltas, values)
    torch.testing.assert_close(elected, torch.tensor([scales[0], -scales[1], 0.0, sum(scales) / 2]))


def test_r_tsvm_turns_towards_the_model_with_outliers() -> None:
    generator = torch.Generator().manual_seed(0)
    calm, spiky = torch.randn(2, 12, 12, generator=generator, dtype=torch.float64).unbind()
    spiky[0, 0] = 40.0
    plain = merge("r_tsvm", torch.zeros_like(calm), [calm, spiky], {"strength": 0.0, "outlier_sigma": 6.0})
    weighted = merge("r_tsvm", torch.zeros_like(calm), [calm, spiky], {"outlier_sigma": 6.0})
    # only the second model has outliers: it gets weight two, the first none
    alone = merge("r_tsvm", torch.zeros_like(calm), [calm * 0, 2 * spiky], {"strength": 0.0})
    torch.testing.assert_close(weighted, alone, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(plain, weighted)


def test_pcb_follows_the_released_steps() -> None:
    taus = [torch.randn(40, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(3)]
    weight, ratio = [1.0, 0.8, 1.2], [0.3, 0.5, 0.2]
    numerator, divisor = torch.zeros(40, dtype=torch.float64), torch.zeros(40, dtype=torch.float64)
    for tau, w, r in zip(taus, weight, ratio, strict=True):
        intra = torch.exp(3 * _scaled(tau.abs()) ** 2)
        inter = torch.tanh(tau * sum(taus))
        worth = (intra * inter).clamp(min=float((intra * inter).sort().values[int(40 * (1 - r))]))
        numerator += w * tau * _scaled(worth)
        divisor += _scaled(worth)
    parameters = {"weight": weight, "density": ratio, "clip": 0.0}
    merged = merge("pcb", torch.zeros(40, dtype=torch.float64), taus, parameters)
    torch.testing.assert_close(merged, numerator / divisor.clamp(min=1e-12))


def _scaled(x: Tensor) -> Tensor:
    return (x - x.min()) / (x.max() - x.min())
