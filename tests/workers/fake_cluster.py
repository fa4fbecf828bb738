"""A cluster in virtual time: real scheduler, real evaluators; only machines and clock are made up."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.candidate import Answers, Job, Outcome
from evomerge.workers._cluster import (
    JobStarted,
    Metric,
    ModelsLoaded,
    Node,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
    versions_here,
)
from evomerge.workers._pool_protocol import EvaluatorSpec
from evomerge.workers._runner import SafeEvaluator

START, LOAD, TASK = 1.0, 4.0, 1.0  # seconds of a worker's start, of loading, and of one task


@dataclass
class FakeWorker:
    number: int
    node: Node
    evaluator: SafeEvaluator
    generation: int = 0  # news of earlier ones are void
    jobs: list[Job] = field(default_factory=list)


class FakeCluster:
    """Machines that do as the test says. Time passes in `wait` alone.

    `trouble(worker, job)` may return 'die', 'memory' (the machine ends it for want of memory), 'hang', or how many
    times slower than usual the job goes there.
    """

    def __init__(self, spec: EvaluatorSpec, nodes: Sequence[Node]) -> None:
        self.machines = {node.id: node for node in nodes}
        self.workers: dict[int, FakeWorker] = {}
        self.started: list[tuple[float, str, str]] = []  # time, node, name
        self.sent: list[tuple[float, str, str, int]] = []  # time, node, worker, candidate
        self.trouble: Callable[[FakeWorker, Job], str | float | None] = lambda worker, job: None
        self.versions: dict[str, Mapping[str, str]] = {}  # node -> other versions
        self.published: Mapping[str, Metric] = {}
        self.asked_for: list[int] = []
        self.closed = False
        self._spec = spec
        self._now = 0.0
        self._order = itertools.count()
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._news: list[tuple[int, WorkerEvent]] = []

    # -- what the test does ----------------------------------------------------------------------------------------

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._plan, (seconds, next(self._order), action))

    def remove(self, node: str) -> None:
        del self.machines[node]
        for worker in [w for w in self.workers.values() if w.node.id == node]:
            self.die(worker, WorkerDied("The actor died because its node has died.", "node"))

    def kill_a_worker_of(self, node: str) -> None:
        for worker in [w for w in self.workers.values() if w.node.id == node][:1]:
            self.die(worker, WorkerDied("killed", "process", "last words"))

    # -- Cluster -----------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._now

    def nodes(self) -> list[Node]:
        return list(self.machines.values())

    def start(self, node: Node, number: int, name: str) -> None:
        worker = self.workers[number] = FakeWorker(number, node, SafeEvaluator(self._spec, name))
        self.started.append((self._now, node.id, name))
        versions = self.versions.get(node.id) or versions_here()
        gpus = (str(number % int(node.gpus)),) if node.gpus else ()
        self._later(worker, START, WorkerStarted(node.name, 1000 + number, gpus, versions))
        self._later(worker, START + LOAD, ModelsLoaded(LOAD))

    def send(self, number: int, job: Job) -> None:
        worker = self.workers[number]
        assert not worker.jobs, "a job for a worker that has one"
        worker.jobs.append(job)
        self.sent.append((self._now, worker.node.id, worker.evaluator.name, job.candidate.number))
        self._later(worker, 0.0, JobStarted())
        trouble = self.trouble(worker, job)
        if trouble == "hang":
            return
        if trouble == "memory":
            low = WorkerDied("The actor died: the node was running low on memory", "memory")
            self.at(self._now + TASK / 2, lambda: self.die(worker, low))
            return
        if trouble == "die":
            self.at(self._now + TASK / 2, lambda: self.die(worker, WorkerDied("exit code 17", "process", "last words")))
            return
        seconds = 0.0
        for result in worker.evaluator.evaluate(job):
            if isinstance(result, Answers):
                share = len(result.items) / len(job.together.get(result.task, job.items[result.task]))
                seconds += TASK * share * (trouble if isinstance(trouble, float) else 1.0)
            self._later(worker, seconds, result)

    def wait(self, timeout: float) -> list[tuple[int, WorkerEvent]]:
        until = self._now + timeout
        while not self._news and self._plan and self._plan[0][0] <= until:
            when, _, action = heapq.heappop(self._plan)
            self._now = max(self._now, when)
            action()
        if not self._news:
            self._now = until
        news, self._news = self._news, []
        return news

    def kill(self, number: int) -> None:
        worker = self.workers.pop(number, None)
        if worker is not None:
            worker.generation += 1

    def request_workers(self, workers: int) -> None:
        self.asked_for.append(workers)

    def publish_metrics(self, metrics: Mapping[str, Metric]) -> None:
        self.published = metrics

    def close(self) -> None:
        self.closed = True

    def _later(self, worker: FakeWorker, seconds: float, news: WorkerEvent) -> None:
        generation = worker.generation

        def say() -> None:
            if worker.generation == generation:
                if isinstance(news, Outcome):
                    worker.jobs.clear()
                self._news.append((worker.number, news))

        self.at(self._now + seconds, say)

    def die(self, worker: FakeWorker, died: WorkerDied) -> None:
        if self.workers.pop(worker.number, None) is not None:
            worker.generation += 1
            self._news.append((worker.number, died))


def machine(name: str, cpus: float = 1.0, gpus: float = 0.0, head: bool = False) -> Node:
    return Node(f"id-{name}", name, cpus, gpus, head)
