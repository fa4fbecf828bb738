"""The pool of one: jobs run in this process, while the loop waits for them."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from evomerge.candidate import Answers, Job, Outcome
from evomerge.pool.edge import Edge
from evomerge.pool.protocol import EvaluatorSpec

GATHER_SECONDS = 0.02  # results within this time arrive together, so that they share one wait for the disk
MOST_QUEUED = 256


class LocalPool:
    """Evaluates one job after another inside `collect`, in the order of submission.

    It takes one job at a time, or, where jobs are faster than the disk, as many as fit in `GATHER_SECONDS`.
    """

    def __init__(self, spec: EvaluatorSpec) -> None:
        self._edge = Edge(spec, f"{socket.gethostname()}/0")
        self._jobs: deque[Job] = deque()
        self._running: Iterator[Answers | Outcome] | None = None
        self._tasks_left = 0  # of the running job
        self._busy_seconds = 0.0
        self._done = 0

    def room(self) -> int:
        """Return how many more jobs can be submitted."""
        mean = self._busy_seconds / self._done if self._done else GATHER_SECONDS
        most = min(MOST_QUEUED, max(1, int(GATHER_SECONDS / max(mean, 1e-9))))
        return max(0, most - len(self._jobs) - (self._running is not None))

    def submit(self, job: Job) -> None:
        """Take one job; it runs in a later `collect`."""
        self._jobs.append(job)

    def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
        """Run jobs until one result is there, and gather what follows within `GATHER_SECONDS`.

        What has begun goes on to its next answers whatever the timeout says: nothing can stop it from inside this
        process.
        """
        started = time.monotonic()
        arrived: list[Answers | Outcome] = []
        while self._begin():
            result = self._next()
            arrived.append(result)
            if time.monotonic() - started > GATHER_SECONDS and not self._only_outcome_left(result):
                break
        self._busy_seconds += time.monotonic() - started
        return arrived

    def status(self) -> list[dict[str, Any]]:
        """Return one row."""
        state = "busy" if self._running is not None else "idle"
        row = {"name": self._edge.name, "state": state, "busy_seconds": self._busy_seconds, "done": self._done}
        return [row]

    def close(self) -> None:
        """Drop what is queued."""
        self._jobs.clear()
        self._running = None

    def _begin(self) -> bool:
        """Make sure that a job is running; False where there is none."""
        if self._running is None and self._jobs:
            job = self._jobs.popleft()
            self._tasks_left = len(job.items)
            self._running = self._edge.evaluate(job)
        return self._running is not None

    def _next(self) -> Answers | Outcome:
        assert self._running is not None
        result = next(self._running)
        if isinstance(result, Outcome):
            self._running = None
            self._done += 1
        elif not result.left:
            self._tasks_left -= 1
        return result

    def _only_outcome_left(self, result: Answers | Outcome) -> bool:
        """The outcome costs nothing once every task is answered; with them it is recorded in one go."""
        return isinstance(result, Answers) and self._tasks_left <= 0
