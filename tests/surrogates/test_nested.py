import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.surrogates import NestedState


def test_pairs_by_closest_metric_with_deterministic_ties():
    state = NestedState.begin([0.1, 0.5, 0.6, 0.9])
    assert state.next_pair() == (1, 2)
    state = state.join((1, 2), [0.5, 0.5])
    assert state.nodes[-1].metric == pytest.approx(0.55)
    assert state.next_pair() == (3, 4)  # 0.9 - 0.55 is below 0.55 - 0.1
    assert NestedState.begin([0.2, 0.2, 0.2]).next_pair() == (0, 1)
    assert NestedState.begin([0.1, 0.2, 0.3]).next_pair() == (0, 1)  # 0.3 - 0.2 is smaller by rounding only


def test_pairs_by_similarity():
    similarity = np.array([[1, 0.1, 0.2], [0.1, 1, 0.9], [0.2, 0.9, 1]])
    state = NestedState.begin([0.5, 0.5, 0.9], similarity=similarity)
    assert state.next_pair() == (1, 2)
    assert state.join((1, 2), [1, 1]).next_pair() == (0, 3)


def test_a_whole_tree_composes_to_the_merged_weights():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 50))
    state = NestedState.begin(rng.random(6), rng.random(6) + 0.1)
    merged = [v.copy() for v in vectors]  # the task vector of every node, merged step by step
    merges = 0
    while (pair := state.next_pair()) is not None:
        local = rng.random(2)
        merged.append(local[0] * merged[pair[0]] + local[1] * merged[pair[1]])
        state = state.join(pair, local)
        merges += 1
    root = state.nodes[-1]
    assert merges == 5
    assert root.members == (0, 1, 2, 3, 4, 5)
    assert root.coefficients @ vectors == pytest.approx(merged[-1], abs=1e-12)
    single = (root.coefficients.astype(np.float32) @ vectors.astype(np.float32)) - merged[-1]
    assert np.abs(single).max() < 1e-6
    # the full record: every node's coefficients follow from its parents'
    for node in state.nodes:
        if node.parents is not None:
            (a, b), (x, y) = node.parents, node.local
            expected = x * state.nodes[a].coefficients + y * state.nodes[b].coefficients
            assert (node.coefficients == expected).all()


def test_powers_of_two_compose_exactly():
    state = NestedState.begin([0.1, 0.2, 0.9])
    state = state.join((0, 1), [0.5, 0.25])
    state = state.join((2, 3), [0.5, 2.0])
    assert state.nodes[-1].coefficients.tolist() == [1.0, 0.5, 0.5]


def test_preferences_count_members():
    state = NestedState.begin([0.1, 0.2, 0.9], [1, 2, 1]).join((0, 1), [1, 1])
    assert state.pair_preference((2, 3)).tolist() == [0.25, 0.75]
    assert state.nodes[3].metric == pytest.approx((0.1 + 2 * 0.2) / 3)
    assert state.tasks_of((2, 3)) == (0, 1, 2)
    assert state.join((2, 3), [1, 1], metric=0.7).nodes[-1].metric == 0.7
    unweighted = NestedState.begin([0.1, 0.2, 0.9], [0, 0, 1])
    assert unweighted.pair_preference((0, 1)).tolist() == [0.5, 0.5]


def test_one_expert_is_a_tree():
    state = NestedState.begin([0.5])
    assert state.next_pair() is None
    assert state.nodes[-1].coefficients.tolist() == [1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NestedState.begin([]), "at least 1"),
        (lambda: NestedState.begin([np.nan, 1]), "NaN"),
        (lambda: NestedState.begin([1, 2], similarity=[[1, 0], [1, 1]]), "symmetric"),
        (lambda: NestedState.begin([1, 2], [0, 0]), "preference"),
        (lambda: NestedState.begin([1, 2]).join((0, 0), [1, 1]), "two different open nodes"),
        (lambda: NestedState.begin([1, 2]).join((0, 2), [1, 1]), "two different open nodes"),
        (lambda: NestedState.begin([1, 2]).join((0, 1), [np.inf, 1]), "finite"),
        (lambda: NestedState.begin([1, 2]).join((0, 1), [1, 1, 1]), "one per node"),
        (lambda: NestedState.begin([1, 2]).join((0, 1), [1, 1], metric=np.nan), "metric must be finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_states_are_values():
    state = NestedState.begin([0.1, 0.2])
    state.join((0, 1), [1, 1])
    assert len(state.nodes) == 2
    assert state.open == (0, 1)
