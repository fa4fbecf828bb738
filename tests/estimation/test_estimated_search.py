"""A search that estimates scores from few items: items per candidate, fitness values, and resuming after a kill."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.candidate import FIRST_REMEASURED, Objective
from evomerge.commands import _run_search as session
from evomerge.controllers import Recommender
from evomerge.irt import FEW_ITEM_METHODS
from evomerge.runs import open_run
from tests.estimation.worlds import ITEMS, OBJECTIVES, TASKS, Shuffled, decisions, notes, prepared, search, truth


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimated") / "run"
    search(folder, prepared())
    return folder


def test_parents_answer_everything_before_any_candidate_is_asked(whole: Path) -> None:
    with closing(Archive.open(whole)) as archive:
        submitted = [event.candidate for event in archive.events("submitted") if event.payload["split"] == "search"]
        asked = next(event.seq for event in archive.events("asked"))
        answered = [event.seq for event in archive.events("finished") if event.candidate in (-1, -2, -3)][:3]
    assert set(submitted[:3]) == {-1, -2, -3}
    assert max(answered) < asked
    assert all(decisions(whole)["asked"][n] == {t: set(ITEMS[t]) for t in TASKS} for n in (-1, -2, -3))


def test_candidates_answer_the_same_anchors_and_every_sixth_everything(whole: Path) -> None:
    found = decisions(whole)
    (anchors,) = found["anchors"]
    for task in TASKS:
        assert len(set(anchors["tasks"][task])) == 8
    for number in range(24):
        expected = ITEMS if number % 6 == 0 else anchors["tasks"]
        assert found["asked"][number] == {task: set(expected[task]) for task in TASKS}


def test_what_is_told_is_the_estimate_or_the_mean_of_full_answers(whole: Path) -> None:
    run, found = open_run(whole), decisions(whole)
    told, estimated = dict(found["observed"]), dict(found["estimated"])
    assert list(told) == list(range(24))
    for number, fitness in told.items():
        if number % 6 == 0:
            values = [[r.value for r in run.data.responses(number) if r.task == task] for task in TASKS]
            assert fitness == [np.mean(row) for row in values]
        else:
            assert fitness == [estimated[number]["scores"][task]["value"] for task in TASKS]


def test_finalists_answer_the_rest_and_the_best_is_one_of_them(whole: Path) -> None:
    run, found = open_run(whole), decisions(whole)
    finals = [number for number, rest in found["search_rest"].items() if rest]
    assert 1 <= len(finals) <= 6
    for number in finals:
        for task in TASKS:
            assert found["asked"][number][task] | found["search_rest"][number][task] == set(ITEMS[task])
            assert not found["asked"][number][task] & found["search_rest"][number][task]
    full = run.data.full_candidates()
    recommended = {number for number in found["asked"] if number >= FIRST_REMEASURED}
    assert len(recommended) == 2  # of four generations, the last third is the last one
    assert set(full) == {*finals, *range(0, 24, 6), *recommended}
    best = run.best()
    assert best is not None
    overall = {number: sum(score.value for score in run.data.evaluations()[number].scores.values()) for number in full}
    assert best.number in full
    assert overall[best.number] == max(overall.values())
    assert {final.number for final in run.finals() if final.number >= 0} <= set(full)


def test_what_the_controller_recommends_is_measured_in_full_and_told_to_nobody(whole: Path) -> None:
    run, found = open_run(whole), decisions(whole)
    preparation = prepared()
    with closing(Archive.open(whole)) as archive:
        (event,) = archive.events("recommended")
        people = {candidate.number: candidate for candidate in archive.candidates("remeasured")}
        told = [(e.candidate, e.payload["fitness"]) for e in archive.events("observed")]
    assert event.payload == {"numbers": sorted(people), "observed": 24}
    controller = session._controller(preparation)
    for batch in range(4):
        controller.ask()
        for number, fitness in told[6 * batch : 6 * batch + 6]:
            controller.tell(number, fitness)
    assert isinstance(controller, Recommender)
    for point, candidate in zip(controller.recommended(), people.values(), strict=True):
        assert candidate.genotype == tuple(point)
        assert candidate.recipe == preparation.space.decode(point)
        assert found["asked"][candidate.number] == {task: set(ITEMS[task]) for task in TASKS}
        score = run.data.evaluations()[candidate.number].scores["left"]
        assert score.value == pytest.approx(truth(preparation, candidate, "left"))
    assert not {number for number, _ in told} & set(people)


def test_estimates_stand_beside_full_answers_and_are_better_than_plain_means(whole: Path) -> None:
    run, preparation = open_run(whole), prepared()
    table = run.tables.estimates()
    assert list(table.columns)[:8] == ["candidate", "objective", "estimate", "stderr", "low", "high", "full", "items"]
    assert len(table) == 2 * 24
    everyone = {candidate.number: candidate for candidate in run.data.candidates()}
    ours, raw, inside = [], [], []
    for row in table.to_dict("records"):
        true = truth(preparation, everyone[row["candidate"]], row["objective"])
        if not np.isnan(row["full"]):
            assert row["full"] == pytest.approx(true)
        anchors = decisions(whole)["anchors"][0]["tasks"][row["objective"]]
        mine = [r.value for r in run.data.responses(row["candidate"]) if r.item in anchors]
        raw.append(abs(np.mean(mine) - true))
        ours.append(abs(row["estimate"] - true))
        inside.append(row["low"] <= true <= row["high"])
    assert np.mean(ours) < np.mean(raw)
    assert np.mean(inside) >= 0.85
    summary = run.status()["estimates"]["left"]
    assert summary["items"] == 8
    assert summary["compared"] == len([number for number in run.data.full_candidates() if number < FIRST_REMEASURED])


def test_the_front_says_which_scores_are_estimated(whole: Path) -> None:
    run = open_run(whole)
    front, full = run.front(), set(run.data.full_candidates())
    assert (front["measured"] == front["candidate"].isin(full)).all()
    errors = run.trials().set_index("candidate")["stderr.left"]
    assert errors[1] > errors[0]  # 0 answered everything
    assert run.trials().set_index("candidate").loc[1, "items.left"] == 8
    assert "estimated from few" in run.summary()


class Killed(BaseException):
    """The process is gone."""


def killing(moment: int) -> Callable[[str], None]:
    seen = 0

    def watch(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            raise Killed

    return watch


@pytest.mark.parametrize("moments", [(3, 12, 9), (40, 3, 70), (150, 1)])
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path, whole: Path, moments: tuple[int, ...]) -> None:
    folder = tmp_path / "run"
    for moment in moments:
        with pytest.raises(Killed):
            search(folder, prepared(), killing(moment))
    search(folder, prepared())
    assert decisions(folder) == decisions(whole)


def test_raising_the_budget_goes_on_with_the_same_anchors_and_knowledge(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    search(folder, prepared(candidates=10))
    search(folder, prepared(candidates=24))  # the finalists of the first part have answered more by now
    found, expected = decisions(folder), decisions(whole)
    assert found["anchors"] == expected["anchors"]
    assert found["observed"] == expected["observed"]


def test_workers_and_their_speed_do_not_change_what_is_told(tmp_path: Path, whole: Path) -> None:
    search(tmp_path / "run", prepared(), execution=Shuffled())
    assert decisions(tmp_path / "run")["observed"] == decisions(whole)["observed"]


@pytest.mark.parametrize("estimator", FEW_ITEM_METHODS)
def test_every_method_runs_from_parents_alone_and_says_what_it_did_instead(tmp_path: Path, estimator: str) -> None:
    search(tmp_path / "run", prepared(estimator=estimator, candidates=7, full_every=3))
    used = set(open_run(tmp_path / "run").tables.estimates()["method"])
    assert used == {"parents" if estimator in ("auto", "mp-irt") else "p-irt" if estimator == "gp-irt" else estimator}
    said = [text for text in notes(tmp_path / "run") if "needs" in text]
    assert len(said) == (2 if estimator in ("mp-irt", "gp-irt") else 0)


def test_only_tasks_are_estimated(tmp_path: Path) -> None:
    lengths = Objective("length", "right", "acc", "minimize", kind="response_length")
    search(tmp_path / "run", prepared(objectives=(OBJECTIVES[0], lengths), candidates=6, full_every=0))
    run = open_run(tmp_path / "run")
    assert set(run.tables.estimates()["objective"]) == {"left"}
    asked = decisions(tmp_path / "run")["asked"]
    assert (len(asked[0]["left"]), len(asked[0]["right"])) == (8, 60)
    told = dict(decisions(tmp_path / "run")["observed"])
    assert told[0][1] == -np.mean([r.value for r in run.data.responses(0) if r.task == "right"])


def test_failed_candidates_and_parents_do_not_end_it(tmp_path: Path) -> None:
    search(tmp_path / "run", prepared(candidates=8, full_every=3, troubles={-1: "candidate", 3: "candidate", 4: "nan"}))
    told = dict(decisions(tmp_path / "run")["observed"])
    assert [number for number, fitness in told.items() if fitness is None] == [3, 4]
    assert open_run(tmp_path / "run").state == "finished"


def test_with_no_parent_and_no_bank_everything_is_asked(tmp_path: Path) -> None:
    troubles = {number: "candidate" for number in (-1, -2, -3)}
    search(tmp_path / "run", prepared(candidates=4, troubles=troubles))
    assert any("no parent that could be scored" in text for text in notes(tmp_path / "run"))
    # the parents failed after the first task, whose answers are theirs all the same
    assert all(len(decisions(tmp_path / "run")["asked"][n]["right"]) == 60 for n in range(4))


def test_as_many_items_as_there_are_estimates_nothing(tmp_path: Path) -> None:
    preparation = prepared(candidates=4, items=60)
    search(tmp_path / "run", replace(preparation))
    assert open_run(tmp_path / "run").tables.estimates().empty
    assert len(open_run(tmp_path / "run").data.full_candidates()) == 4
