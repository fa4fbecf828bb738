import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.pareto import (
    choose_by_preference,
    desirability,
    knee,
    not_dominated_by_any,
    overall_desirability,
    preference_weights,
)
from evomerge.pareto._selection import ideal_and_nadir, normalised

FRONT = np.array([[0.0, 10.0], [0.9, 9.0], [1.0, 0.0], [0.5, 2.0]])  # the last row is dominated


def test_ideal_nadir_and_scaling_ignore_dominated_rows():
    ideal, nadir = ideal_and_nadir(np.vstack([FRONT, [[-5.0, -5.0]]]))
    assert (ideal.tolist(), nadir.tolist()) == ([1.0, 10.0], [0.0, 0.0])
    assert normalised(FRONT)[1].tolist() == [0.9, 0.9]
    assert normalised([[1.0, 3.0], [2.0, 3.0]])[1].tolist() == [0.0, 0.0]  # a front of one point


def test_knee_bulges_most():
    assert knee(FRONT) == 1
    angle = np.linspace(0, np.pi / 2, 21)
    assert knee(np.stack([np.cos(angle), np.sin(angle)], axis=1)) == 10
    sphere = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.7, 0.7, 0.05], [0.577, 0.577, 0.577]])
    assert knee(sphere) == 4


def test_knee_of_degenerate_fronts():
    assert knee([[1.0, 2.0]]) == 0
    assert knee([[0.0, 1.0], [1.0, 0.0]]) == 0
    assert knee([[np.nan, 1.0], [1.0, 1.0], [1.0, 1.0]]) == 1
    assert knee([[1, 5, 0], [1, 0, 5], [1, 4, 4]]) == 2  # a constant objective


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(-10, 10))
def test_choices_do_not_depend_on_units(seed, factor, shift):
    scores = np.random.default_rng(seed).random((12, 3))
    moved = scores * [factor, 1.0, 1.0] + [shift, 0.0, 0.0]
    assert knee(scores) == knee(moved)
    assert choose_by_preference(scores, [1, 2, 3]) == choose_by_preference(moved, [1, 2, 3])


def test_preferences():
    # the middle point lies inside the hull of the others: only Tchebycheff can return it
    scores = np.array([[0.0, 1.0], [0.4, 0.4], [1.0, 0.0]])
    assert choose_by_preference(scores, [1, 1]) == 1
    assert choose_by_preference(scores, [1, 1], method="weighted_sum") == 0
    assert choose_by_preference(scores, [2, 1], method="weighted_sum") == 2
    assert choose_by_preference(scores, [1, 0]) == 2
    assert choose_by_preference(scores, [0, 7]) == 0
    assert preference_weights([2, 6], 2).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("bad", [[-1, 1], [0, 0], [np.inf, 1], [1, 1, 1], [np.nan, 1]])
def test_bad_preferences(bad):
    with pytest.raises(InputError, match="preference must"):
        choose_by_preference(FRONT, bad)


def test_unknown_method_and_nothing_to_choose_from():
    with pytest.raises(InputError, match="tchebycheff"):
        choose_by_preference(FRONT, [1, 1], method="sum")
    with pytest.raises(InputError, match="at least one row without NaN"):
        knee(np.full((2, 2), np.nan))


def test_desirability_by_hand():
    table = desirability([[0.5, 80.0], [0.9, 50.0], [np.nan, 100.0]], [0.4, 60.0], [0.8, 100.0], [1.0, 2.0])
    assert table == pytest.approx(np.array([[0.25, 0.25], [1.0, 0.0], [0.0, 1.0]]))
    assert overall_desirability(table) == pytest.approx([0.25, 0.0, 0.0])
    assert overall_desirability([[0.25, 0.0]], [1.0, 0.0]) == pytest.approx([0.25])
    assert overall_desirability([[0.2, 0.8]], [3, 1]) == pytest.approx([0.2**0.75 * 0.8**0.25])


def test_bad_desirabilities():
    with pytest.raises(InputError, match="target must be above low"):
        desirability(FRONT, 1.0, [2.0, 1.0])
    with pytest.raises(InputError, match="shape must"):
        desirability(FRONT, 0.0, 1.0, 0.0)


def test_parents_filter():
    parents = [[0.8, 0.2], [0.2, 0.8]]
    scores = [[0.8, 0.2], [0.7, 0.2], [0.5, 0.5], [np.nan, 1.0], [0.1, 0.79]]
    assert not_dominated_by_any(scores, parents).tolist() == [True, False, True, False, False]
    assert not_dominated_by_any(scores, np.empty((0, 2))).tolist() == [True, True, True, False, True]
    with pytest.raises(InputError, match="parents must"):
        not_dominated_by_any(scores, [[1.0]])
