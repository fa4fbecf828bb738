"""A cluster in virtual time: nodes come and go, workers load, answer, straggle, crash and hang.

It stands behind `pool.cluster.Cluster`: scheduler, dispatcher, archive, controller and loop above it are the real ones.
Time passes in two ways: to the next event while the driver waits, and, while it does not wait, by the processor time
that it really uses. A driver that is too slow for its cluster therefore shows as idle workers.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.scale.world import Shares, World
from evomerge.candidate import Answers, Failure, Job, Outcome, Response
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

Said = list[tuple[int, WorkerEvent]]
_TROUBLES = ("crash", "memory", "hang")


class Killed(BaseException):
    """The driver was killed; nothing catches this but the benchmark, which then starts another one."""


@dataclass
class _Machine:
    node: Node
    speed: float  # factor on job times
    since: float
    workers: set[int] = field(default_factory=set)


@dataclass
class _Worker:
    machine: _Machine
    since: float  # when its state began; of a busy one, when its task did
    state: str = "loading"  # loading, idle, busy
    job: Job | None = None


class SimulatedCluster:
    """The world from one driver's start to its end."""

    def __init__(self, world: World, started: float = 0.0, kill_at: float = math.inf) -> None:
        self.world, self.shares = world, Shares()
        self.driver_seconds = 0.0  # of processor time
        self.messages = self.commits = 0
        self.troubles = {"reclaimed nodes": 0, **dict.fromkeys(_TROUBLES, 0)}
        self._chance = np.random.default_rng([world.seed, int(started)])
        self._now, self._kill_at, self._mark = started, kill_at, time.process_time()
        self._events: list[tuple[float, int, str, Any]] = []
        self._planned = self._born = 0
        self._machines: dict[str, _Machine] = {}
        self._workers: dict[int, _Worker] = {}
        self._versions = versions_here()
        for _ in range(math.ceil(world.workers / world.per_node)):
            self._on_boot(started, None)
        self._mark = time.process_time()

    # -- what the scheduler asks; what this takes is not the driver's ------------------------------------------------

    def now(self) -> float:
        return self._now + time.process_time() - self._mark

    def nodes(self) -> Sequence[Node]:
        return [machine.node for machine in self._machines.values()]

    def start(self, node: Node, number: int, name: str) -> None:
        now = self._stop_clock()
        machine = self._machines.get(node.id)
        if machine is None:
            self._at(now, "gone", number)
        else:
            machine.workers.add(number)
            self._workers[number] = _Worker(machine, now)
            self._at(now + self.world.start, "started", number)
        self._start_clock(now)

    def send(self, number: int, job: Job) -> None:
        now = self._stop_clock()
        worker = self._workers.get(number)
        if worker is not None:
            self._turn(worker, "busy", now)
            worker.job = job
            self._plan(number, worker, job, now)
        self._start_clock(now)

    def wait(self, timeout: float) -> Said:
        now = self._stop_clock()
        until, said = now + timeout, Said()
        while not said:
            moment = self._events[0][0] if self._events else math.inf
            if moment > until:
                now = until
                break
            now = max(now, moment)
            while self._events and self._events[0][0] <= now:
                when, _, kind, what = heapq.heappop(self._events)
                said += getattr(self, f"_on_{kind}")(when, what)
        if now >= self._kill_at:
            self._now = now
            raise Killed
        self.messages += len(said)
        self._start_clock(now + self.world.message * len(said))
        return said

    def kill(self, number: int) -> None:
        now = self._stop_clock()
        self._end(number, now)
        self._start_clock(now)

    def request_workers(self, workers: int) -> None:
        pass

    def publish_metrics(self, metrics: Mapping[str, Metric]) -> None:
        pass

    def close(self) -> None:
        now = self._stop_clock()
        for number in list(self._workers):
            self._end(number, now)
        for machine in self._machines.values():
            self.shares.paid += self.world.per_node * (now - machine.since)
        self._machines.clear()
        self._start_clock(now)

    def account(self) -> Shares:
        """Return where the worker seconds went until now, what is under way included."""
        now, shares = self._now, replace(self.shares)
        shares.paid += sum(self.world.per_node * (now - machine.since) for machine in self._machines.values())
        for worker in self._workers.values():
            state = "useful" if worker.state == "busy" else worker.state
            setattr(shares, state, getattr(shares, state) + now - worker.since)
        return shares

    def committed(self) -> None:
        """The driver has waited for its disk once."""
        self.commits += 1
        self._now += self.world.commit

    def _stop_clock(self) -> float:
        """Return the time; until `_start_clock`, processor time is the simulation's and not the driver's."""
        used = time.process_time() - self._mark
        self.driver_seconds += used
        self._now += used
        return self._now

    def _start_clock(self, now: float) -> None:
        self._now, self._mark = now, time.process_time()

    # -- what happens: each takes its moment, and returns what is said ---------------------------------------------

    def _at(self, moment: float, kind: str, what: Any) -> None:
        self._planned += 1
        heapq.heappush(self._events, (moment, self._planned, kind, what))

    def _on_boot(self, when: float, _: None) -> Said:
        world, name = self.world, f"node{self._born}"
        self._born += 1
        node = Node(name, name, cpus=4.0 * world.per_node, gpus=float(world.per_node))
        self._machines[name] = _Machine(node, self._lognormal(1.0, world.node_spread), when)
        life = float(self._chance.exponential(world.node_life))
        self._at(when + max(0.0, life - world.notice), "notice", name)
        self._at(when + life, "reclaim", name)
        return []

    def _on_notice(self, when: float, name: str) -> Said:
        machine = self._machines[name]
        machine.node = replace(machine.node, leaving=True)
        return []

    def _on_reclaim(self, when: float, name: str) -> Said:
        machine = self._machines.pop(name)
        self.shares.paid += self.world.per_node * (when - machine.since)
        self.troubles["reclaimed nodes"] += 1
        self._at(when + self.world.node_return, "boot", None)
        numbers = list(machine.workers)
        for number in numbers:
            self._end(number, when)
        return [(number, WorkerDied("the provider took the node back", "node")) for number in numbers]

    def _on_gone(self, when: float, number: int) -> Said:
        return [(number, WorkerDied("the provider took the node back", "node"))]

    def _on_started(self, when: float, number: int) -> Said:
        worker = self._workers.get(number)
        if worker is None:
            return []
        seconds = self._lognormal(self.world.load, self.world.load_spread)
        self._at(when + seconds, "loaded", (number, seconds))
        gpu = str(sorted(worker.machine.workers).index(number))
        return [(number, WorkerStarted(worker.machine.node.name, number, (gpu,), self._versions))]

    def _on_loaded(self, when: float, what: tuple[int, float]) -> Said:
        number, seconds = what
        worker = self._workers.get(number)
        if worker is None:
            return []
        self._turn(worker, "idle", when)
        return [(number, ModelsLoaded(seconds))]

    def _plan(self, number: int, worker: _Worker, job: Job, now: float) -> None:
        """Decide how a job goes, and put down when its news come."""
        world, chance = self.world, self._chance
        each = self._lognormal(world.job, world.job_spread) * worker.machine.speed / 4
        if chance.random() < world.slow_share:
            each *= world.slow_factor
        limits = np.cumsum([world.crash_share, world.memory_share, world.hang_share])
        place = int(np.searchsorted(limits, chance.random(), "right"))
        trouble = _TROUBLES[place] if place < len(_TROUBLES) else None
        tasks = list(job.items)
        stop = int(chance.integers(len(tasks))) if trouble and tasks else len(tasks)
        self._at(now + 0.01, "begun", (number, job))
        for index, task in enumerate(tasks[:stop]):
            self._at(now + each * (index + 1), "answered", (number, job, task))
        if trouble is not None:
            self._at(now + each * (stop + chance.random()), trouble, (number, job))
        else:
            self._at(now + each * len(tasks) + 0.001, "finished", (number, job))

    def _at_work(self, number: int, job: Job) -> _Worker | None:
        """Return the worker if it is still at this job."""
        worker = self._workers.get(number)
        return worker if worker is not None and worker.job is job else None

    def _on_begun(self, when: float, what: tuple[int, Job]) -> Said:
        return [(what[0], JobStarted())] if self._at_work(*what) else []

    def _on_answered(self, when: float, what: tuple[int, Job, str]) -> Said:
        number, job, task = what
        worker = self._at_work(number, job)
        if worker is None:
            return []
        self.shares.useful += when - worker.since
        worker.since = when
        if self._chances_of(job, "bad").random() < self.world.bad_share:
            return self._release(number, worker, when, job, Failure("candidate", "the logits are not numbers"))
        items = job.items[task]
        right = self._chances_of(job, task).random(len(items)) < 0.5
        responses = tuple(Response(task, item, "acc", float(x)) for item, x in zip(items, right, strict=True))
        return [(number, Answers(job.candidate.number, job.split, task, responses))]

    def _on_finished(self, when: float, what: tuple[int, Job]) -> Said:
        worker = self._at_work(*what)
        return self._release(what[0], worker, when, what[1], None) if worker else []

    def _on_memory(self, when: float, what: tuple[int, Job]) -> Said:
        worker = self._at_work(*what)
        if worker is None:
            return []
        self.troubles["memory"] += 1
        self.shares.lost += when - worker.since
        return self._release(what[0], worker, when, what[1], Failure("infrastructure", "CUDA out of memory"))

    def _on_crash(self, when: float, what: tuple[int, Job]) -> Said:
        if not self._at_work(*what):
            return []
        self.troubles["crash"] += 1
        self._end(what[0], when)
        return [(what[0], WorkerDied("segmentation fault"))]

    def _on_hang(self, when: float, what: tuple[int, Job]) -> Said:
        self.troubles["hang"] += self._at_work(*what) is not None
        return []

    def _release(self, number: int, worker: _Worker, when: float, job: Job, failure: Failure | None) -> Said:
        self._turn(worker, "idle", when)
        worker.job = None
        stages = {"merge": 0.5, **{f"score.{task}": 14.9 for task in job.items}}
        return [(number, Outcome(job.candidate.number, job.split, failure, f"worker{number}", 60.0, stages, "0" * 16))]

    def _chances_of(self, job: Job, what: str) -> np.random.Generator:
        """Return chances that depend on the candidate alone: whoever answers, the answers are the same."""
        return np.random.default_rng([self.world.seed, job.candidate.number, *what.encode()])

    # -- accounts ------------------------------------------------------------------------------------------------

    def _turn(self, worker: _Worker, state: str, when: float) -> None:
        """Change what a worker does, and account for what it did until now."""
        seconds = when - worker.since
        if worker.state in ("loading", "idle"):
            setattr(self.shares, worker.state, getattr(self.shares, worker.state) + seconds)
        worker.state, worker.since = state, when

    def _end(self, number: int, when: float) -> None:
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        if worker.state == "busy":
            self.shares.lost += when - worker.since
        self._turn(worker, "gone", when)
        worker.machine.workers.discard(number)

    def _lognormal(self, median: float, spread: float) -> float:
        return float(median * math.exp(spread * self._chance.standard_normal()))
