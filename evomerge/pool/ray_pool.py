"""The pool on Ray: one actor per worker, on this machine or on a cluster. The only file that imports ray."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from evomerge.candidate import Answers, Failure, Job, Outcome
from evomerge.errors import ExtraMissing, InputError
from evomerge.pool.edge import Edge
from evomerge.pool.protocol import Arrival, EvaluatorSpec, Retry

try:
    import ray
    from ray.exceptions import RayError
except ModuleNotFoundError as missing:
    raise ExtraMissing("ray", "ray") from missing

MOST_TRIES = 3  # of one job, each on another worker where there is one, while machines fail under it
_OBJECT_STORE = 128 * 2**20  # bytes; only recipes and answers travel
_LONGEST_FOLDER = 40  # characters: Ray puts sockets below it, and the path of a socket ends at 107


@dataclass
class _Try:
    """A job on its way through the pool."""

    job: Job  # what is still to be answered
    tries: int = 0
    avoid: int | None = None  # slot of the worker that failed it last


@dataclass
class _Slot:
    """One worker's place; after its actor dies, another one sits here."""

    index: int
    name: str
    actor: Any
    ready: Any  # reference that arrives when the actor has started; None once it has
    current: _Try | None = None
    results: Any = None  # generator of references to the current job's results
    since: float = 0.0
    busy_seconds: float = 0.0
    done: int = 0
    lost: list[str] = field(default_factory=list)  # why earlier actors of this slot ended


