"""Ray as a cluster of workers: nodes, one actor per worker, their messages. The only file that imports ray.

The policy for failures is in `pool.scheduler`; this file only translates Ray's calls and messages.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.candidate import Answers, Job, Outcome
from evomerge.errors import ExtraMissing, InputError
from evomerge.workers._cluster import (
    Cause,
    JobStarted,
    Metric,
    ModelsLoaded,
    Node,
    Resources,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
    versions_here,
)
from evomerge.workers._pool_protocol import EvaluatorSpec
from evomerge.workers._runner import SafeEvaluator
from evomerge.workers._scheduler import Policy, Scheduler
from evomerge.workers._secrets import hide, to_pass_on
from evomerge.workers._timeouts import TimeoutSettings
from evomerge.workers._worker_set import PoolSize
from evomerge.workers.ray._local_cluster import PrivateRay, StdoutFilter, quiet_ray, quiet_settings

try:
    import ray
    from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError
    from ray.util import metrics
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as missing:
    raise ExtraMissing("ray", "ray") from missing

_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head, and to no other node
_LOG_BYTES = 4000  # the end of a dead worker's log that is kept
_LOG_SECONDS = 5.0  # timeout of fetching it from the worker's node


def start_ray_pool(
    spec: EvaluatorSpec,
    workers: int | None = None,
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    deadline_seconds: float | None = None,
    use_head: bool = False,
    secrets: Sequence[str] = (),
    log: Path | None = None,
) -> Scheduler:
    """Connect, or start a small Ray of our own on this machine, start the workers, and return their pool.

    Args:
        spec: plain data that builds the evaluator in each worker.
        workers: how many; None: as many as the cluster's GPUs allow, or its CPUs where it has no GPU, and more when
            nodes join.
        address: of a running cluster ('auto', or host:port); None: this machine alone.
        cpus: per worker, which is also its number of OpenMP threads; None: an equal share of this machine's cores, or 1
            on a cluster.
        gpus: per worker; fractions let workers share one, several are always of one node. None: one each, or an equal
            share where there are fewer GPUs than workers.
        deadline_seconds: without a sign of life, after which a worker hangs and is replaced; None: learnt from measured
            times.
        use_head: whether a cluster's head node gets workers although there are other nodes.
        secrets: environment variables that workers get beside `secrets.PASSED_ON`.
        log: file to which the messages of Ray's own processes are added; None: they go to stderr.

    Raises:
        InputError: a number is below 1, no worker fits, or the address is of no cluster that can be used.
    """
    _check(workers, cpus, gpus, address)
    cores = os.cpu_count() or 1
    if cpus is None:
        cpus = max(1, cores // (workers or cores)) if address is None else 1
    cluster = RayCluster(spec, address, max(int(cpus * (workers or 1)), cores), to_pass_on(secrets), log)
    try:
        cluster.resources = Resources(cpus, _gpus_each(cluster.nodes(), workers) if gpus is None else gpus)
        size = PoolSize(workers, cluster.resources, use_head, may_grow=address is not None and workers is not None)
        return Scheduler(cluster, size, Policy(TimeoutSettings(fixed=deadline_seconds)))
    except BaseException:
        cluster.close()
        raise


@dataclass
class _Remote:
    """One actor and what is awaited from it: its start, its models, or the next result of its job."""

    actor: Any
    node: Node
    awaited: Any
    stage: str = "starting"  # then loading, then idle or job
    pid: int = 0
    log: str = ""  # path of its stderr on its node


class RayCluster:
    """Ray behind the `Cluster` protocol; owns the connection and the actors."""

    def __init__(
        self,
        spec: EvaluatorSpec,
        address: str | None,
        cpus: int,
        environment: Mapping[str, str],
        log: Path | None = None,
    ) -> None:
        """Connect to `address`, or start a Ray of our own with this many CPUs.

        Args:
            spec: see `start_ray_pool`, as `address` and `log`.
            address: of a running cluster.
            cpus: of a Ray of our own.
            environment: secrets that workers get. As arguments of the actor, which Ray writes to no log.
            log: for what Ray's own processes say.
        """
        self._stdout = StdoutFilter(log)
        self.resources = Resources()
        self._private: PrivateRay | None = None
        self._connected = not ray.is_initialized()  # connected here, so disconnected here
        self._remotes: dict[int, _Remote] = {}
        self._asked_for = 0
        self._gauges: dict[str, Any] = {}
        self._closed = False
        if self._connected and address is not None:
            _join(address)
        elif self._connected:
            self._private = PrivateRay()
            try:
                with quiet_ray():
                    ray.init(**self._private.settings(cpus))
            except BaseException:
                self._private.remove()
                raise
        self._stdout.__enter__()  # until `close`
        self._spec, self._environment = ray.put(spec), dict(environment)

    def now(self) -> float:
        """Return seconds on the monotonic clock."""
        return time.monotonic()

    def nodes(self) -> list[Node]:
        """Return the living nodes."""
        leaving = _draining()
        return [_node(row, leaving) for row in ray.nodes() if row["Alive"]]

    def start(self, node: Node, number: int, name: str) -> None:
        """Start an actor on exactly this node."""
        place = NodeAffinitySchedulingStrategy(node.id, soft=False)
        # Ray sets OMP_NUM_THREADS of an actor to its num_cpus unless the environment sets it
        options = {"num_cpus": self.resources.cpus, "num_gpus": self.resources.gpus, "scheduling_strategy": place}
        actor_class: Any = ray.remote(max_restarts=0)(_Actor)
        actor = actor_class.options(**options).remote(self._spec, name, self._environment)
        self._remotes[number] = _Remote(actor, node, actor.describe.remote())

    def send(self, number: int, job: Job) -> None:
        """Start a job on an idle actor."""
        remote = self._remotes[number]
        remote.stage = "job"
        remote.awaited = remote.actor.evaluate.options(num_returns="streaming").remote(job)

    def wait(self, timeout: float) -> list[tuple[int, WorkerEvent]]:
        """Return what has arrived."""
        events: list[tuple[int, WorkerEvent]] = []
        while awaited := {remote.awaited: n for n, remote in self._remotes.items() if remote.awaited is not None}:
            patience = 0.0 if events else timeout
            first, _ = ray.wait(list(awaited), num_returns=1, timeout=patience)
            if not first:
                return events
            ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
            for reference in ready:
                events.append((awaited[reference], self._next(awaited[reference])))
        if not events and timeout > 0:  # no worker runs: nothing can arrive
            time.sleep(timeout)
        return events

    def kill(self, number: int) -> None:
        """Kill an actor's process, also one that is stopped."""
        remote = self._remotes.pop(number)
        with contextlib.suppress(RayError, ValueError):
            ray.kill(remote.actor)

    def request_workers(self, workers: int) -> None:
        """Ask the autoscaler, where there is one, for room for so many workers."""
        from ray.autoscaler.sdk import request_resources

        bundle = {"CPU": self.resources.cpus, **({"GPU": self.resources.gpus} if self.resources.gpus else {})}
        self._asked_for = workers
        with contextlib.suppress(RayError, RuntimeError, ConnectionError):
            request_resources(bundles=[bundle] * workers)

    def publish_metrics(self, values: Mapping[str, Metric]) -> None:
        """Set Ray's own gauges, which its metrics agents serve to Prometheus as ray_evomerge_*."""
        for full, (value, tags) in values.items():
            name = full.partition("/")[0]  # what follows is in the tags
            gauge = self._gauges.get(name)
            if gauge is None:
                gauge = metrics.Gauge(f"evomerge_{name}", "evomerge: " + name.replace("_", " "), tuple(tags))
                self._gauges[name] = gauge
            gauge.set(float(value), dict(tags))

    def close(self) -> None:
        """Kill our workers; leave a cluster that was there before as it was, and stop the Ray that we started."""
        if self._closed:
            return
        self._closed = True
        for number in list(self._remotes):
            self.kill(number)
        if self._asked_for and ray.is_initialized():
            self.request_workers(0)
        if self._connected and ray.is_initialized():
            ray.shutdown()
        self._stdout.__exit__()
        if self._private is not None:
            self._private.remove()

    def _next(self, number: int) -> WorkerEvent:
        """Return the next event of a worker; it is ready."""
        remote = self._remotes[number]
        try:
            if remote.stage != "job":
                event: WorkerEvent = ray.get(remote.awaited)
            else:
                event = ray.get(next(remote.awaited))
        except StopIteration:  # an evaluator always ends with an outcome, after which nothing is awaited
            self.kill(number)
            return WorkerDied("the worker ended a job without an outcome")
        except (RayError, ImportError) as error:
            self._remotes.pop(number)
            return self._death(remote, error)
        if isinstance(event, WorkerStarted):
            remote.pid, remote.log = event.pid, event.log
            remote.stage, remote.awaited = "loading", remote.actor.load.remote()
        elif isinstance(event, (ModelsLoaded, Outcome)):
            remote.stage, remote.awaited = "idle", None
        return event

    def _death(self, remote: _Remote, error: BaseException) -> WorkerDied:
        text = hide(str(error)).strip()
        lines = [line.strip() for line in text.splitlines()]
        reason = next((line for line in lines if line.startswith("The actor")), lines[0] if lines else "")
        cause: Cause = "process"
        if isinstance(error, OutOfMemoryError) or "memory pressure" in text.lower():
            cause = "memory"
        elif (
            "node has died" in text
            or "ActorUnschedulable" in type(error).__name__
            or getattr(error, "preempted", False)
        ):
            cause = "node"
        if not isinstance(error, ActorDiedError) and hasattr(error, "cause"):  # raised by our own code in the actor
            reason = f"{reason} ({lines[-1]})" if lines else reason
        log = "" if cause == "node" or not remote.log else hide(_end_of_log(remote))
        return WorkerDied(f"{type(error).__name__}: {reason}", cause, log)


