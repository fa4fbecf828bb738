"""When a written answer is complete: never before more text could change it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.scoring.batched._generation import Stops


def cut_as_lm_eval(text: str, strings: list[str]) -> str:
    from lm_eval.models.utils import postprocess_generated_text

    return postprocess_generated_text(text, strings, None)


@settings(deadline=None, max_examples=400)
@given(
    st.text(alphabet="ab\n ", max_size=12),
    st.lists(st.text(alphabet="ab\n ", min_size=0, max_size=4), min_size=1, max_size=4),
)
def test_a_complete_text_is_cut_as_the_whole_would_be(text, strings):
    stops = Stops(tuple(strings), frozenset(), 10)
    expected = cut_as_lm_eval(text, strings)
    for end in range(len(text) + 1):
        if stops.complete(text[:end]):
            assert stops.cut(text[:end]) == expected
            break
    assert stops.cut(text) == expected


@pytest.mark.parametrize(
    ("strings", "text", "done"),
    [
        (("\n",), "42", False),
        (("\n",), "42\n", True),
        (("\n\n", " \n"), "42 \n", False),  # a second newline would cut one character later
        (("\n\n", " \n"), "42 \nx", False),
        (("\n\n", " \n"), "42 \nxyz", True),
        (("aba", "b"), "ab", False),
        (("\n\n", "\n"), "42\n", True),  # both cut at the same place
        (("",), "42", False),
        ((), "42", False),
    ],
)
def test_completeness_by_hand(strings, text, done):
    assert Stops(strings, frozenset(), 10).complete(text) is done
