"""Two models question by question: counts and differences against loops over the stored answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.candidate import Objective, Response
from evomerge.errors import InputError
from evomerge.runs import Run, open_run
from evomerge.runs._candidate_selection import named_candidate
from evomerge.runs._comparison import compare
from tests.commands.made import HELD, ITEMS, make_run
from tests.runs.documented import undocumented


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=8))


def answers(run: Run, number: int, split: str) -> dict[tuple[str, str], float]:
    table = run.items(split)  # type: ignore[arg-type]
    mine = table[table["candidate"] == number]
    return {(row.task, row.item): row.value for row in mine.itertuples()}


def test_counts_say_who_answers_what(run: Run) -> None:
    found = run.compare(3, "left", split="search")
    mine, theirs = answers(run, 3, "search"), answers(run, -2, "search")
    for row in found.table().itertuples(index=False):
        keys = [key for key in mine if key[0] == row.objective]
        assert row.items == len(ITEMS[row.objective])
        assert row.a_better == sum(mine[key] > theirs[key] for key in keys)
        assert row.b_better == sum(mine[key] < theirs[key] for key in keys)
        assert row.equal == sum(mine[key] == theirs[key] for key in keys)
        assert row.difference == pytest.approx(sum(mine[key] - theirs[key] for key in keys) / len(keys))
        assert row.low < row.difference < row.high
    assert (found.a, found.b) == ("candidate 3", "parent left")


def test_each_item_is_a_row_with_both_answers(run: Run) -> None:
    found = run.compare(3, -2, split="search")
    theirs = answers(run, -2, "search")
    assert len(found.items) == sum(len(ids) for ids in ITEMS.values())
    assert all(row["value.b"] == theirs[row["task"], row["item"]] for _, row in found.items.iterrows())
    assert not undocumented("comparison.items", list(found.items.columns))
    assert not undocumented("comparison", list(found.table().columns))


def test_swapping_the_models_turns_the_sign(run: Run) -> None:
    one, other = run.compare("best", "right"), run.compare("right", "best")
    assert one.overall.value == pytest.approx(-other.overall.value)
    assert one.overall.low == pytest.approx(-other.overall.high)


def test_held_out_items_are_used_where_both_answered_them(run: Run) -> None:
    assert run.compare(0, "left").split == "holdout"
    assert len(run.compare(0, "left").items) == sum(len(ids) for ids in HELD.values())
    assert run.compare(0, 7).split == "search"  # candidate 7 is no finalist
    assert "biased by selection" in run.compare(0, 7).text()
    assert "are not distinguishable" in run.compare(0, 0).verdict()


def test_a_lower_value_is_better_where_the_objective_says_so() -> None:
    objective = Objective("length", "length", "response_tokens", goal="minimize", kind="response_length")
    short = [Response("length", str(i), "response_tokens", 3.0) for i in range(5)]
    long = [Response("length", str(i), "response_tokens", 5.0 + i) for i in range(5)]
    found = compare(("a", "b"), (short, long), [objective], split="search")
    assert list(found.items["difference"]) == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert set(found.items["better"]) == {"a"}
    assert found.overall.value == 4.0
    assert "points" not in found.text()


def test_only_shared_items_count_and_the_rest_is_told() -> None:
    objective = Objective("t", "t", "acc")
    a = [Response("t", str(i), "acc", 1.0) for i in range(6)]
    b = [Response("t", str(i), "acc", 0.0) for i in range(4, 12)]
    found = compare(("a", "b"), (a, b), [objective], split="search")
    assert list(found.items["item"]) == ["4", "5"]
    assert found.left_out == 10
    assert "10 items with only one response are omitted" in found.text()
    with pytest.raises(InputError, match="no answered item of 't' in common"):
        compare(("a", "b"), (a[:4], b), [objective], split="search")


@pytest.mark.parametrize(("name", "words"), [("lefty", "Near: left"), ("99", "no such candidate")])
def test_an_unknown_model_is_refused_by_name(run: Run, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run.compare(0, name)


def test_a_parent_that_is_called_like_a_pick_can_be_named(tmp_path: Path, run: Run) -> None:
    assert named_candidate(run.data, "parent left").number == named_candidate(run.data, "left").number == -2
