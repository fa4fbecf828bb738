"""Constraints of a search file: what they do to the best, the front, the hypervolume and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evomerge.candidate import Objective
from evomerge.cli import main
from evomerge.pareto import hypervolume, non_dominated
from evomerge.reports import write_report
from evomerge.runs import Run, bounds_of, constraint_problems, open_run, read_constraints
from evomerge.runs._fronts import front_volume, reference_of
from tests.commands.made import OBJECTIVES, make_run

CONSTRAINT = "right >= right - 10 points"
NEVER = ("left >= best + 50 points", "right >= 0.3")


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "free", candidates=32))


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "bound", candidates=32, constraints=[CONSTRAINT]))


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "never", candidates=8, constraints=NEVER))


def scores(run: Run) -> np.ndarray:
    return run.trials()[["score.left", "score.right"]].to_numpy()


def test_the_best_the_front_and_the_volume_are_of_what_meets_them(free: Run, bound: Run) -> None:
    """Both runs measured the same candidates; by hand from their scores."""
    table = scores(bound)
    assert np.array_equal(table, scores(free))
    bar = free.tables.parents().set_index("name").loc["right", "score.right"] - 0.1
    met = table[:, 1] >= bar
    assert 0 < met.sum() < len(table)
    allowed = np.flatnonzero(met)
    best = allowed[np.argmax(table[allowed].mean(axis=1))]
    assert bound.best() is not None
    assert bound.best().number == best  # type: ignore[union-attr]
    assert free.best().number != best  # type: ignore[union-attr]  # otherwise this test shows nothing
    front = allowed[non_dominated(table[allowed], duplicates=False)]
    assert set(bound.front()["candidate"]) == set(front)
    assert set(free.front()["candidate"]) != set(front)
    reference = [reference_of(bound.data)[name] for name in ("left", "right")]
    assert front_volume(bound.data) == pytest.approx(hypervolume(table[front], reference))
    assert bound.tables.hypervolume()["hypervolume"].iloc[-1] == pytest.approx(front_volume(bound.data))
    assert bound.pick("right=1").number in allowed
    assert bound.data.infeasible() is None
    assert bound.status()["constraints"] == [CONSTRAINT]


def test_conditions_of_a_request_come_on_top_and_predictions_obey_both(bound: Run) -> None:
    bar = bound.tables.parents().set_index("name").loc["right", "score.right"] - 0.1
    front = bound.front(where=["left >= 0.2"], predicted=6)
    assert (front["score.left"] >= 0.2).all()
    assert (front["score.right"] >= bar).all()


def test_constraints_that_nothing_meets_are_a_clear_outcome(never: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert never.best() is None
    assert not never.has_result
    assert len(never.front()) == 0
    assert front_volume(never.data) == 0.0
    why = never.data.infeasible()
    assert why is not None
    assert why.startswith("no candidate meets all constraints: left >= 1.")
    assert "which none reaches" in why
    assert why in never.summary()
    assert why in never.status_text()
    assert never.status()["best"] is None
    assert main(["trials", str(never.folder)]) == 0  # what was measured is there identical
    capsys.readouterr()


def test_a_report_can_be_written_in_either_case(bound: Run, never: Run) -> None:
    for run in (bound, never):
        assert Path(write_report(run)).is_file()


def test_a_constraint_that_names_nothing_is_found_before_anybody_has_scores() -> None:
    texts = [
        "right >= base - 1 point",
        "wrong >= 0.5",
        "left > 0.5",
        "left >= nobody + 1 point",
        "left >= base - 3",
        "left <= best",
    ]
    found = dict(constraint_problems(texts, OBJECTIVES, ["base", "left", "right"]))
    assert sorted(found) == [1, 2, 3, 4]
    assert "unknown objective 'wrong'" in found[1]
    assert "constraint 'left > 0.5': expected" in found[2]
    assert "'nobody' is neither a number nor a parent" in found[3]
    assert "write 3 points" in found[4]


def test_bounds_on_fitness_turn_with_the_goal_and_the_tightest_counts() -> None:
    objectives = (Objective("a", "a", "acc"), Objective("words", "w", "n", goal="minimize"))
    texts = ["a >= 0.2", "a >= base + 10 points", "a <= 0.9", "words <= 40", "words >= 3"]
    parents = {"base": {"a": 0.3, "words": 20.0}}
    bounds = bounds_of(read_constraints(texts, objectives, parents), objectives)
    assert bounds.low == pytest.approx((0.4, -40.0))
    assert bounds.high == pytest.approx((0.9, -3.0))
