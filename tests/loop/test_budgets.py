"""Limits of time, GPU-time, money and date: strict, over all sessions, with the final scoring reserved inside."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.archive import Archive
from evomerge.candidate import Job, Outcome
from evomerge.commands._budget_limits import checked, overridden
from evomerge.config import BudgetRequest
from evomerge.errors import InputError
from evomerge.loop import Budget, Reserve, evaluate
from evomerge.loop._budget import MARGIN, BudgetMeter
from evomerge.run_config import BudgetConfig
from evomerge.scoring._synthetic import SyntheticSpec
from tests.clock import Clock as FakeTime
from tests.loop.world import OPTIMA, PARENTS, PLAN, World, trace
from tests.workers.fakes import ShuffledPool

SLOW = SyntheticSpec(OPTIMA, parents=PARENTS, seconds=0.03)


class Devices(ShuffledPool):
    """Workers with GPUs, whose time passes only when a test says so."""

    gpus = 2.0

    def status(self) -> list[dict[str, Any]]:
        return [{**row, "gpus": self.gpus} for row in super().status()]


class Clock:
    """Stands in for the archive's active time and for the clock on the wall."""

    def __init__(self, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(archive, "seconds", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: 1e6 + self.now)
        monkeypatch.setattr(time, "time", lambda: 2e9 + self.now)


@pytest.fixture
def archive(folder: Path) -> Any:
    with Archive.create(folder, {"seed": 1}) as made:
        yield made


def test_gpu_hours_are_the_integral_of_the_devices_held(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(archive, monkeypatch)
    pool = Devices(SLOW, 3)
    meter = BudgetMeter(archive, pool, Budget(9, gpu_hours=10.0))
    assert meter.exhausted() is None  # looks: 6 GPUs
    clock.now = 1800.0
    pool.gpus = 1.0
    assert meter.exhausted() is None  # 3 GPU-hours so far, from here on 3 GPUs
    clock.now = 1800.0 + 2 * 3600.0
    assert meter.gpu_hours() == pytest.approx(3.0 + 6.0)
    assert meter.seconds_left() == pytest.approx(1200.0)  # 1 GPU-hour on 3 GPUs
    archive.put_event("interrupted")
    clock.now += 3600.0
    again = BudgetMeter(archive, pool, Budget(9, gpu_hours=10.0))  # the next session: what went by in between is free
    assert again.gpu_hours() == pytest.approx(9.0)
    assert again.exhausted() is None
    clock.now += 1200.0
    reason = again.exhausted()
    assert reason is not None
    assert (reason.name, reason.finished) == ("gpu_hours", True)
    assert reason.message == "the budget of GPU-hours (10 GPU-hours) is used up"


def test_a_worker_without_a_gpu_counts_as_one(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(archive, monkeypatch)
    meter = BudgetMeter(archive, ShuffledPool(SLOW, 4), Budget(9, gpu_hours=1.0))
    meter.exhausted()
    clock.now = 900.0
    assert meter.gpu_hours() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("limits", "name", "seconds", "text"),
    [
        ({"seconds": 90.0}, "seconds", 90.0, "hours (90 seconds)"),
        ({"deadline": 2e9 + 50.0}, "deadline", 50.0, "time until the deadline (2033-05-18T03:34:10Z)"),
        ({"cost": 6.0, "price": 3.0}, "cost", 3600.0, "cost (6 at 3 per GPU-hour)"),
        ({"cost": 6.0, "price": 3.0, "gpu_hours": 1.0}, "gpu_hours", 1800.0, "GPU-hours (1 GPU-hours)"),
        ({"seconds": 90.0, "deadline": 2e9 + 50.0}, "deadline", 50.0, "time until the deadline"),
    ],
)
def test_each_limit_ends_the_search_at_its_second(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], name: str, seconds: float, text: str
) -> None:
    clock = Clock(archive, monkeypatch)
    meter = BudgetMeter(archive, Devices(SLOW, 1), Budget(9, **limits))  # 2 GPUs
    assert meter.exhausted() is None
    clock.now = seconds - 0.01
    assert meter.exhausted() is None
    clock.now = seconds
    reason = meter.exhausted()
    assert reason is not None
    assert reason.name == name
    assert text in reason.message


def test_the_final_scoring_is_kept_back(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine models of three times the items on two workers: five waves of 3 x 4 seconds, with the margin."""
    clock = Clock(archive, monkeypatch)
    budget = Budget(99, seconds=300.0, reserve=Reserve(models=9, share=3.0))
    meter = BudgetMeter(archive, ShuffledPool(SLOW, 2), budget)
    assert meter.reserved() == 0.0
    for number, seconds in enumerate((3.0, 5.0)):
        meter.record(Outcome(number, "search", seconds=seconds))
    meter.record(Outcome(5, "holdout", seconds=100.0))  # no search job
    kept = MARGIN * 5 * 3 * 4.0
    assert meter.reserved() == pytest.approx(kept)
    clock.now = 300.0 - kept - 5.0
    assert meter.used_up() is None
    clock.now = 300.0 - kept - 3.0  # less than a job
    assert meter.exhausted() is None
    reason = meter.used_up()
    assert reason is not None
    assert "too short for another candidate" in reason.message
    clock.now = 300.0 - kept
    assert meter.exhausted() is not None
    final = BudgetMeter(archive, ShuffledPool(SLOW, 2), budget, final=True)
    assert final.seconds_left() == pytest.approx(kept)


def test_nothing_is_started_that_cannot_end_in_time(folder: Path, clock: FakeTime) -> None:
    """Jobs of 30 ms in 0.5 s: the last one submitted ends before the limit, none is dropped."""
    world = World(folder, "sobol", candidates=200, seconds=0.5, spec=SLOW)
    assert world.run().name == "seconds"
    with Archive.open(folder) as archive:
        submitted = [event.candidate for event in archive.events("submitted")]
        finished = [event.candidate for event in archive.events("finished")]
        assert archive.seconds() <= 0.5
    assert len(finished) == 16  # the next one would end at 0.51 s
    assert set(submitted) == set(finished)


def test_the_final_scoring_stops_at_the_limit_too(folder: Path, clock: FakeTime) -> None:
    World(folder, candidates=6).run()
    held_out = {task: tuple(f"{task}-held-{i}" for i in range(5)) for task in PLAN}
    with Archive.open(folder, read_only=False) as archive:
        chosen = list(archive.candidates("search"))
        over = Budget(6, seconds=archive.seconds())
        reason = evaluate(archive, ShuffledPool(SLOW, 2), chosen, "holdout", held_out, over)
        assert (reason.name, reason.finished) == ("seconds", True)
        assert "before the holdout scoring was complete" in reason.message
        assert not any(archive.responses("holdout", one.number) for one in chosen)
        more = replace(over, seconds=3600.0)
        assert evaluate(archive, ShuffledPool(SLOW, 2), chosen, "holdout", held_out, more).name == "done"
        assert all(len(archive.responses("holdout", one.number)) == 10 for one in chosen)


def test_a_budget_that_ended_is_raised_on_resume(folder: Path, clock: FakeTime) -> None:
    """GPU-hours are used up in the first session; with more of them the trace is that of a search without limit."""
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, seconds=0.02)
    World(folder / "whole", candidates=14, spec=spec).run()
    world = World(folder / "run", candidates=14, spec=spec, limits={"gpu_hours": 0.15 / 3600})
    assert world.run().name == "gpu_hours"
    assert len(trace(world.folder)["observed"]) < 14
    assert world.run().name == "gpu_hours"
    assert replace(world, limits={"gpu_hours": 1.0}).run().name == "candidates"
    assert trace(world.folder) == trace(folder / "whole")


def test_a_deadline_in_the_past_asks_nothing(folder: Path) -> None:
    reason = World(folder, candidates=10, limits={"deadline": 1.7e9}).run()
    assert (reason.name, reason.message) == (
        "deadline",
        "the budget of time until the deadline (2023-11-14T22:13:20Z) is used up",
    )
    assert trace(folder)["observed"] == []


def test_stragglers_of_the_search_do_not_upset_the_final_scoring(folder: Path) -> None:
    """A search job that is under way at the end is recorded as what it is."""
    pool = ShuffledPool(SyntheticSpec(OPTIMA, parents=PARENTS), 3)
    World(folder, candidates=4).run()
    with Archive.open(folder, read_only=False) as archive:
        straggler = replace(archive.candidate(3), number=4)
        with archive.transaction():
            archive.put_asked([straggler], 1)
        pool.submit(Job(straggler, "search", PLAN))
        held_out = {task: tuple(f"{task}-held-{i}" for i in range(5)) for task in PLAN}
        assert evaluate(archive, pool, [archive.candidate(0)], "holdout", held_out).name == "done"
        answers = archive.responses("search", 4)
        assert {response.item for response in answers} <= {item for items in PLAN.values() for item in items}
        assert len(archive.responses("holdout", 0)) == 10


# -- what people write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidates": 0}, "--candidates must be at least 1, got 0"),
        ({"gpu_hours": -1.0}, "--gpu-hours must be above 0, got -1"),
        ({"deadline": "tomorrow"}, "--deadline must be a date and time, as in .* got 'tomorrow'"),
        ({"deadline": "2030-01-01T00:00:00"}, "--deadline must say its offset from UTC"),
    ],
)
def test_limits_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked({"hours": None, **given})


def test_limits_of_the_command_line_replace_those_of_the_file() -> None:
    request = BudgetRequest(candidates=100, cost=10.0, price=2.0)
    assert overridden(request, {"cost": 50.0, "hours": 3.0}) == BudgetRequest(
        candidates=100, hours=3.0, cost=50.0, price=2.0
    )
    with pytest.raises(InputError, match="cost needs price beside it"):
        overridden(BudgetRequest(candidates=100), {"cost": 50.0})


def test_each_resume_changes_what_it_names(folder: Path) -> None:
    with Archive.create(folder, {"seed": 1}) as archive:
        archive.put_event("resumed", None, {"candidates": 20})
        archive.put_event("resumed", None, {"hours": 2.0})
        assert BudgetConfig(10).after(event.payload for event in archive.events("resumed")) == BudgetConfig(20, 2.0)
