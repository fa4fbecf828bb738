"""What is written when, where to, and that no tool's trouble is the search's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from evomerge.archive import Archive
from evomerge.candidate import Candidate
from evomerge.errors import ExtraMissing, InputError
from evomerge.loop import Rules
from evomerge.recipe import passthrough
from evomerge.reports import TrackerTarget, targets_of
from evomerge.reports.trackers import _targets as targets
from evomerge.reports.trackers import _writer as writer
from evomerge.reports.trackers._metric_stream import RunMetrics
from evomerge.reports.trackers._targets import target_of
from evomerge.reports.trackers._values import LoggedStep, Resumed, RunResult
from evomerge.reports.trackers._writer import remembered
from evomerge.runs import open_run
from evomerge.scoring._synthetic import SyntheticSpec
from tests.clock import BACKSTOP
from tests.commands.made import OPTIMA, PARENTS, config
from tests.trackers.worlds import FAILS, FILE, Followed, search
from tests.workers.fakes import ShuffledPool


class Notes:
    """A tool that keeps what it is given, and fails when told to."""

    def __init__(self, fails: int = 0) -> None:
        self.steps: list[LoggedStep] = []
        self.endings: list[RunResult] = []
        self.opened = 0
        self.fails = fails  # the first attempts that do

    def tracker(self) -> Notes:
        return self

    def begin(self, info: Any) -> Resumed:
        self.opened += 1
        if self.opened <= self.fails:
            raise ConnectionError("no server, and the key is hf_abcdefghijklmnopqrstuvwxyz")
        return Resumed(self.steps[-1].number + 1 if self.steps else 0, "here")

    def log(self, steps: Any) -> None:
        self.steps += steps

    def end(self, ending: RunResult) -> None:
        self.endings.append(ending)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    """Stands in for TensorBoard."""
    tool = Notes()
    monkeypatch.setattr(TrackerTarget, "tracker", lambda target: tool.tracker())
    return tool


def test_every_step_is_a_row_of_the_history(tmp_path: Path, notes: Notes) -> None:
    run = Followed(tmp_path / "run").session(10, ["tensorboard"], end=True)
    assert [step.number for step in notes.steps] == list(range(10))
    history, trials = (frame.set_index("candidate") for frame in (run.tables.history(), run.trials()))
    best = history["incumbent"]
    for step in notes.steps:
        assert step.metrics["search/failed"] == (step.number >= FAILS)
        if step.number == FAILS:
            assert not step.scores
            continue
        row = history.loc[step.number]
        assert step.metrics["overall/candidate"] == row["overall"]
        assert step.metrics["overall/best_low"] == row["best_low"]
        assert step.metrics["search/seconds"] == row["seconds"]
        assert step.metrics["best/left"] == trials.loc[best[step.number], "score.left"]
        assert step.genes == {f"weight.{m}": trials.loc[step.number, f"gene.weight.{m}"] for m in ("left", "right")}
    assert "search/candidates_per_hour" in notes.steps[-1].metrics
    [ending] = notes.endings
    assert ending.state == "finished"
    assert ending.text == run.summary()
    assert [row[0] for row in ending.trials[1]] == list(range(10))


def test_settings_are_named_as_in_the_search_file(tmp_path: Path) -> None:
    run = Followed(tmp_path / "run").session(2)
    info = RunMetrics(run, "abc").info()
    assert info.config["merge.parameters.weight"] == "{search: [0.0, 1.0]}"
    assert info.config["scoring.items"] == 40
    assert info.config["controller.name"] == "sobol"
    assert info.config["budget.candidates"] == 64
    assert info.goals["score/left"] == "maximize"
    assert (info.identity, info.name, info.search_file) == ("abc", "run", FILE)


def test_results_that_overtake_others_wait_for_them(tmp_path: Path) -> None:
    """Told on arrival by seven workers: whenever one looks, steps are 0, 1, 2 ... without a gap."""
    folder = tmp_path / "run"
    spec = SyntheticSpec(OPTIMA, parents=PARENTS)
    seen: list[int] = []
    gaps = 0
    with Archive.create(folder, config(40, search_text=FILE).to_json()) as archive:
        archive.put_parents(
            [Candidate(-1 - i, passthrough(f"org/{n}"), (), "parent", n) for i, n in enumerate(PARENTS)]
        )
        source = RunMetrics(open_run(folder), "x")

        class Watched(ShuffledPool):
            def collect(self, timeout: float | None = None) -> list[Any]:
                nonlocal gaps
                told = {event.candidate for event in archive.events("observed")}
                seen.extend(step.number for step in source.steps(len(seen)))
                gaps += any(number not in told for number in range(max(told, default=-1)))
                assert set(seen) <= told
                return super().collect(timeout)

        search(archive, Watched(spec, 7, 1), 40, Rules(asynchronous=True))
    assert gaps > 5  # results did overtake each other
    seen.extend(step.number for step in source.steps(len(seen)))
    assert seen == list(range(40))


def test_at_the_end_nobody_waits_for_what_was_never_told(tmp_path: Path) -> None:
    run = Followed(tmp_path / "run").session(3)
    with Archive.open(run.folder, read_only=False) as archive:
        candidate = archive.candidate(2)
        archive.put_asked([Candidate(n, candidate.recipe, candidate.genotype) for n in (3, 4)], 2)
        archive.copy_answers(2, 4)
        archive.put_observed(4, (0.5, 0.5))  # 3 was under way when the time was up
    source = RunMetrics(open_run(run.folder), "x")
    assert [step.number for step in source.steps(0)] == [0, 1, 2]
    assert [step.number for step in source.steps(3, final=True)] == [4]


def test_a_tool_that_fails_is_reported_once_and_stops_nothing(tmp_path: Path, notes: Notes) -> None:
    notes.fails = 99
    world = Followed(tmp_path / "run")
    run = world.session(6, ["mlflow"], end=True)
    assert run.state == "finished"
    assert run.status()["done"] == 5
    [said] = world.said
    assert said.startswith("logging to mlflow fails; the search continues. ConnectionError: no server")
    assert "hf_" not in said
    events = run.tables.events()
    assert [row["text"] for row in events[events["kind"] == "note"]["payload"]] == [said]
    notes.fails = 0
    world.session(8)
    assert [step.number for step in notes.steps] == list(range(8))  # what it missed is made up for


def test_a_tool_that_comes_back_gets_everything(tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SECONDS_AFTER_TROUBLE", 0.01)
    notes.fails = 2
    world = Followed(tmp_path / "run")
    world.session(20, ["tensorboard"], end=True)
    assert [step.number for step in notes.steps] == list(range(20))
    assert notes.opened == 3
    assert [text.split(" ")[2] for text in world.said] == ["tensorboard", "tensorboard:"]  # trouble, then the place


def test_a_folder_that_is_a_file_stops_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").write_text("")
    world = Followed(tmp_path / "run")
    assert world.session(3, [f"tensorboard:{tmp_path}/file"], end=True).state == "finished"
    assert "NotADirectoryError" in world.said[0] or "FileExistsError" in world.said[0]
    assert (tmp_path / "file").read_text() == ""


def test_a_tool_that_hangs_is_not_waited_for(tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(Notes, "begin", lambda self, info: let_go.wait())
    waits: list[float] = []
    world = Followed(tmp_path / "run", join=lambda thread, seconds: waits.append(seconds))
    try:
        run = world.session(3, ["tensorboard"], end=True)
    finally:
        let_go.set()
    assert waits == [writer.PATIENCE]
    assert run.state == "finished"
    assert "no progress for 60 seconds" in world.said[0]


class Slow(Notes):
    """A tool that writes one portion of steps during each wait at the end of the search."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._called, self._may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def log(self, steps: Any) -> None:
        self._called.release()
        assert self._may_go_on.acquire(timeout=BACKSTOP)
        super().log(steps)

    def end(self, ending: RunResult) -> None:
        super().end(ending)
        self._called.release()

    def join(self, thread: threading.Thread, seconds: float) -> None:
        """Stand in for a wait of `seconds`, in which the tool writes one portion and is called with the next."""
        if not self.waits:
            assert self._called.acquire(timeout=BACKSTOP)  # the first portion is held back since the search began
        self.waits.append(seconds)
        self._may_go_on.release()
        assert self._called.acquire(timeout=BACKSTOP)
        if self.endings:
            thread.join()