class _Actor:
    """What runs in a worker's process: a SafeEvaluator, and nothing else."""

    def __init__(self, spec: EvaluatorSpec, name: str, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._evaluator = SafeEvaluator(spec, name)

    def describe(self) -> WorkerStarted:
        """Describe this process."""
        gpus = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        log = ""
        with contextlib.suppress(OSError):  # Linux only: Ray has pointed stderr at the worker's log file
            log = os.readlink("/proc/self/fd/2")
        return WorkerStarted(socket.gethostname(), os.getpid(), gpus, versions_here(), log)

    def load(self) -> ModelsLoaded:
        """Load the models; where that fails, the first job tries again and says why."""
        return ModelsLoaded(self._evaluator.prepare())

    def evaluate(self, job: Job) -> Iterator[JobStarted | Answers | Outcome]:
        """Yield that the job has begun, then what the evaluator yields."""
        yield JobStarted()
        yield from self._evaluator.evaluate(job)


def _check(workers: int | None, cpus: float | None, gpus: float | None, address: str | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}")
    if cpus is not None and cpus <= 0:
        raise InputError(f"CPUs per worker must be above 0, got {cpus:g}")
    if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
        raise InputError(f"GPUs per worker must be a fraction of one or a whole number, got {gpus:g}")
    if address is not None and address.startswith("ray://"):
        raise InputError(
            f"address {address!r}: Ray Client ends with its connection, and a search must not; start the search on "
            "a node of the cluster with --address auto, or submit it there as a job"
        )


def _join(address: str) -> None:
    try:
        with quiet_ray():
            ray.init(address=address, namespace="evomerge", **quiet_settings())
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address!r} ({hide(str(error))}); start one with: ray start --head"
        ) from error


