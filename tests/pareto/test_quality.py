import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.pareto.quality import (
    attainment,
    attainment_curve,
    generational_distance,
    hypervolume_interval,
    igd_plus,
    inverted_generational_distance,
    win_rate,
)

REFERENCE = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])


def test_distances_by_hand():
    found = [[0.0, 2.0], [1.0, 0.0]]
    # unscaled: (1, 0) is 1 from (1, 1) and from (2, 0)
    assert generational_distance(found, REFERENCE, scale=False) == pytest.approx(0.5)
    assert inverted_generational_distance(found, REFERENCE, scale=False) == pytest.approx((0 + 1 + 1) / 3)
    assert igd_plus(found, REFERENCE, scale=False) == pytest.approx((0 + 1 + 1) / 3)
    # scaled by the reference's range of 2
    assert generational_distance(found, REFERENCE) == pytest.approx(0.25)
    # better than the reference is no shortfall, but it is a distance
    assert igd_plus(REFERENCE + 1, REFERENCE) == 0
    assert inverted_generational_distance(REFERENCE + 1, REFERENCE) > 0


def test_distance_to_itself_is_zero_and_failures_and_dominated_reference_rows_do_not_count():
    with_extra = np.vstack([REFERENCE, [[np.nan, 5.0], [0.0, 0.0]]])
    for distance in (generational_distance, inverted_generational_distance, igd_plus):
        assert distance(REFERENCE, with_extra) == 0
    assert generational_distance([[1.0, 5.0]], [[1.0, 3.0]]) == 2.0  # constant objectives keep their unit


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000))
def test_win_rates_add_up_and_equal_their_twin(seed):
    rng = np.random.default_rng(seed)
    f, g = rng.integers(0, 4, (5, 3)), rng.integers(0, 4, (4, 3))
    loop = np.mean([(a[t] > b[t]) + (a[t] == b[t]) / 2 for a in f for b in g for t in range(3)])
    assert win_rate(f, g) == pytest.approx(loop)
    assert win_rate(f, g) + win_rate(g, f) == pytest.approx(1.0)
    assert win_rate(f, f) == pytest.approx(0.5)


def test_attainment():
    fronts = [REFERENCE, REFERENCE + 1, np.empty((0, 2))]
    assert attainment(fronts, [[1.0, 1.0], [2.0, 2.0], [9.0, 0.0]]) == pytest.approx([2 / 3, 1 / 3, 0.0])
    curve = attainment_curve(fronts[:2], [0.0, 1.0, 3.0, 4.0], 0.5)
    assert curve.tolist() == [3.0, 3.0, 1.0, -np.inf]
    assert attainment_curve(fronts[:2], [0.0, 1.0, 3.0], 0.9).tolist() == [2.0, 1.0, -np.inf]


def test_hypervolume_interval_narrows_to_the_value():
    rng = np.random.default_rng(0)
    low, high = hypervolume_interval(REFERENCE, 0.0, [-1, -1], rng, draws=3)
    assert low == high == pytest.approx(6.0)  # 3 + 2 + 1 unit columns
    low, high = hypervolume_interval(REFERENCE, 0.1, [-1, -1], rng, draws=200)
    assert low < 6.0 < high


def test_bad_input():
    with pytest.raises(InputError, match="at least one row without NaN"):
        win_rate(np.full((1, 2), np.nan), REFERENCE)
    with pytest.raises(InputError, match="same objectives"):
        igd_plus([[1.0, 2.0, 3.0]], REFERENCE)
    with pytest.raises(InputError, match="at least one front"):
        attainment([], REFERENCE)
    with pytest.raises(InputError, match=r"fronts\[1\] must have 2 objectives"):
        attainment_curve([REFERENCE, [[1.0]]], [0.0])
