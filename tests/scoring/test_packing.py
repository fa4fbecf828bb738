"""Packing: every sequence can be read back from its row, and shared beginnings are there once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.scoring.batched._packing import SHORTEST_ROOT, Likelihood, PrefixBatches, pack_sequences

LARGE = 10**6


def distinct_prefixes(sequences) -> int:
    """Count the tokens of the tree by enumerating every beginning."""
    return len({sequence.inputs[:end] for sequence in sequences for end in range(1, len(sequence.inputs) + 1)})


def read_back(batches: PrefixBatches) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return (inputs, targets) per sequence: the tokens that its last place sees, in order."""
    found = {}
    for row in batches.rows:
        q = len(row.tokens)
        sees = np.array([[j <= i < row.ends[j] for j in range(q)] for i in range(q)])
        for number, member in enumerate(row.members):
            valid = row.targets[number] >= 0
            places = row.places[number][valid]
            visible = np.flatnonzero(sees[places[-1]])
            assert row.depths[visible].tolist() == list(range(len(visible)))
            assert set(places) <= set(visible)
            assert places.tolist() == visible[-len(places) :].tolist()
            found[member] = (
                batches.root + tuple(row.tokens[visible].tolist()),
                tuple(row.targets[number][valid].tolist()),
            )
    return found


SEQUENCES = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 4)), min_size=1, max_size=12
).map(lambda drawn: [Likelihood(tuple(inputs), tuple(range(min(count, len(inputs))))) for inputs, count in drawn])


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, st.sampled_from([1, 5, 12, LARGE]), st.booleans())
def test_every_sequence_is_read_back(sequences, budget, preamble):
    if preamble:
        start = tuple(range(100, 100 + SHORTEST_ROOT))
        sequences = [Likelihood(start + sequence.inputs, sequence.targets) for sequence in sequences]
    batches = pack_sequences(sequences, budget, 4 * budget)
    assert read_back(batches) == {number: (one.inputs, one.targets) for number, one in enumerate(sequences)}
    assert all(len(row.tokens) <= max(4 * budget, max(len(one.inputs) for one in sequences)) for row in batches.rows)


@settings(max_examples=100, deadline=None)
@given(SEQUENCES)
def test_one_row_holds_each_distinct_beginning_once(sequences):
    assert pack_sequences(sequences, LARGE, LARGE).tokens == distinct_prefixes(sequences)


def test_a_shared_preamble_is_the_root_and_in_no_row():
    start = tuple(range(40))
    sequences = [Likelihood((*start, 50, item, choice), (7,)) for item in range(60, 64) for choice in range(70, 74)]
    batches = pack_sequences(sequences, 10, 40)  # two items to a row
    assert batches.root == (*start, 50)
    assert batches.tokens == 41 + 4 * 5
    assert len(batches.rows) > 1


def test_the_root_ends_before_the_first_needed_logits():
    start = tuple(range(40))
    long_answer = Likelihood(start, (1, 2, 3, 4))  # its first target is predicted at place 36
    batches = pack_sequences([long_answer, Likelihood((*start, 9), (1,))], LARGE, LARGE)
    assert len(batches.root) == 36


def test_a_row_grows_for_sequences_that_would_repeat_most_of_it():
    stem = tuple(range(100, 130))
    choices = [Likelihood((*stem, choice), (5,)) for choice in range(4)]
    other = [Likelihood((*range(200, 230), choice), (5,)) for choice in range(4)]
    batches = pack_sequences(choices + other, 30, 60)
    assert [sorted(row.members) for row in batches.rows] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("length", [SHORTEST_ROOT - 1, SHORTEST_ROOT])
def test_short_beginnings_are_not_worth_a_cache(length):
    batches = pack_sequences(
        [Likelihood((*range(length), 90), (1,)), Likelihood((*range(length), 91), (1,))], LARGE, LARGE
    )
    assert len(batches.root) == (length if length >= SHORTEST_ROOT else 0)
