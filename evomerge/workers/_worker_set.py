"""The workers of a cluster: how many go on which node, started where there is room, replaced when they die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.errors import InputError
from evomerge.workers._cluster import Cluster, Node, Resources, WorkerDied, WorkerStarted, differences, versions_here
from evomerge.workers._pool_protocol import PoolEvent
from evomerge.workers._retry import JobAttempt, Quarantine
from evomerge.workers._worker_state import WorkerState

SURVEY_SECONDS = 1.0  # interval at which the cluster's nodes are read
NODE_WAIT = 900.0  # seconds that a cluster may take to grow before the pool gives up because no worker fits
FIRST_REST = 1.0  # seconds before a worker is started where one died; doubled while that goes on
LONGEST_REST = 60.0
_SLACK = 1e-9  # thirds and tenths of a GPU do not add up exactly


@dataclass(frozen=True)
class PoolSize:
    """The number of workers, and where they may run."""

    workers: int | None = None  # None: as many as fit, more when nodes join
    resources: Resources = field(default_factory=Resources)  # per worker
    use_head: bool = False
    may_grow: bool = False  # the cluster may get nodes later, so having none now is no mistake


class WorkerSet:
    """Owns the workers. `survey` follows the cluster: nodes that join get workers, workers that died are replaced."""

    def __init__(self, cluster: Cluster, size: PoolSize) -> None:
        self._workers: dict[int, WorkerState] = {}
        self._idle: dict[int, WorkerState] = {}  # ready and without a job: a thousand workers are not searched for it
        self._cluster, self._size = cluster, size
        self._versions = versions_here()
        self._barred: dict[str, str] = {}  # node id -> why none of its workers can be used
        self._rests: dict[str, tuple[int, float]] = {}  # node id -> (deaths in a row, no start before)
        self._next = 0
        self._surveyed = float("-inf")
        self._short_since = cluster.now()

    def __iter__(self) -> Iterator[WorkerState]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, number: int) -> WorkerState | None:
        """Return a worker by the cluster's number; None where it was dropped."""
        return self._workers.get(number)

    def available(self, quarantine: Quarantine) -> list[WorkerState]:
        """Return the workers that can take a job: not in quarantine, unless all are, and not on a leaving node."""
        idle = [worker for worker in self._idle.values() if not worker.node.leaving]
        now = self._cluster.now()
        if not idle or quarantine.quiet(now):
            return idle
        sound = [worker for worker in idle if not quarantine.holds(worker.device_key, now)]
        if sound:
            return sound
        busy = (worker for worker in self if not worker.node.leaving and not worker.idle)
        return idle if all(quarantine.holds(worker.device_key, now) for worker in busy) else []

    def clear(self) -> None:
        """Forget all workers."""
        self._workers.clear()
        self._idle.clear()

    def assign(self, worker: WorkerState, attempt: JobAttempt) -> None:
        """Send a job to an idle worker."""
        self._idle.pop(worker.number)
        self._cluster.send(worker.number, worker.assign(attempt, self._cluster.now()))

    def release(self, worker: WorkerState) -> tuple[JobAttempt, float]:
        """End a worker's attempt, which makes it idle unless it was dropped; return the attempt and its seconds."""
        released = worker.release(self._cluster.now())
        if worker.number in self._workers:
            self._idle[worker.number] = worker
        return released

    def loaded(self, worker: WorkerState) -> None:
        """Note that a worker can take jobs."""
        worker.loaded()
        if worker.idle:
            self._idle[worker.number] = worker

    def survey(self) -> Iterator[tuple[WorkerState, WorkerDied]]:
        """Start missing workers; yield those whose node is gone, which the caller has to drop.

        Raises:
            InputError: no worker fits on any node, or none has the driver's versions.
        """
        now = self._cluster.now()
        if now < self._surveyed + SURVEY_SECONDS:
            return
        self._surveyed = now
        nodes = {node.id: node for node in self._cluster.nodes()}
        for worker in self:
            if worker.node.id not in nodes:
                yield worker, WorkerDied("its node left the cluster", "node")
            else:
                worker.node = nodes[worker.node.id]
        self._start_missing(list(nodes.values()), now)

    def drop(self, worker: WorkerState, kill: bool = False) -> None:
        """Remove a worker that is gone, or kill it."""
        self._workers.pop(worker.number, None)
        self._idle.pop(worker.number, None)
        if kill:
            self._cluster.kill(worker.number)

    def record_death(self, worker: WorkerState) -> None:
        """Delay the next start on a node a little longer each time a worker dies on it; a finished job resets that."""
        deaths, _ = self._rests.get(worker.node.id, (0, 0.0))
        rest = min(LONGEST_REST, FIRST_REST * 2.0**deaths) if deaths else 0.0  # the first time at once
        self._rests[worker.node.id] = (deaths + 1, self._cluster.now() + rest)

    def record_success(self, worker: WorkerState) -> None:
        """Record that a worker finished a job."""
        worker.job_done()
        self._rests.pop(worker.node.id, None)

    def admit(self, worker: WorkerState, event: WorkerStarted) -> PoolEvent:
        """Admit a started worker, or refuse it where its packages differ from the driver's."""
        facts = {"node": worker.node.name, "pid": event.pid, "gpus": worker.gpu_fraction}
        found = differences(self._versions, event.versions)
        if not found:
            worker.started(event)
            return PoolEvent("joined", worker.name, facts)
        message = f"node {worker.node.name}: {', '.join(found)}; install the driver's versions there"
        self._barred[worker.node.id] = message
        self.drop(worker, kill=True)
        return PoolEvent("refused", worker.name, {**facts, "message": message})

    def _start_missing(self, nodes: list[Node], now: float) -> None:
        allowed = [node for node in nodes if node.id not in self._barred]
        rested = [node for node in allowed if now >= self._rests.get(node.id, (0, now))[1]]
        placed = Counter(worker.node.id for worker in self)
        size = self._size
        # The head may be used only if no other node exists, not even one whose next start is delayed.
        whole = {node.id for node in usable(allowed, size.resources, size.use_head)}
        open_ones = [node for node in rested if node.id in whole]
        for node in to_start(open_ones, size.resources, size.workers, True, placed):
            self._start(node, now)
        if self._workers or whole:
            self._short_since = now
        elif self._barred and not allowed:
            raise InputError(f"no worker can be used: {'; '.join(self._barred.values())}")
        elif not size.may_grow or now > self._short_since + NODE_WAIT:
            raise InputError(why_none_fits(nodes, size.resources))

    def _start(self, node: Node, now: float) -> None:
        taken = {worker.index for worker in self}
        index = next(index for index in range(len(taken) + 1) if index not in taken)
        number, self._next = self._next, self._next + 1
        worker = WorkerState(number, index, node, f"{node.name}/{index}", now, gpu_fraction=self._size.resources.gpus)
        self._workers[number] = worker
        self._cluster.start(node, number, worker.name)


