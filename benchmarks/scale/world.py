"""A cluster that exists in virtual time: nodes come and go, workers load, answer, straggle, crash and hang.

It stands behind `pool.cluster.Cluster`, so that the foreman, the desk, the archive, the controller and the loop above it
are the real ones. Time passes in two ways: to the next event while the driver waits, and by the processor time that the
driver really used while it did not. A driver that is too slow for its cluster therefore shows as idle workers.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evomerge.candidate import Answers, Failure, Job, Outcome, Response
from evomerge.pool.cluster import Begun, Died, Greeting, Loaded, News, Node
from evomerge.pool.versions import versions_here


@dataclass(frozen=True)
class World:
    """What the simulated cluster is like; times in seconds. The defaults: 7B models, 100 questions, spot nodes."""

    workers: int
    per_node: int = 8
    job: float = 60.0  # median time of a whole job on a typical node
    job_spread: float = 0.3  # standard deviation of its logarithm, from candidate to candidate
    node_spread: float = 0.15  # the same, from node to node: clocks, neighbours, disks
    slow_share: float = 0.01  # of jobs, which take `slow_factor` times as long: the stragglers
    slow_factor: float = 5.0
    start: float = 8.0  # until a worker's process runs
    load: float = 90.0  # median time of loading the models
    load_spread: float = 0.3
    node_life: float = 4 * 3600.0  # mean, exponential: then the provider takes the node back
    notice: float = 30.0  # before that, the node is marked as leaving
    node_return: float = 240.0  # until another node is there
    crash_share: float = 0.002  # of jobs that end with the worker's death
    memory_share: float = 0.003  # of jobs that end with 'out of memory'
    hang_share: float = 0.0005  # of jobs that never answer again
    bad_share: float = 0.01  # of candidates, whose logits are not numbers
    commit: float = 0.002  # that the driver waits for the disk at each commit
    seed: int = 0


class Killed(BaseException):
    """The driver was killed; nothing may catch this but the one who starts another driver."""


@dataclass
class _Worker:
    number: int
    node: str
    speed: float
    job: Job | None = None
    since: float = 0.0  # start of the task under way
    state: str = "loading"  # loading, idle, busy
    changed: float = 0.0  # when the state began


@dataclass
class Shares:
    """Worker seconds of the nodes that were there, by what became of them."""

    paid: float = 0.0
    useful: float = 0.0  # tasks whose answers arrived
    lost: float = 0.0  # tasks that were cut short by a failure
    loading: float = 0.0
    idle: float = 0.0

    def add(self, other: Shares) -> None:
        for name in ("paid", "useful", "lost", "loading", "idle"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class _Machine:
    node: Node
    speed: float
    leaves: float
    workers: set[int] = field(default_factory=set)


class SimulatedCluster:
    """The world from one driver's start to its end; `driver_seconds` is the processor time that it used."""

    def __init__(self, world: World, started: float = 0.0, kill_at: float = math.inf) -> None:
        self.world, self.shares = world, Shares()
        self.driver_seconds = 0.0
        self.messages = 0
        self.deaths = {"node": 0, "crash": 0, "hang": 0, "memory": 0}
        self._chance = np.random.default_rng([world.seed, int(started)])
        self._now, self._kill_at = started, kill_at
        self._mark = time.process_time()
        self._events: list[tuple[float, int, str, Any]] = []
        self._sequence = self._born = 0
        self._machines: dict[str, _Machine] = {}
        self._workers: dict[int, _Worker] = {}
        self._versions = versions_here()
        for _ in range(math.ceil(world.workers / world.per_node)):
            self._boot()

    # -- what the foreman asks -----------------------------------------------------------------------------------

    def now(self) -> float:
        return self._now + time.process_time() - self._mark

    def nodes(self) -> Sequence[Node]:
        return [machine.node for machine in self._machines.values()]

    def start(self, node: Node, number: int, name: str) -> None:
        machine = self._machines.get(node.id)
        if machine is None:
            self._at(0.0, "died", (number, "its node is gone", "node"))
            return
        machine.workers.add(number)
        self._workers[number] = _Worker(number, node.id, machine.speed, changed=self.now())
        self._at(self.world.start, "greeting", number)

    def send(self, number: int, job: Job) -> None:
        entered = time.process_time()
        worker = self._workers.get(number)
        if worker is not None:
            self._turn(worker, "busy", self.now())
            worker.job = job
            self._plan(worker, job)
        self._mark += time.process_time() - entered

    def wait(self, timeout: float) -> Sequence[tuple[int, News]]:
        entered = time.process_time()
        used = entered - self._mark
        self.driver_seconds += used
        self._now += used
        until = self._now + timeout
        news: list[tuple[int, News]] = []
        while not news:
            moment = self._events[0][0] if self._events else math.inf
            if moment > until:
                self._now = max(self._now, until)
                break
            self._now = max(self._now, moment)
            while self._events and self._events[0][0] <= self._now:
                when, _, kind, what = heapq.heappop(self._events)
                news += getattr(self, f"_on_{kind}")(when, what)
        self.messages += len(news)
        if self._now >= self._kill_at:
            raise Killed
        self._mark = time.process_time()
        return news

    def kill(self, number: int) -> None:
        self._end(number, self.now())

    def wanted(self, workers: int) -> None:
        pass

    def publish(self, figures: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        for number in list(self._workers):
            self._end(number, self._now)
        for machine in list(self._machines.values()):
            self._pay(machine, self._now)
        self._machines.clear()

    def committed(self) -> None:
        """The driver has waited for its disk once."""
        self._now += self.world.commit

    # -- what happens --------------------------------------------------------------------------------------------

    def _at(self, after: float, kind: str, what: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now() + after, self._sequence, kind, what))

    def _boot(self) -> None:
        world = self.world
        name = f"node{self._born}"
        self._born += 1
        life = float(self._chance.exponential(world.node_life))
        node = Node(name, name, cpus=4.0 * world.per_node, gpus=float(world.per_node))
        self._machines[name] = _Machine(node, self._lognormal(1.0, world.node_spread), self._now + life)
        self._paid_from = getattr(self, "_paid_from", {})
        self._paid_from[name] = self._now
        self._at(max(0.0, life - world.notice), "notice", name)
        self._at(life, "reclaim", name)

    def _pay(self, machine: _Machine, now: float) -> None:
        self.shares.paid += self.world.per_node * (now - self._paid_from.pop(machine.node.id))

    def _on_boot(self, when: float, what: None) -> list[tuple[int, News]]:
        self._boot()
        return []

    def _on_notice(self, when: float, name: str) -> list[tuple[int, News]]:
        machine = self._machines.get(name)
        if machine is not None:
            node = machine.node
            machine.node = Node(node.id, node.name, node.cpus, node.gpus, node.head, leaving=True)
        return []

    def _on_reclaim(self, when: float, name: str) -> list[tuple[int, News]]:
        machine = self._machines.pop(name, None)
        if machine is None:
            return []
        self._pay(machine, when)
        numbers = [number for number in machine.workers if number in self._workers]
        for number in numbers:
            self._end(number, when)
        self.deaths["node"] += 1
        self._at(self.world.node_return, "boot", None)
        return [(number, Died("the node was taken back", "node")) for number in numbers]

    def _on_greeting(self, when: float, number: int) -> list[tuple[int, News]]:
        worker = self._workers.get(number)
        if worker is None:
            return []
        seconds = self._lognormal(self.world.load, self.world.load_spread)
        self._at(seconds, "loaded", (number, seconds))
        gpu = (str(number % self.world.per_node),)
        return [(number, Greeting(worker.node, number, gpu, self._versions))]

    def _on_loaded(self, when: float, what: tuple[int, float]) -> list[tuple[int, News]]:
        number, seconds = what
        worker = self._workers.get(number)
        if worker is None:
            return []
        self._turn(worker, "idle", when)
        return [(number, Loaded(seconds))]

    def _plan(self, worker: _Worker, job: Job) -> None:
        """Decide how a job will go, and put down when its news come."""
        world, chance = self.world, self._chance
        seconds = self._lognormal(world.job, world.job_spread) * worker.speed
        if chance.random() < world.slow_share:
            seconds *= world.slow_factor
        each = seconds / 4
        fate = chance.random()
        worker.since = self.now()
        self._at(0.01, "begun", worker.number)
        bad = np.random.default_rng([world.seed, 1, job.candidate.number + 10**6]).random() < world.bad_share
        limits = np.cumsum([world.crash_share, world.memory_share, world.hang_share])
        trouble = (
            None if fate >= limits[-1] else ("crash", "memory", "hang")[int(np.searchsorted(limits, fate, "right"))]
        )
        tasks = list(job.items)
        stop = int(chance.integers(len(tasks))) if trouble and tasks else len(tasks)
        for place, task in enumerate(tasks[:stop]):
            self._at(each * (place + 1), "answered", (worker.number, job, task, bad))
        if trouble is None:
            self._at(each * len(tasks) + 0.001, "finished", (worker.number, job))
        elif trouble != "hang":
            self._at(each * (stop + chance.random()), trouble, (worker.number, job))
        else:
            self.deaths["hang"] += 1

    def _on_begun(self, when: float, number: int) -> list[tuple[int, News]]:
        return [(number, Begun())] if number in self._workers else []

    def _on_answered(self, when: float, what: tuple[int, Job, str, bool]) -> list[tuple[int, News]]:
        number, job, task, bad = what
        worker = self._workers.get(number)
        if worker is None or worker.job is not job:
            return []
        self.shares.useful += when - worker.since
        worker.since = when
        if bad:
            self._turn(worker, "idle", when)
            worker.job = None
            failure = Failure("candidate", "the logits are not numbers (simulated)")
            return [(number, Outcome(job.candidate.number, job.split, failure, f"w{number}", 1.0))]
        place = list(job.items).index(task)
        rng = np.random.default_rng([self.world.seed, 2, job.candidate.number + 10**6, len(task), ord(task[0]), place])
        right = np.random.default_rng([job.candidate.number + 10**6, *task.encode()]).random(len(job.items[task])) < 0.5
        del rng
        responses = tuple(Response(task, item, "acc", float(x)) for item, x in zip(job.items[task], right, strict=True))
        return [(number, Answers(job.candidate.number, job.split, task, responses))]

    def _on_finished(self, when: float, what: tuple[int, Job]) -> list[tuple[int, News]]:
        number, job = what
        worker = self._workers.get(number)
        if worker is None or worker.job is not job:
            return []
        self._turn(worker, "idle", when)
        worker.job = None
        stages = {"merge": 0.5, "score": 59.5}
        return [(number, Outcome(job.candidate.number, job.split, None, f"w{number}", 60.0, stages, "0" * 16))]

    def _on_memory(self, when: float, what: tuple[int, Job]) -> list[tuple[int, News]]:
        number, job = what
        worker = self._workers.get(number)
        if worker is None or worker.job is not job:
            return []
        self.deaths["memory"] += 1
        self.shares.lost += when - worker.since
        self._turn(worker, "idle", when)
        worker.job = None
        failure = Failure("infrastructure", "CUDA out of memory (simulated)")
        return [(number, Outcome(job.candidate.number, job.split, failure, f"w{number}", 1.0))]

    def _on_crash(self, when: float, what: tuple[int, Job]) -> list[tuple[int, News]]:
        number, job = what
        worker = self._workers.get(number)
        if worker is None or worker.job is not job:
            return []
        self.deaths["crash"] += 1
        self._end(number, when)
        return [(number, Died("segmentation fault (simulated)"))]

    def _on_died(self, when: float, what: tuple[int, str, Any]) -> list[tuple[int, News]]:
        number, message, cause = what
        return [(number, Died(message, cause))]

    # -- accounts ------------------------------------------------------------------------------------------------

    def _turn(self, worker: _Worker, state: str, now: float) -> None:
        """Change what a worker does; what it did until now goes into the shares."""
        seconds = max(0.0, now - worker.changed)
        if worker.state == "loading":
            self.shares.loading += seconds
        elif worker.state == "idle":
            self.shares.idle += seconds
        worker.state, worker.changed = state, now

    def _end(self, number: int, now: float) -> None:
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        if worker.state == "busy":
            self.shares.lost += max(0.0, now - worker.since)
        self._turn(worker, "gone", now)
        machine = self._machines.get(worker.node)
        if machine is not None:
            machine.workers.discard(number)

    def _lognormal(self, median: float, spread: float) -> float:
        return float(median * math.exp(spread * self._chance.standard_normal()))
