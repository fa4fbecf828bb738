import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.pareto import crowding_distance, dominates, extend_front, front_ranks, non_dominated
from evomerge.pareto._dominance import BLOCK_ROWS

from . import brute_force


def tables(most_rows=12, most_objectives=5):
    # few distinct values, so that ties and duplicates are common; NaN and infinities as failed or unbounded scores
    value = st.sampled_from([0.0, 1.0, 2.0, 3.0, -np.inf, np.inf, np.nan])
    return st.integers(1, most_objectives).flatmap(
        lambda m: st.lists(st.lists(value, min_size=m, max_size=m), max_size=most_rows).map(
            lambda rows: np.array(rows, dtype=float).reshape(-1, m)
        )
    )


@settings(max_examples=300, deadline=None)
@given(tables())
def test_front_and_ranks_equal_their_twins(scores):
    assert non_dominated(scores).tolist() == brute_force.front(scores).tolist()
    assert front_ranks(scores).tolist() == brute_force.ranks(scores).tolist()


@settings(max_examples=200, deadline=None)
@given(tables())
def test_a_front_extended_row_by_row_is_the_front_of_all_rows(scores):
    everything = distinct = None
    for row in scores:
        everything, distinct = extend_front(everything, row), extend_front(distinct, row, duplicates=False)
    expected = scores[brute_force.front(scores)]  # duplicates included
    assert sorted([] if everything is None else everything.tolist()) == sorted(expected.tolist())
    assert sorted([] if distinct is None else distinct.tolist()) == np.unique(expected, axis=0).tolist()


def test_extending_a_front_by_hand():
    front = extend_front(None, [1.0, 3.0])
    assert extend_front(front, [1.0, 2.0]) is front  # dominated
    assert extend_front(front, [np.nan, 9.0]) is front
    assert extend_front(front, [1.0, 3.0]).tolist() == [[1.0, 3.0], [1.0, 3.0]]
    assert extend_front(front, [2.0, 1.0]).tolist() == [[1.0, 3.0], [2.0, 1.0]]
    assert extend_front(front, [2.0, 3.0]).tolist() == [[2.0, 3.0]]
    assert front.tolist() == [[1.0, 3.0]]  # not modified
    assert extend_front(None, [np.nan]) is None


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_front_of_many_rows_on_both_sides_of_the_block_size(m):
    rng = np.random.default_rng(m)
    for n in (BLOCK_ROWS - 1, 2 * BLOCK_ROWS + 3):
        scores = rng.normal(size=(n, m)).round(1)
        assert (non_dominated(scores) == brute_force.front(scores)).all()


def test_worked_example_with_a_tie_a_duplicate_and_a_failure():
    scores = [[1, 3], [2, 2], [2, 2], [2, 1], [3, 1], [np.nan, 9]]
    assert non_dominated(scores).tolist() == [True, True, True, False, True, False]
    assert non_dominated(scores, duplicates=False).tolist() == [True, True, False, False, True, False]
    assert front_ranks(scores).tolist() == [0, 0, 0, 1, 0, 2]


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(0, 1000))
def test_adding_a_dominated_row_leaves_the_front_alone_and_order_does_not_matter(scores, seed):
    front = non_dominated(scores)
    if front.any() and np.isfinite(scores[front]).all():
        worse = scores[front][:1] - 1
        assert non_dominated(np.vstack([scores, worse])).tolist() == [*front.tolist(), False]
    order = np.random.default_rng(seed).permutation(len(scores))
    assert non_dominated(scores[order]).tolist() == front[order].tolist()


def test_empty_single_and_all_failed():
    assert non_dominated(np.empty((0, 3))).shape == (0,)
    assert front_ranks(np.empty((0, 3))).shape == (0,)
    assert non_dominated([[5.0]]).tolist() == [True]
    assert non_dominated(np.full((3, 2), np.nan)).tolist() == [False] * 3
    assert front_ranks(np.full((3, 2), np.nan)).tolist() == [0] * 3
    assert crowding_distance(np.empty((0, 2))).shape == (0,)


def test_constant_objectives_and_perfectly_correlated_ones():
    assert non_dominated([[1, 0], [1, 0], [1, 0]]).all()
    line = np.linspace(0, 1, 5)
    assert non_dominated(np.stack([line, 2 * line], axis=1)).tolist() == [False] * 4 + [True]
    assert non_dominated(np.stack([line, -line], axis=1)).all()


def test_dominates_broadcasts_and_is_false_for_equal_rows_and_nan():
    assert dominates([[2, 2], [1, 2], [np.nan, 9]], [1, 2]).tolist() == [True, False, False]


def test_crowding_of_evenly_spaced_points():
    scores = np.stack([np.arange(5.0), -np.arange(5.0)], axis=1)
    assert crowding_distance(scores).tolist() == [np.inf, 1.0, 1.0, 1.0, np.inf]
    assert crowding_distance([[1, 1], [2, 0]]).tolist() == [np.inf, np.inf]
    # a constant objective adds nothing
    assert crowding_distance([[0, 7], [1, 7], [2, 7]]).tolist() == [np.inf, 1.0, np.inf]
    assert crowding_distance([[0, 1], [np.nan, 1]]).tolist() == [np.inf, 0.0]


@pytest.mark.parametrize("bad", [[1, 2, 3], np.empty((3, 0)), [["a", "b"]], [[1, 2], [3]]])
def test_refuses_what_is_not_a_table(bad):
    with pytest.raises(InputError, match="scores must"):
        non_dominated(bad)


def test_input_is_not_changed():
    scores = np.random.default_rng(0).normal(size=(20, 3))
    before = scores.copy()
    non_dominated(scores), front_ranks(scores), crowding_distance(scores)
    assert (scores == before).all()
