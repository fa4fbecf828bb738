"""A cluster in virtual time: the real loop, archive and controllers; only the workers' clock is made up.

A job's duration is drawn from its candidate's number, so it is the same in every run. `collect` moves the clock to the
next job that ends. Nothing sleeps: an hour of a cluster passes in a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np

from evomerge.candidate import Answers, Job, Outcome
from evomerge.workers._pool_protocol import EvaluatorSpec
from evomerge.workers._runner import SafeEvaluator

Duration = Callable[[Job], float]  # virtual seconds


class VirtualPool:
    """`workers` workers, each busy for a job's duration; results arrive in the order in which the jobs end."""

    def __init__(self, spec: EvaluatorSpec, workers: int, duration: Duration) -> None:
        self.workers, self.now, self.busy = workers, 0.0, 0.0
        self._edge, self._duration = SafeEvaluator(spec, "virtual/0"), duration
        self._running: list[tuple[float, int, Job]] = []  # a heap by end
        self._submitted = 0
        self.idle_until_last = 0.0  # worker-seconds without a job, while there was one to come
        self._idle_since_last = 0.0

    def room(self) -> int:
        return self.workers - len(self._running)

    def submit(self, job: Job) -> None:
        seconds = self._duration(job)
        self.busy += seconds
        self._submitted += 1
        heapq.heappush(self._running, (self.now + seconds, self._submitted, job))
        self.idle_until_last = self._idle_since_last

    def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
        if not self._running:
            return []
        end, _, job = heapq.heappop(self._running)
        self._idle_since_last += (self.workers - 1 - len(self._running)) * (end - self.now)
        self.now = end
        return list(self._edge.evaluate(job))

    def status(self) -> list[dict[str, Any]]:
        return [{"name": "virtual", "state": "busy", "busy_seconds": 0.0, "done": 0}] * self.workers

    def close(self) -> None:
        self._running.clear()

    def busy_share(self) -> float:
        """Return the workers' busy share from the first job to the start of the last one.

        What comes after is the end of the budget, where nobody has anything to do in any mode.
        """
        return self.busy / (self.busy + self.idle_until_last)


def four_fold(seed: int) -> Duration:
    """Return durations that vary four-fold: uniform in the logarithm between 1 and 4 virtual seconds."""

    def seconds(job: Job) -> float:
        generator = np.random.default_rng([seed, job.candidate.number + 1000])
        return float(4.0 ** generator.random())

    return seconds