def best_worker(workers: Sequence[WorkerState], attempt: JobAttempt) -> WorkerState:
    """Return the worker that suits a job best, see `JobAttempt.penalty`."""
    if not attempt.failed_workers:  # most jobs have failed nowhere, and then the first worker is as good as any
        return workers[0]
    return min(workers, key=lambda worker: attempt.penalty(worker.node.id, worker.name))


def capacity(node: Node, resources: Resources) -> int:
    """Return how many workers fit on a node; a worker is never spread over several.

    >>> capacity(Node("a", "a", cpus=8, gpus=1), Resources(cpus=1, gpus=0.25))
    4
    """
    if resources.gpus:
        # A GPU is shared by workers whose fraction divides it; a worker that needs several takes whole ones.
        by_gpu = (
            int(1 / resources.gpus + _SLACK) * int(node.gpus) if resources.gpus < 1 else int(node.gpus / resources.gpus)
        )
        return min(by_gpu, int(node.cpus / resources.cpus + _SLACK)) if resources.cpus else by_gpu
    return int(node.cpus / resources.cpus + _SLACK) if resources.cpus else 0


def usable(nodes: Sequence[Node], resources: Resources, use_head: bool) -> list[Node]:
    """Return the nodes that may get workers: not those that are leaving, and the head only if asked or alone."""
    fitting = [node for node in nodes if not node.leaving and capacity(node, resources)]
    others = [node for node in fitting if not node.head]
    return fitting if use_head or not others else others


def to_start(
    nodes: Sequence[Node], resources: Resources, workers: int | None, use_head: bool, placed: Mapping[str, int]
) -> list[Node]:
    """Return a node for every worker that should be started now, the emptiest nodes first.

    Args:
        nodes: of the cluster.
        resources: of each worker.
        workers: how many there should be in all; None: as many as fit.
        use_head: whether the head may get some although there are other nodes.
        placed: node id -> workers there already.
    """
    candidates = usable(nodes, resources, use_head)
    free = {node.id: capacity(node, resources) - placed.get(node.id, 0) for node in candidates}
    missing = sum(free.values()) if workers is None else workers - sum(placed.values())
    load = {node.id: placed.get(node.id, 0) for node in candidates}
    chosen: list[Node] = []
    while missing > len(chosen) and (open_ones := [node for node in candidates if free[node.id] > 0]):
        node = min(open_ones, key=lambda one: (load[one.id], one.name, one.id))
        chosen.append(node)
        free[node.id] -= 1
        load[node.id] += 1
    return chosen


def why_none_fits(nodes: Sequence[Node], resources: Resources) -> str:
    """Return a sentence for a cluster on which not even one worker fits."""
    wanted = f"{resources.cpus:g} CPUs" + (f" and {resources.gpus:g} GPUs" if resources.gpus else "")
    has = ", ".join(f"{node.name}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "no nodes"
    return f"a worker needs {wanted} on one node, and the cluster has {has}; ask for less per worker, or add nodes"
