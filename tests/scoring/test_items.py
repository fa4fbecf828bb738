"""Splits: disjoint by content, independent of order, nested, exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import TaskError
from evomerge.scoring import Document, split
from evomerge.scoring.lm_eval._documents import catalogue, content_hash


def documents(count: int, prefix: str = "d") -> tuple[Document, ...]:
    return tuple(Document(f"{prefix}{i}", content_hash({"q": i})) for i in range(count))


def test_sides_are_disjoint_and_of_exact_size():
    plan = split({"a": documents(200)}, items=None, holdout=0.25, seed=7)
    assert (len(plan.search["a"]), len(plan.holdout["a"])) == (150, 50)
    assert set(plan.search["a"]) | set(plan.holdout["a"]) == {document.id for document in documents(200)}


def test_the_order_of_the_file_does_not_matter():
    given_order = documents(60)
    assert split({"a": given_order}, items=20, holdout=0.5, seed=1) == split(
        {"a": given_order[::-1]}, items=20, holdout=0.5, seed=1
    )


def test_fewer_items_are_the_first_of_more():
    more = split({"a": documents(200)}, items=100, holdout=0.5, seed=3).search["a"]
    fewer = split({"a": documents(200)}, items=50, holdout=0.5, seed=3).search["a"]
    assert more[:50] == fewer


def test_the_seed_draws_other_items():
    one, two = (split({"a": documents(100)}, items=30, holdout=0.5, seed=seed) for seed in (1, 2))
    assert set(one.search["a"]) != set(two.search["a"])


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.floats(0.05, 0.95), st.integers(0, 5))
def test_equal_documents_are_never_on_both_sides(contents, share, seed):
    if len(set(contents)) < 2:
        return
    copies = tuple(Document(str(i), content_hash({"q": value})) for i, value in enumerate(contents))
    plan = split({"a": copies}, items=None, holdout=share, seed=seed)
    content = {document.id: document.hash for document in copies}
    sides = [{content[item] for item in side["a"]} for side in (plan.search, plan.holdout)]
    assert not sides[0] & sides[1]
    assert sides[0]
    assert sides[1]


def test_a_document_shared_by_two_tasks_is_on_one_side():
    tasks = {"a": documents(60), "b": documents(100, "other")}
    plan = split(tasks, items=None, holdout=0.5, seed=0)
    content = {document.id: document.hash for task in tasks.values() for document in task}
    searched = {content[item] for items in plan.search.values() for item in items}
    held = {content[item] for items in plan.holdout.values() for item in items}
    assert not searched & held


def test_another_task_can_stand_in_for_held_out_items():
    tasks = {"a": documents(40), "a_test": documents(50, "t")[30:]}
    plan = split(tasks, items=None, holdout={"a": "a_test"}, seed=0)
    assert plan.stands_in == {"a": "a_test"}
    assert set(plan.search) == {"a"}
    assert sorted(plan.holdout) == ["a_test"]
    assert len(plan.holdout["a_test"]) == 20
    assert len(plan.search["a"]) == 30  # ten of its documents are in the other task


def test_nothing_is_held_out_of_a_task_that_a_mapping_leaves_out():
    plan = split({"a": documents(10), "b": documents(10, "x")}, items=None, holdout={"a": 0.5}, seed=0)
    assert "b" not in plan.holdout
    assert len(plan.search["a"]) == 5


def test_no_holdout_leaves_all_for_the_search():
    plan = split({"a": documents(9)}, items=None, holdout=0.0, seed=0)
    assert len(plan.search["a"]) == 9
    assert plan.holdout == {}


def test_the_sides_of_a_known_run_are_pinned():
    # A stored run names items by these draws; a change here orphans old archives.
    plan = split({"a": documents(10)}, items=3, holdout=0.3, seed=7)
    assert plan.search["a"] == ("d0", "d2", "d3")
    assert plan.holdout["a"] == ("d7", "d4", "d5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 11}, "has 10 documents for the search .20 in all, 10 held out., but 11 items"),
        ({"items": 0}, "items must be at least 1, got 0"),
        ({"holdout": 1.0}, r"share in \[0, 1\)"),
        ({"holdout": 14}, r"share in \[0, 1\)"),
        ({"holdout": {"b": 0.5}}, "unknown task 'b'"),
        ({"holdout": {"a": "c"}}, "unknown task 'c'"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(TaskError, match=message):
        split({"a": documents(20)}, **{"items": None, "holdout": 0.5, "seed": 0, **arguments})


def test_one_document_cannot_be_split():
    with pytest.raises(TaskError, match="one distinct document"):
        split({"a": documents(1)}, items=None, holdout=0.5, seed=0)
    with pytest.raises(TaskError, match="no documents"):
        split({"a": ()}, items=None, holdout=0.5, seed=0)


def test_ids_and_hashes_of_documents():
    named = catalogue("t", [{"id": 5, "q": "x"}, {"id": 6, "q": "x"}])
    assert [document.id for document in named.documents] == ["5", "6"]
    assert named.documents[0].hash == named.documents[1].hash  # the name is not part of the question
    assert "1 of 2 documents repeat" in named.warnings[0]
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1}) != content_hash({"a": 1, "b": [3]})
    assert [document.id for document in catalogue("t", [{"q": 1}, {"q": 2}]).documents] == ["0", "1"]
