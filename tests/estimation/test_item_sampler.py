"""Items drawn anew for every generation: who is asked what, what is told, and that a killed search goes on so."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.candidate import Candidate
from evomerge.commands._item_sampler import LEAST, ItemSampler
from evomerge.recipe import passthrough
from evomerge.runs import open_run
from tests.estimation.test_estimated_search import Killed, killing
from tests.estimation.worlds import ITEMS, TASKS, Shuffled, decisions, prepared, search, truth

DEFAULTS: dict[str, Any] = {
    "estimator": "raw",
    "anchors": "resample",
    "items": 12,
    "full_every": None,
    "population": 10,
}


def fresh(**changes: Any) -> Any:
    return prepared(**(DEFAULTS | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "run"
    search(folder, fresh(candidates=64))
    return folder


def test_a_generation_shares_its_items_and_the_next_has_others_until_all_were_used(whole: Path) -> None:
    asked = decisions(whole)["asked"]
    for task in TASKS:
        generations = [asked[first][task] for first in range(0, 64, 10)]  # six, and a part of the seventh
        for number in range(64):
            assert asked[number][task] == generations[number // 10]
        assert all(len(items) == 12 for items in generations)
        assert set().union(*generations[:5]) == set(ITEMS[task])  # 5 x 12: each item once
        assert not generations[5] & generations[6]
        assert generations[5] not in generations[:5]  # shuffled anew


def test_raw_asks_parents_no_more_than_candidates_and_tells_plain_means(whole: Path) -> None:
    run, found = open_run(whole), decisions(whole)
    for parent in (-1, -2, -3):
        assert found["asked"][parent] == found["asked"][0]
        assert not found["search_rest"][parent]
    for number, fitness in found["observed"]:
        means = [np.mean([r.value for r in run.data.responses(number) if r.task == task]) for task in TASKS]
        assert fitness == pytest.approx(means)
    assert set(run.tables.estimates()["method"]) == {"raw"}


def test_intervals_of_raw_estimates_cover_the_truth(whole: Path) -> None:
    run, preparation = open_run(whole), fresh()
    everyone = {candidate.number: candidate for candidate in run.data.candidates()}
    rows = run.tables.estimates().to_dict("records")
    inside = [
        row["low"] <= truth(preparation, everyone[row["candidate"]], row["objective"]) <= row["high"] for row in rows
    ]
    assert 0.88 <= np.mean(inside) <= 1.0


@pytest.mark.parametrize("moments", [(3, 12, 9), (120, 2, 200)])
def test_a_killed_search_goes_on_with_the_same_draws(tmp_path: Path, whole: Path, moments: tuple[int, ...]) -> None:
    folder = tmp_path / "run"
    for moment in moments:
        with pytest.raises(Killed):
            search(folder, fresh(candidates=64), killing(moment))
    search(folder, fresh(candidates=64))
    assert decisions(folder) == decisions(whole)


def test_a_budget_that_ends_inside_a_generation_is_raised_without_another_draw(tmp_path: Path, whole: Path) -> None:
    search(tmp_path / "run", fresh(candidates=25))
    search(tmp_path / "run", fresh(candidates=64), execution=Shuffled())
    found, expected = decisions(tmp_path / "run"), decisions(whole)
    assert found["observed"] == expected["observed"]
    assert {n: found["asked"][n] for n in range(64)} == {n: expected["asked"][n] for n in range(64)}
    with closing(Archive.open(tmp_path / "run")) as archive:
        assert [event.payload["observed"] for event in archive.events("recommended")] == [25, 64]


def test_with_parents_a_full_answer_is_told_by_its_generations_items(tmp_path: Path) -> None:
    """A candidate that answered everything has no share in its generation's luck; its mean would not compare."""
    search(tmp_path / "run", fresh(candidates=30, estimator="parents", full_every=7))
    found, run = decisions(tmp_path / "run"), open_run(tmp_path / "run")
    told, estimated = dict(found["observed"]), dict(found["estimated"])
    for number in range(30):
        assert told[number] == [estimated[number]["scores"][task]["value"] for task in TASKS]
        assert estimated[number]["scores"]["left"]["items"] == 12
    assert found["asked"][-1] == found["asked"][7] == {task: set(ITEMS[task]) for task in TASKS}
    assert run.data.evaluations()[7].scores["left"].items == 60


def test_proposals_that_come_one_at_a_time_share_items_in_blocks(tmp_path: Path) -> None:
    pool = {"left": ITEMS["left"]}
    with closing(Archive.create(tmp_path / "run", {})) as archive:
        draws = ItemSampler(archive, pool, {"left": 7}, 3)
        for number in range(3 * LEAST):
            archive.put_asked([Candidate(number, passthrough(f"org/{number}"), (0.5,))], 1)
            assert draws.items(number) == draws.items(number // LEAST * LEAST)
        found = [draws.items(LEAST * block)["left"] for block in range(3)]
        assert len({*found[0], *found[1], *found[2]}) == 21
        assert found == [ItemSampler(archive, pool, {"left": 7}, 3).items(LEAST * b)["left"] for b in range(3)]
        assert found[0] != ItemSampler(archive, pool, {"left": 7}, 4).items(0)["left"]
