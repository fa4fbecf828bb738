"""status --watch: lines where no terminal reads, one repainted view where one does, and an end when the run ends."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from evomerge.archive import Archive
from evomerge.cli import main
from evomerge.cli._watch import seconds_left, status_line, watch
from evomerge.runs import open_run
from tests.clock import BACKSTOP
from tests.commands.made import make_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=8))


def test_a_finished_run_is_one_line(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", folder, "--watch"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    status = open_run(folder).status()
    assert line.startswith(f"finished  8/8 candidates  best left {status['best']['score']['left']:.3f}±")
    assert f"front {status['front_size']}" in line
    assert " left " not in line.rpartition("busy")[2], "a finished run has no time left"


def test_a_run_is_followed_until_its_process_lets_go_and_nothing_is_said_twice(folder: str, tmp_path: Path) -> None:
    stream, looks, archive = io.StringIO(), [], Archive.open(folder, read_only=False)

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            archive.close()

    try:
        assert watch(folder, stream, sleep=sleep) == "finished"
    finally:
        archive.close()
    assert looks == [15.0] * 3
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["running", "finished"]


def test_a_terminal_is_repainted_and_names_are_no_markup(folder: str) -> None:
    stream, archive, looks = Terminal(), Archive.open(folder, read_only=False), []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            archive.close()

    try:
        assert watch(folder, stream, sleep=sleep) == "finished"
    finally:
        archive.close()
    shown = stream.getvalue()
    assert looks == [2.0, 2.0]
    assert "\x1b[2K" in shown or "\x1b[1A" in shown  # lines are wiped, and the cursor goes up again
    assert shown.count("hypervolume") >= 3
    assert shown.rstrip().splitlines()[-1].strip() != ""


def test_failures_are_told_once(tmp_path: Path) -> None:
    made = make_run(tmp_path / "failing", candidates=6, troubles={2: "candidate"})
    stream = io.StringIO()
    watch(str(made), stream)
    assert sum(line.startswith("failed  candidate 2") for line in stream.getvalue().splitlines()) == 1
    assert "1 failed" in stream.getvalue().splitlines()[0]


def test_the_time_left_is_that_of_the_tighter_limit() -> None:
    status = {
        "state": "running", "budget": {"candidates": 30, "hours": 1.0}, "candidates_per_hour": 10.0, "done": 9,
        "failed": 1, "seconds": 600.0,
    }  # fmt: skip
    assert seconds_left(status) == 3000.0  # of the hour; 20 candidates at 10 per hour would take 7200
    assert seconds_left({**status, "budget": {"candidates": 12}}) == 720.0
    assert seconds_left({**status, "budget": {}}) is None
    assert seconds_left({**status, "state": "finished"}) is None


def test_a_status_without_a_best_is_a_line_too() -> None:
    status = {
        "state": "stopped", "budget": {}, "candidates_per_hour": None, "done": 0, "failed": 0, "seconds": 3.0,
        "best": None, "front_size": 0, "busy_share": None,
    }  # fmt: skip
    assert status_line(status) == "stopped  0 candidates  3s"


def test_a_watcher_in_a_process_of_its_own_ends_with_the_run(folder: str) -> None:
    root = str(Path(__file__).parents[2])
    with Archive.open(folder, read_only=False):
        code = f"import sys; sys.path.insert(0, {root!r}); from evomerge.cli._watch import watch; "
        code += f"watch({folder!r}, seconds=0.05)"
        watcher = Popen([sys.executable, "-c", code], stdout=PIPE, text=True)
        assert watcher.stdout is not None
        assert watcher.stdout.readline().startswith("running")
        time.sleep(0.2)
        assert watcher.poll() is None
    rest, _ = watcher.communicate(timeout=BACKSTOP)
    assert watcher.returncode == 0
    assert rest.startswith("finished")
