"""SIGKILL at any moment, then resume in a fresh process: the trace is that of the uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive import Archive
from evomerge.candidate import Job
from evomerge.loop import Racing, Rules
from evomerge.scoring._synthetic import SyntheticSpec
from tests.clock import BACKSTOP
from tests.loop.world import OPTIMA, PARENTS, PLAN, World, kill_at, trace
from tests.workers.fakes import ShuffledPool


def run_in_fresh_process(world: World, moment: int = 0, seconds: float | None = None) -> int:
    """Run or resume the search in a child; end it at a moment of the archive (SIGKILL) or after some seconds (SIGALRM).

    The child's own timer ends it: a parent that sleeps could wake too late on a busy machine.

    Forked, because importing NumPy and cma takes longer than the search; the child shares no object with the runs of
    other children. Returns the exit code, negative for a signal.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if seconds is not None:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process at once
                signal.setitimer(signal.ITIMER_REAL, seconds)
            world.run(kill_at(moment) if moment else None)
            status = 0
        finally:
            os._exit(status)  # nothing of pytest may run in the child
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def small(folder: Path, controller: str) -> World:
    """Four candidates in two generations (the budget ends inside the second), two parents, two workers.

    The fake pool takes its results one by one, so the number of commits does not depend on how fast the machine is.
    """
    options = {"population" if controller == "cma-es" else "batch_size": 3}
    return World(folder, controller, candidates=4, options=options, pool=lambda spec: ShuffledPool(spec, 2))


@pytest.mark.parametrize("controller", ["cma-es", "sobol"])
def test_killed_at_every_event_boundary(folder: Path, controller: str) -> None:
    moments: list[str] = []
    small(folder / "whole", controller).run(moments.append)
    whole = trace(folder / "whole")
    assert len(whole["observed"]) == 4
    assert {"asked", "submitted", "answered", "finished", "observed", "stopped", "commit"} <= set(moments)
    for moment in range(1, len(moments) + 1):
        world = small(folder / f"killed-{moment}", controller)
        assert run_in_fresh_process(world, moment) == -signal.SIGKILL
        world.run()
        assert trace(world.folder) == whole, f"killed at moment {moment}: {moments[moment - 1]}"


def test_killed_between_the_portions_of_a_task(folder: Path) -> None:
    """Tasks of 12 items in portions of 5: what is recorded of a task is never asked again, in whatever state it is."""
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, portion=5)
    moments: list[str] = []
    World(folder / "whole", "sobol", candidates=2, spec=spec, pool=lambda spec: ShuffledPool(spec, 2)).run(
        moments.append
    )
    whole = trace(folder / "whole")
    assert moments.count("partial") == 2 * moments.count("answered") == 16  # two candidates and two parents
    for moment in range(1, len(moments) + 1, 2):  # each event has its commit beside it
        asked: list[Job] = []
        world = World(folder / f"killed-{moment}", "sobol", candidates=2, spec=spec, pool=lambda s: ShuffledPool(s, 2))
        assert run_in_fresh_process(world, moment) == -signal.SIGKILL
        world.pool = lambda s, asked=asked: Noting(s, asked)  # type: ignore[misc]
        with world.archive() as archive:
            before = {c.number: archive.answered("search", c.number) for c in archive.candidates()}
        world.run()
        assert trace(world.folder) == whole, f"killed at moment {moment}: {moments[moment - 1]}"
        for job in asked:
            for task, items in job.items.items():
                known = before.get(job.candidate.number, {}).get(task, set())
                assert known.isdisjoint(items)
                assert job.together.get(task, items) == PLAN[task]
                assert len(known) in (0, 5, 10)


def test_killed_between_the_portions_of_a_race(folder: Path) -> None:
    """Each round's questions are batches of their own: those of earlier rounds are not asked together with them."""
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, portion=2)

    def world(name: str) -> World:
        rules = Rules(racing=Racing(min_items=4, alpha=0.5))
        return World(folder / name, "sobol", candidates=8, spec=spec, rules=rules, pool=lambda s: ShuffledPool(s, 2))

    moments: list[str] = []
    world("whole").run(moments.append)
    whole = trace(folder / "whole")
    with Archive.open(folder / "whole") as archive:
        assert 0 < sum(event.payload["promoted"] for event in archive.events("raced")) < archive.count()
    parts = [moment for moment, kind in enumerate(moments, start=1) if kind == "partial"]
    seen = set()
    for moment in parts[::3]:
        assert run_in_fresh_process(world(f"killed-{moment}"), moment + 1) == -signal.SIGKILL
        again, asked = world(f"killed-{moment}"), list[Job]()
        again.pool = lambda s, asked=asked: Noting(s, asked)  # type: ignore[misc]
        again.run()
        assert trace(again.folder) == whole, f"killed after moment {moment}"
        for job in asked:
            for task, items in job.together.items():
                assert set(job.items[task]) < set(items)
                seen.add(len(items))
    assert seen >= {4, 12}  # candidates' first round, and parents' whole task


class Noting(ShuffledPool):
    """Notes the jobs that it is given."""

    def __init__(self, spec: SyntheticSpec, asked: list[Job]) -> None:
        super().__init__(spec, 2)
        self.submitted = asked


def test_killed_again_and_again_until_it_is_done(folder: Path) -> None:
    """Each process gets a few moments further than the one before; no progress may be lost between them."""
    small(folder / "whole", "cma-es").run()
    world = small(folder / "killed", "cma-es")
    kills = 0
    while run_in_fresh_process(world, moment=9) == -signal.SIGKILL:
        kills += 1
        assert kills < 60, "the search does not get on"
    assert kills >= 5
    assert trace(world.folder) == trace(folder / "whole")


def test_killed_at_twenty_random_moments_of_time(folder: Path) -> None:
    """200 jobs of 20 ms outlast twenty sessions of at most 150 ms, so every session is killed at its work."""
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, seconds=0.02)
    World(folder / "whole", "cma-es", candidates=200).run()
    world = World(folder / "killed", "cma-es", candidates=200, spec=spec)
    chance = random.Random(5)
    for _ in range(20):
        assert run_in_fresh_process(world, seconds=chance.uniform(0.02, 0.15)) == -signal.SIGALRM
    assert run_in_fresh_process(replace(world, spec=replace(spec, seconds=0.0))) == 0
    assert trace(world.folder) == trace(folder / "whole")
    with Archive.open(world.folder) as archive:
        assert sum(event.payload["count"] for event in archive.events("asked")) == 200  # nothing was proposed twice


def test_ctrl_c_saves_and_a_resume_goes_on(folder: Path) -> None:
    """Candidate 12 hangs in the first session, so that the search is at its work whenever the signal arrives."""
    World(folder / "whole", "cma-es", candidates=30).run()
    command = [sys.executable, "-m", "tests.loop.world", str(folder / "cut"), "candidates=30", "hangs=12"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    while not (folder / "died-12").exists():  # made when it begins to hang
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=BACKSTOP)
    assert (out, process.returncode) == ("interrupted\n", 130)
    with Archive.open(folder / "cut") as archive:
        assert [event.kind for event in archive.events()][-1] == "interrupted"
    again = subprocess.run(command, capture_output=True, text=True, timeout=BACKSTOP)
    assert again.stdout == "started\ncandidates\n", again.stderr
    assert trace(folder / "cut") == trace(folder / "whole")