class RayPool:
    """Runs jobs on `workers` actors, each of which builds its evaluator once.

    Finished tasks arrive before their job ends. When a worker dies or its machine fails, its job goes to another one
    with what is still unanswered, up to `MOST_TRIES` times in all; then it ends as an infrastructure failure.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        workers: int | None = None,
        address: str | None = None,
        cpus: int | None = None,
        gpus: float | None = None,
        deadline_seconds: float | None = None,
    ) -> None:
        """Connect, or start a small Ray of our own on this machine, and start the workers.

        Args:
            spec: plain data that builds the evaluator in each worker.
            workers: how many; None: as many as the cluster's GPUs allow, or its CPUs where it has no GPU.
            address: of a running cluster ('auto', or host:port); None: this machine alone.
            cpus: per worker, which is also its number of OpenMP threads; None: an equal share of this machine's cores,
                or 1 on a cluster.
            gpus: per worker; fractions let workers share one. None: one each, or an equal share where there are fewer
                GPUs than workers.
            deadline_seconds: after which a job counts as hanging, and its worker is replaced.

        Raises:
            InputError: a number is below 1, or the address is of no cluster that can be used.
        """
        if workers is not None and workers < 1:
            raise InputError(f"workers must be 1 or more, got {workers}")
        if address is not None and address.startswith("ray://"):
            raise InputError(
                f"address {address!r}: Ray Client ends with its connection, and a search must not; start the search on "
                "a node of the cluster with --address auto, or submit it there as a job"
            )
        cores = os.cpu_count() or 1
        self._cpus = cpus if cpus is not None else max(1, cores // (workers or cores)) if address is None else 1
        self._deadline = deadline_seconds
        self._folder: str | None = None  # of the Ray that we started
        self._connected = not ray.is_initialized()  # by us, so that we disconnect
        if self._connected:
            self._connect(address, max(self._cpus * (workers or 1), cores))
        workers, self._gpus = _fit(workers, self._cpus, gpus)
        self._spec = ray.put(spec)
        self._queue: deque[_Try] = deque()
        self._slots = [self._start(index) for index in range(workers)]

    def room(self) -> int:
        """Return how many workers have started and are idle."""
        idle = sum(slot.current is None and slot.ready is None for slot in self._slots)
        return max(0, idle - len(self._queue))

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker, or queue it."""
        self._queue.append(_Try(job))
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[Arrival]:
        """Return what has arrived, waiting for a result or for a worker's start."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            arrived = list(self._gather())
            self._dispatch()
            left = 1.0 if until is None else until - time.monotonic()
            if arrived or left <= 0 or not self._waitables():
                return arrived
            room = self.room()
            ray.wait(self._waitables(), num_returns=1, timeout=min(left, 1.0))
            self._dispatch()
            if self.room() > room:  # a worker has started, and the caller may have work for it
                return list(self._gather())

    def status(self) -> list[dict[str, Any]]:
        """Return a row per worker."""
        return [
            {
                "name": slot.name,
                "state": "starting" if slot.ready is not None else "idle" if slot.current is None else "busy",
                "busy_seconds": slot.busy_seconds + (time.monotonic() - slot.since if slot.current else 0.0),
                "done": slot.done,
                "lost": list(slot.lost),
            }
            for slot in self._slots
        ]

    def close(self) -> None:
        """Kill our workers; leave a cluster that was there before as it was, and stop the Ray that we started."""
        slots, self._slots = self._slots, []
        self._queue.clear()
        for slot in slots:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(slot.actor)
        if self._connected and ray.is_initialized():
            ray.shutdown()
        self._connected = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- workers -------------------------------------------------------------------------------------------------

    def _connect(self, address: str | None, cpus: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if address is not None:
            try:
                ray.init(address=address, namespace="evomerge", **quiet)
            except (ConnectionError, RayError, RuntimeError) as error:
                raise InputError(
                    f"no Ray cluster answers at {address!r} ({error}); start one with: ray start --head"
                ) from error
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a private Ray calls nobody
        folder = tempfile.mkdtemp(prefix="evomerge-ray-")
        if len(folder) > _LONGEST_FOLDER:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix="evomerge-ray-", dir="/tmp")
        self._folder = folder
        ray.init(
            address="local",  # not the cluster that RAY_ADDRESS may name: that is asked for by `address`
            num_cpus=cpus,
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            _temp_dir=folder,
            **quiet,
        )

    def _start(self, index: int, lost: list[str] | None = None) -> _Slot:
        # Ray sets OMP_NUM_THREADS of an actor to its num_cpus where the environment does not say otherwise
        actor_class: Any = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)(_Actor)
        actor = actor_class.remote(self._spec, index)
        return _Slot(index, f"?/{index}", actor, actor.name.remote(), lost=lost or [])

    def _replace(self, slot: _Slot, why: str) -> None:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(slot.actor)
        fresh = self._start(slot.index, [*slot.lost, why])
        fresh.busy_seconds, fresh.done, fresh.name = slot.busy_seconds, slot.done, slot.name
        self._slots[slot.index] = fresh

    def _note_started(self) -> bool:
        """Mark actors that have started; True where there was one."""
        waiting = {slot.ready: slot for slot in self._slots if slot.ready is not None}
        if not waiting:
            return False
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in done:
            slot = waiting[reference]
            try:
                slot.name = ray.get(reference)
                slot.ready = None
            except RayError as error:  # it died while starting; another one takes its place
                self._replace(slot, _first_line(error))
        return bool(done)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._note_started()
        idle = [slot for slot in self._slots if slot.current is None and slot.ready is None]
        while idle and self._queue:
            attempt = self._queue.popleft()
            slot = next((slot for slot in idle if slot.index != attempt.avoid), idle[0])
            idle.remove(slot)
            attempt.tries += 1
            slot.current, slot.since = attempt, time.monotonic()
            slot.results = slot.actor.evaluate.options(num_returns="streaming").remote(attempt.job)

    def _waitables(self) -> list[Any]:
        running = [slot.results for slot in self._slots if slot.results is not None]
        return running + [slot.ready for slot in self._slots if slot.ready is not None]

    def _gather(self) -> Iterator[Arrival]:
        """Yield every result that is there, without waiting."""
        while running := {slot.results: slot for slot in self._slots if slot.results is not None}:
            ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            if not ready:
                break
            for results in ready:
                yield from self._take(running[results])
        for slot in list(self._slots):
            if self._deadline and slot.current and time.monotonic() - slot.since > self._deadline:
                yield self._lost(slot, f"no result for {self._deadline:.0f} seconds: the worker hangs")

    def _take(self, slot: _Slot) -> Iterator[Arrival]:
        """Yield the next result of a slot whose generator is ready."""
        assert slot.current is not None
        attempt = slot.current
        try:
            result: Answers | Outcome = ray.get(next(slot.results))
        except StopIteration:  # the edge always ends with an outcome, after which nothing is waited for
            yield self._lost(slot, "the worker ended a job without an outcome")
            return
        except RayError as error:
            yield self._lost(slot, _first_line(error))
            return
        if isinstance(result, Answers):
            left = {task: items for task, items in attempt.job.items.items() if task != result.task}
            attempt.job = replace(attempt.job, items=left)
            yield result
            return
        self._release(slot)
        slot.done += 1
        if result.failure is not None and result.failure.kind == "infrastructure" and attempt.tries < MOST_TRIES:
            yield self._again(attempt, slot, result.failure.message)
        else:
            yield result

    def _lost(self, slot: _Slot, why: str) -> Arrival:
        """Replace a worker that died or hangs; its job is tried again, or ends here."""
        attempt = slot.current
        assert attempt is not None
        self._release(slot)
        self._replace(slot, why)
        if attempt.tries < MOST_TRIES:
            return self._again(attempt, slot, why)
        message = f"{why} (tried {attempt.tries} times)"
        job = attempt.job
        return Outcome(job.candidate.number, job.split, Failure("infrastructure", message), slot.name)

    def _again(self, attempt: _Try, slot: _Slot, why: str) -> Retry:
        attempt.avoid = slot.index
        self._queue.appendleft(attempt)
        return Retry(attempt.job.candidate.number, attempt.job.split, slot.name, why)

    def _release(self, slot: _Slot) -> None:
        slot.busy_seconds += time.monotonic() - slot.since
        slot.current = slot.results = None


class _Actor:
    """What runs in a worker's process: the edge, and nothing else."""

    def __init__(self, spec: EvaluatorSpec, index: int) -> None:
        self._edge = Edge(spec, f"{socket.gethostname()}/{index}")

    def name(self) -> str:
        """Return the worker's name: its machine and number."""
        return self._edge.name

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Yield what the edge yields."""
        yield from self._edge.evaluate(job)


def _fit(workers: int | None, cpus: int, gpus: float | None) -> tuple[int, float]:
    """Return the number of workers, and the GPUs of each, that the cluster's resources suggest."""
    resources = ray.cluster_resources()
    has = float(resources.get("GPU", 0.0))
    if gpus is None:
        gpus = 0.0 if not has else 1.0 if workers is None or workers <= has else has / workers
    if workers is None:
        workers = int(has / gpus) if gpus else int(resources.get("CPU", 1.0) / cpus)
    return max(1, workers), gpus


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
