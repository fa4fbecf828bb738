"""The interface between the scheduler and a cluster: nodes, workers on them, and messages from the workers.

`pool.ray_pool` is Ray's implementation; tests and simulations bring their own, with a simulated clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol

from evomerge.candidate import Answers, Job, Outcome

# torch's build for another device ('+cu128') computes by the same code as far as versions can tell, and is not compared
COMPARED = ("torch", "transformers", "lm-eval", "peft", "safetensors", "tokenizers", "numpy")

Cause = Literal["process", "memory", "node", "gone"]  # 'gone': it was dead before its job reached it
Metric = tuple[float, Mapping[str, str]]  # a value and its labels


@dataclass(frozen=True)
class Resources:
    """The resources that one worker reserves on its node."""

    cpus: float = 1.0  # also its number of OpenMP threads
    gpus: float = 0.0  # fractions let workers share one


@dataclass(frozen=True)
class Node:
    """One machine of the cluster as it is now; machines that are gone are not listed."""

    id: str
    name: str  # host name or address, for messages
    cpus: float
    gpus: float
    head: bool = False  # where the cluster's own services run
    leaving: bool = False  # it is being drained (a preempted spot machine): it gets no new work


@dataclass(frozen=True)
class WorkerStarted:
    """A worker's process has started; it loads its models next."""

    host: str
    pid: int
    gpus: tuple[str, ...] = ()  # the GPUs that it may use, by their numbers on the node
    versions: Mapping[str, str] = field(default_factory=dict)
    log: str = ""  # path of its log on its node


@dataclass(frozen=True)
class ModelsLoaded:
    """A worker has loaded its models, or failed to: then its first job says how."""

    seconds: float


@dataclass(frozen=True)
class JobStarted:
    """A worker has begun its job."""


@dataclass(frozen=True)
class WorkerDied:
    """A worker is gone, and the work that it was doing is lost."""

    message: str
    cause: Cause = "process"
    log: str = ""  # the last lines of its log, where they can still be read


WorkerEvent = WorkerStarted | ModelsLoaded | JobStarted | Answers | Outcome | WorkerDied


class Cluster(Protocol):
    """Machines on which workers can be started. Used by one scheduler, from one thread.

    The number that `start` gives a worker is never used again. The worker sends WorkerStarted, then ModelsLoaded, and
    for every job JobStarted, Answers and one Outcome; or, at any moment, WorkerDied as its last event.
    """

    def now(self) -> float:
        """Return seconds on a clock that never jumps."""
        ...

    def nodes(self) -> Sequence[Node]:
        """Return the machines that are there now."""
        ...

    def start(self, node: Node, number: int, name: str) -> None:
        """Start a worker on this node; `wait` reports whether it worked."""
        ...

    def send(self, number: int, job: Job) -> None:
        """Give a worker a job; it has none."""
        ...

    def wait(self, timeout: float) -> Sequence[tuple[int, WorkerEvent]]:
        """Return the workers' events, waiting up to `timeout` seconds for one."""
        ...

    def kill(self, number: int) -> None:
        """End a worker, whatever it does; no event comes from it any more, not even WorkerDied."""
        ...

    def request_workers(self, workers: int) -> None:
        """Request room for so many workers: a cluster that can grow may do so."""
        ...

    def publish_metrics(self, metrics: Mapping[str, Metric]) -> None:
        """Export the scheduler's metrics to the monitoring of the cluster."""
        ...

    def close(self) -> None:
        """End all workers; leave a cluster that ran before as it was, stop one that we started. Safe to call twice."""
        ...


def versions_here() -> dict[str, str]:
    """Return package -> version in this process, and the code of evomerge itself; absent packages are left out."""
    found = {"evomerge": f"code {code_digest()}"}
    for package in COMPARED:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).partition("+")[0]
    return found


def code_digest() -> str:
    """Return a digest of evomerge's source: a version number does not tell two working copies apart."""
    from evomerge import version  # its folder is the package's

    root = Path(version.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def differences(driver: Mapping[str, str], worker: Mapping[str, str]) -> list[str]:
    """Return one phrase per difference; a package that the driver lacks (torch on a laptop) cannot differ.

    >>> differences({"torch": "2.12", "peft": "0.19"}, {"torch": "2.13", "peft": "0.19"})
    ['torch is 2.13 there and 2.12 here']
    """
    return [
        f"{package} is {worker.get(package, 'missing')} there and {version} here"
        for package, version in driver.items()
        if worker.get(package) != version
    ]
