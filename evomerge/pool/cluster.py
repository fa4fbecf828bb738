"""What the foreman needs of a cluster, and nothing more: nodes, workers on them, and messages from the workers.

`pool.ray_pool` is Ray's implementation; tests and simulations bring their own, with a clock of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from evomerge.candidate import Answers, Job, Outcome

Cause = Literal["process", "memory", "node", "gone"]  # 'gone': it was dead before it heard of its job


@dataclass(frozen=True)
class Needs:
    """What one worker reserves on its node."""

    cpus: float = 1.0  # also its number of OpenMP threads
    gpus: float = 0.0  # fractions let workers share one


@dataclass(frozen=True)
class Node:
    """One machine of the cluster as it is now; machines that are gone are not listed."""

    id: str
    name: str  # for people: host name or address
    cpus: float
    gpus: float
    head: bool = False  # where the cluster's own services run
    leaving: bool = False  # it was told to go (a spot machine's notice): it gets no new work


@dataclass(frozen=True)
class Greeting:
    """A worker's process has started; it loads its models next."""

    host: str
    pid: int
    gpus: tuple[str, ...] = ()  # that it may use, by their numbers on the node
    versions: Mapping[str, str] = field(default_factory=dict)
    log: str = ""  # path of its log on its node


@dataclass(frozen=True)
class Loaded:
    """A worker has loaded its models, or failed to: then its first job says how."""

    seconds: float


@dataclass(frozen=True)
class Begun:
    """A worker has taken up its job."""


@dataclass(frozen=True)
class Died:
    """A worker is gone, and with it what it was doing."""

    message: str
    cause: Cause = "process"
    log: str = ""  # the last lines that it wrote, where they can still be read


News = Greeting | Loaded | Begun | Answers | Outcome | Died


class Cluster(Protocol):
    """Machines on which workers can be started. Used by one foreman, from one thread.

    A worker is named by the number that `start` gave it, which is never used again. It sends a Greeting, Loaded, and
    for every job Begun, Answers and one Outcome; or, at any moment, Died, after which nothing more comes from it.
    """

    def now(self) -> float:
        """Return seconds on a clock that never jumps."""
        ...

    def nodes(self) -> Sequence[Node]:
        """Return the machines that are there now."""
        ...

    def start(self, node: Node, number: int, name: str) -> None:
        """Start a worker on this node; whether it worked is told by `wait`."""
        ...

    def send(self, number: int, job: Job) -> None:
        """Give a worker a job; it has none."""
        ...

    def wait(self, timeout: float) -> Sequence[tuple[int, News]]:
        """Return what workers have said, waiting up to `timeout` seconds for something."""
        ...

    def kill(self, number: int) -> None:
        """End a worker, whatever it does; it says nothing more, not even Died."""
        ...

    def wanted(self, workers: int) -> None:
        """Say how many workers there should be: a cluster that can grow may do so."""
        ...

    def publish(self, figures: Mapping[str, Any]) -> None:
        """Show the foreman's figures to whoever watches the cluster."""
        ...

    def close(self) -> None:
        """End all workers; leave the cluster as it was, or stop it where we started it. Safe to call twice."""
        ...