def _node(row: Mapping[str, Any], leaving: set[str]) -> Node:
    resources, name = row["Resources"], row["NodeManagerHostname"] or row["NodeManagerAddress"]
    cpus, gpus = float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0))
    return Node(row["NodeID"], name, cpus, gpus, _HEAD in resources, row["NodeID"] in leaving)


def _draining() -> set[str]:
    """Return the ids of draining nodes; empty where this version of Ray does not report them.

    `ray.nodes()` does not say it, and `ray.util.state` needs a dashboard; the autoscaler's status needs neither.
    """
    try:
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except (ImportError, RayError, RuntimeError):
        return set()
    return {str(node.node_id) for node in status.active_nodes if node.node_status == "DRAINING"}


def _gpus_each(nodes: Sequence[Node], workers: int | None) -> float:
    """Return the share of a GPU that each worker gets: one, or less where there are fewer GPUs than workers."""
    has = sum(node.gpus for node in nodes)
    if not has or workers is None or workers <= has:
        return 1.0 if has else 0.0
    return 1.0 / -(-workers // int(has))


def _end_of_log(remote: _Remote) -> str:
    """Return the end of a dead worker's stderr, fetched on its node; empty where that takes too long."""
    if os.path.exists(remote.log):  # on this machine: its name holds the worker's id, so it is no other one's
        return _tail(remote.log, _LOG_BYTES)
    place = NodeAffinitySchedulingStrategy(remote.node.id, soft=False)
    fetch: Any = ray.remote(num_cpus=0, max_retries=0)(_tail)
    try:
        text: str = ray.get(
            fetch.options(scheduling_strategy=place).remote(remote.log, _LOG_BYTES), timeout=_LOG_SECONDS
        )
    except (RayError, OSError):
        return ""
    return text


def _tail(path: str, count: int) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - count))
        return file.read().decode(errors="replace")
