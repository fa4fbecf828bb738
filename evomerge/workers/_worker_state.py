"""The state of one worker of a cluster, as its scheduler sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.candidate import Answers, Job
from evomerge.workers._cluster import Node, WorkerStarted
from evomerge.workers._retry import JobAttempt


@dataclass
class WorkerState:
    """One worker, from its start to its end; its replacement is another WorkerState of the same name.

    Only its methods change it, but for the node, which the worker set keeps current.
    """

    number: int  # the cluster's number of it
    index: int  # the number in its name
    node: Node
    name: str
    heard: float  # time of its last event
    state: Literal["starting", "loading", "ready"] = "starting"
    gpu_fraction: float = 0.0  # GPUs that it holds
    gpus: tuple[str, ...] = ()  # GPUs, by their numbers on the node
    attempt: JobAttempt | None = None
    asked: dict[str, int] = field(default_factory=dict)  # task -> items of the current job
    left: dict[str, int] = field(default_factory=dict)  # task -> items not answered yet
    begun: bool = False  # it has begun its job
    since: float = 0.0  # when it got the job
    saved: float = float("-inf")  # time of its last answers: work before it is not lost
    busy_seconds: float = 0.0
    done: int = 0

    @property
    def device(self) -> str:
        """Its GPU, or its node where it has none of its own: the device to blame where this worker keeps failing."""
        return f"{self.node.name} GPU {','.join(self.gpus)}" if self.gpus else self.node.name

    @property
    def device_key(self) -> str:
        """The device's unique name; several nodes may have the same name."""
        return f"{self.node.id}/{','.join(self.gpus)}"

    @property
    def idle(self) -> bool:
        """True where a job can be given to it."""
        return self.state == "ready" and self.attempt is None

    def started(self, event: WorkerStarted) -> None:
        """Note that the process runs; it loads its models now."""
        self.state, self.gpus = "loading", event.gpus

    def loaded(self) -> None:
        """Note that it can take jobs."""
        self.state = "ready"

    def job_started(self) -> None:
        """Note that it has begun its job."""
        self.begun = True

    def heard_from(self, now: float) -> None:
        """Note the time of an event."""
        self.heard = now

    def job_done(self) -> None:
        """Count a job that came to its end."""
        self.done += 1

    def assign(self, attempt: JobAttempt, now: float) -> Job:
        """Start an attempt on this worker and return its job."""
        self.attempt, self.begun = attempt, False
        self.since = self.heard = now
        self.asked = {task: len(items) for task, items in attempt.job.items.items()}
        self.left = dict(self.asked)
        attempt.started_on(self.number)
        return attempt.job

    def answered(self, answers: Answers, now: float) -> None:
        """Note which items are left after these answers."""
        self.saved = now
        if answers.left:
            self.left[answers.task] = answers.left
        else:
            self.left.pop(answers.task, None)

    def release(self, now: float) -> tuple[JobAttempt, float]:
        """End the attempt on this worker; return it and the seconds that it took so far."""
        attempt = self.attempt
        assert attempt is not None
        seconds = now - self.since
        self.busy_seconds += seconds
        self.attempt = None
        attempt.ended_on(self.number)
        return attempt, seconds

    def row(self, now: float, quarantined: bool) -> dict[str, Any]:
        """Return its row of `Pool.status`."""
        state = self.state if self.state != "ready" else "busy" if self.attempt else "idle"
        busy = self.busy_seconds + (now - self.since if self.attempt else 0.0)
        return {
            "name": self.name,
            "state": "quarantined" if quarantined and state == "idle" else state,
            "busy_seconds": busy,
            "done": self.done,
            "node": self.node.name,
            "gpus": self.gpu_fraction,
            "gpu_ids": list(self.gpus),
        }
