"""Random kills at moments of a run's own progress, so that the same seed does the same on a slow machine."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from evomerge.archive import Archive
from evomerge.errors import RunError

ROOT = Path(__file__).parent.parent.parent


class Nodes:
    """A cluster in another process, see `tests.chaos.nodes`; a context manager."""

    def __init__(self, count: int, seed: int, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "RAY_TMPDIR": str(folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # Ray's 15 starves workers on a machine that does other things too
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }
        (folder / "ray").mkdir(exist_ok=True)
        self._process = self._started(count, seed)
        if ":" not in self.address:  # a node that does not start in time on a busy machine is nothing that we test
            self._process = self._started(count, seed)

    def _started(self, count: int, seed: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nodes", str(count), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=self.environment,
        )
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        return process

    def tell(self, verb: str) -> None:
        """Have something done; it is not waited for, since a node takes seconds to start."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb}\n")
        self._process.stdin.flush()

    def __enter__(self) -> Nodes:
        assert ":" in self.address, "the cluster did not start"
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass
class Mayhem:
    """Runs a driver to its end while things are killed around it."""

    folder: Path
    nodes: Nodes
    command: Callable[[bool], list[str]]  # whether it resumes -> the driver's command
    seed: int
    candidates: int
    done: list[tuple[int, str]] = field(default_factory=list)  # candidates told, what was done then
    output: str = ""

    def run(self, actions: list[str], most_seconds: float) -> None:
        """Do every action once, in random order, at random numbers of candidates told; then let the run end."""
        chance = random.Random(self.seed)
        chance.shuffle(actions)
        moments = sorted(chance.sample(range(1, self.candidates - 2), len(actions)))
        plan = list(zip(moments, actions, strict=True))
        driver, until = self._start(), time.monotonic() + most_seconds
        while True:
            assert time.monotonic() < until, f"not done; {self.done}; {self._tail(driver)}"
            status = driver.poll()
            if status is not None:
                self.output += self._tail(driver)
                if status == 0:
                    break
                driver = self._start()  # it was killed, or its Ray was
            if plan and self.told() >= plan[0][0]:
                action = plan.pop(0)[1]
                self.done.append((self.told(), action))
                self._do(action, driver, chance)
            time.sleep(0.05)
        assert not plan, f"the run ended before {plan}"

    def _do(self, action: str, driver: subprocess.Popen[str], chance: random.Random) -> None:
        if action == "driver":
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        elif action == "worker":
            alive = [pid for pid in self._workers() if _is_worker(pid)]
            if alive:
                os.kill(chance.choice(alive), signal.SIGKILL)
        elif action == "raylet":
            self.nodes.tell("kill")
            self.nodes.tell("add")  # so that there is always somebody to work
        else:
            self.nodes.tell("add")

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(Archive.exists(self.folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.nodes.environment,
        )

    @staticmethod
    def _tail(driver: subprocess.Popen[str]) -> str:
        driver.kill()
        out, _ = driver.communicate()
        return out[-4000:]

    def told(self) -> int:
        """Return how many candidates the run has told its controller about."""
        try:
            with Archive.open(self.folder) as archive:
                return sum(1 for _ in archive.events("observed"))
        except RunError:
            return 0

    def _workers(self) -> list[int]:
        with Archive.open(self.folder) as archive:
            return [e.payload["pid"] for e in archive.events("worker") if e.payload["what"] == "joined"]


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def answers_per_question(folder: Path) -> Counter[tuple[int, str, str]]:
    """Return (candidate, split, task) -> how often it was recorded as answered."""
    with Archive.open(folder) as archive:
        return Counter((e.candidate or 0, e.payload["split"], e.payload["task"]) for e in archive.events("answered"))


def lost_work(folder: Path) -> str:
    """Return the figures of what was done in vain: jobs begun again, and seconds of work."""
    with Archive.open(folder) as archive:
        kinds = Counter(event.kind for event in archive.events())
        retried = sum(float(event.payload["seconds"]) for event in archive.events("retry"))
        useful = sum(outcome.seconds for outcome in archive.outcomes())
        dropped, open_since = 0.0, dict[int, float]()
        last = 0.0
        for event in archive.events():
            if event.kind in ("submitted", "partial", "answered") and event.candidate is not None:
                open_since[event.candidate] = event.seconds
            elif event.kind == "finished" and event.candidate is not None:
                open_since.pop(event.candidate, None)
            elif event.kind == "resumed" or (event.kind == "worker" and event.seconds < last):
                dropped += sum(last - since for since in open_since.values())
                open_since.clear()
            last = event.seconds
    again = kinds["submitted"] - kinds["finished"] + kinds["retry"]
    return f"{again} jobs begun again, {retried + dropped:.1f} s of work lost beside {useful:.1f} s that counted"
