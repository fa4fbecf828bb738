"""Where the time went, worked out from the archive's events alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.archive import Archive
from evomerge.candidate import Answers, Candidate, Failure, Outcome, Response
from evomerge.loop._dispatcher import Dispatcher
from evomerge.runs._utilisation import usage_summary, utilisation_frame, worker_times
from evomerge.scoring._synthetic import SyntheticSpec, synthetic_recipe
from evomerge.workers import PoolEvent, Retry
from tests.loop.world import OPTIMA
from tests.workers.fakes import ShuffledPool


class Clock:
    """Active time that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.seconds)


def joined(worker: str, gpus: float) -> PoolEvent:
    return PoolEvent("joined", worker, {"node": worker[0], "gpus": gpus, "pid": 1})


def test_presence_work_waiting_and_loss_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions. a/0 is there for 100 + 20 s and works 60 + 4; b/1 dies after 50 s; it worked 25, 10 in vain."""
    clock = Clock(monkeypatch)
    folder = tmp_path / "run"
    with Archive.create(folder, {"seed": 7}) as archive:
        dispatcher = Dispatcher(archive, ShuffledPool(SyntheticSpec(OPTIMA), 1), "search", {"add": ("x",)})
        people = [Candidate(n, synthetic_recipe((n / 9, 0.5)), (n / 9, 0.5)) for n in range(3)]
        archive.put_asked(people, 3)
        clock.seconds = 10.0
        dispatcher.record([joined("a/0", 1.0), joined("b/1", 0.5)])
        stages = {"merge": 6.0, "prefill.add": 18.0, "decode.add": 7.0, "score.add": 5.0, "score.sort": 10.0}
        stages |= {"load": 14.0, "layers.run": 999.0}
        clock.seconds = 60.0
        # 10 s of 25 were lost: what it had answered before is kept
        dispatcher.record(
            [Retry(1, "search", "b/1", "died", 10.0, 25.0), PoolEvent("lost", "b/1", {"message": "died"})]
        )
        dispatcher.record(
            [
                Answers(0, "search", "add", (Response("add", "x", "acc", 1.0),)),
                Outcome(0, "search", None, "a/0", 46.0, stages),
            ]
        )
        clock.seconds = 110.0  # killed here: nothing says that a/0 has left
        archive.put_event("note", None, {"text": "the last sign of life"})
    clock.seconds = 5000.0
    with Archive.open(folder, read_only=False) as archive:
        archive.put_event("resumed")
        dispatcher = Dispatcher(archive, ShuffledPool(SyntheticSpec(OPTIMA), 1), "search", {"add": ("x",)})
        dispatcher.record([joined("a/0", 1.0)])
        clock.seconds = 5020.0
        dispatcher.record([Outcome(1, "search", Failure("candidate", "bad"), "a/0", 4.0, {"merge": 4.0})])
        archive.copy_answers(0, 2)
        archive.put_event("ended")
    with Archive.open(folder) as archive:
        table = utilisation_frame(archive).set_index("worker")
        summary = usage_summary(archive, price=36.0)
    assert list(table.index) == ["a/0", "b/1"]  # copying from a twin is nobody's work
    first, second = table.loc["a/0"], table.loc["b/1"]
    assert (first["done"], first["failed"], first["node"], first["gpus"]) == (1, 1, "a", 1.0)
    assert first["seconds.present"] == pytest.approx(120.0)
    assert first["seconds.busy"] == pytest.approx(46.0 + 14.0 + 4.0)
    assert first["seconds.wait"] == pytest.approx(56.0)
    assert first["busy"] == pytest.approx(64.0 / 120.0)
    assert (first["seconds.load"], first["seconds.merge"], first["seconds.score"]) == (14.0, 10.0, 15.0)
    assert (first["seconds.prefill"], first["seconds.decode"]) == (18.0, 7.0)
    assert first["seconds.other"] == pytest.approx(0.0)
    assert second["seconds.present"] == pytest.approx(50.0)
    assert (second["seconds.busy"], second["seconds.lost"]) == (25.0, 10.0)
    assert summary["gpu_hours"] == pytest.approx((120.0 + 0.5 * 50.0) / 3600.0)
    assert summary["cost"] == pytest.approx(36.0 * 145.0 / 3600.0)
    assert summary["lost_seconds"] == 10.0
    assert summary["busy_share"] == pytest.approx(89.0 / 170.0)
    assert summary["stages"] == pytest.approx(
        {"merge": 10.0, "prefill": 18.0, "decode": 7.0, "score": 15.0, "load": 14.0, "wait": 81.0}
    )
    assert summary["candidates_per_hour"] == pytest.approx(3 / (130.0 / 3600.0))


def test_a_run_in_one_process_counts_its_whole_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with Archive.create(tmp_path / "run", {"seed": 7}) as archive:
        dispatcher = Dispatcher(archive, ShuffledPool(SyntheticSpec(OPTIMA), 1), "search", {"add": ("x",)})
        archive.put_asked([Candidate(0, synthetic_recipe((0.5, 0.5)), (0.5, 0.5))], 1)
        clock.seconds = 40.0
        dispatcher.record([Outcome(0, "search", None, "here/0", 30.0, {"score.add": 30.0})])
    with Archive.open(tmp_path / "run") as archive:
        (time,) = worker_times(archive)
        summary = usage_summary(archive)
    assert (time.present, time.busy, summary["cost"]) == (40.0, 30.0, None)
    assert summary["busy_share"] == pytest.approx(0.75)
