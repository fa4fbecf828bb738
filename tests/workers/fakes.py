"""A stand-in for a cluster: several workers whose results arrive in a random, repeatable order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from evomerge.candidate import Answers, Job, Outcome
from evomerge.workers._pool_protocol import EvaluatorSpec
from evomerge.workers._runner import SafeEvaluator


class ShuffledPool:
    """Each collect advances one running job, chosen at random, by one result."""

    def __init__(self, spec: EvaluatorSpec, workers: int, seed: int = 0) -> None:
        self.workers = workers
        self.submitted: list[Job] = []
        self.closed = False
        self._evaluators = [SafeEvaluator(spec, f"fake/{i}") for i in range(workers)]
        self._running: dict[int, Iterator[Answers | Outcome]] = {}
        self._chance = random.Random(seed)

    def room(self) -> int:
        return self.workers - len(self._running)

    def submit(self, job: Job) -> None:
        assert self.room() > 0, "submitted although there is no room"
        self.submitted.append(job)
        free = next(i for i in range(self.workers) if i not in self._running)
        self._running[free] = self._evaluators[free].evaluate(job)

    def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
        if not self._running:
            return []
        chosen = self._chance.choice(sorted(self._running))
        result = next(self._running[chosen])
        if isinstance(result, Outcome):
            del self._running[chosen]
        return [result]

    def status(self) -> list[dict[str, Any]]:
        return [{"name": one.name, "state": "idle", "busy_seconds": 0.0, "done": 0} for one in self._evaluators]

    def close(self) -> None:
        self.closed = True