def test_a_tool_that_is_slow_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen waits of full length are needed; another one follows as long as the last one brought a step."""
    monkeypatch.setattr(writer, "AT_ONCE", 2)
    tool = Slow()
    monkeypatch.setattr(TrackerTarget, "tracker", lambda target: tool)
    world = Followed(tmp_path / "run", join=tool.join)
    world.session(30, ["tensorboard"], end=True)
    assert len(tool.waits) >= 15
    assert set(tool.waits) == {writer.PATIENCE}
    assert [step.number for step in tool.steps] == list(range(30))
    assert not [text for text in world.said if "fails; the search" in text]


def test_a_resumed_search_remembers_its_tools(tmp_path: Path, notes: Notes) -> None:
    world = Followed(tmp_path / "run")
    world.session(2, ["wandb:lab/merges", "tensorboard"])

    def now() -> tuple[list[str], str]:
        with Archive.open(world.folder) as archive:
            return remembered(archive)

    names, identity = now()
    assert names == ["wandb:lab/merges", "tensorboard"]
    assert len(identity) == 8
    world.session(3)
    assert now() == (names, identity)
    world.session(4, ["mlflow"])
    assert now() == (["mlflow"], identity)
    world.session(5, ["none"])
    assert now() == ([], identity)
    opened = notes.opened
    world.session(6)
    assert notes.opened == opened


def test_targets() -> None:
    assert targets_of(["tensorboard", "mlflow:sqlite:///a.db", "tensorboard"]) == (
        TrackerTarget("tensorboard"),
        TrackerTarget("mlflow", "sqlite:///a.db"),
    )
    assert targets_of(["none"]) == ()
    for text in ("tensorboard", "wandb:a/b", "mlflow:http://host:5000"):
        assert target_of(text).text == text
    with pytest.raises(InputError, match=r"'tensorbord'.*Near: tensorboard"):
        targets_of(["tensorbord"])
    with pytest.raises(InputError, match="holds a password") as caught:
        targets_of(["mlflow:https://me:hunter22@host"])
    assert "hunter22" not in str(caught.value)


def test_a_tool_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissing, match=r"'wandb'.*evomerge\[log\]"):
        targets_of(["wandb"])
