"""A worker's place in the pool, as the foreman sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.candidate import Answers, Job
from evomerge.pool.attempts import Attempt
from evomerge.pool.cluster import Greeting, Node


@dataclass
class Slot:
    """One worker, from its start to its end; a worker that takes its place is another Slot of the same name."""

    number: int  # by which the cluster knows it
    index: int  # of its name
    node: Node
    name: str
    heard: float  # when it last gave a sign of life
    state: Literal["starting", "loading", "ready"] = "starting"
    share: float = 0.0  # of GPUs that it holds
    gpus: tuple[str, ...] = ()  # by their numbers on the node
    attempt: Attempt | None = None
    asked: dict[str, int] = field(default_factory=dict)  # task -> items of the current job
    left: dict[str, int] = field(default_factory=dict)  # of those, not yet answered
    begun: bool = False  # it has taken the job up
    since: float = 0.0  # when it got the job
    saved: float = float("-inf")  # when it last answered something: that is not lost with it
    busy_seconds: float = 0.0
    done: int = 0

    @property
    def place(self) -> str:
        """What is at fault where this worker keeps failing: its GPU, or its node where it has none of its own."""
        return f"{self.node.name} GPU {','.join(self.gpus)}" if self.gpus else self.node.name

    @property
    def key(self) -> str:
        """The place's name among all nodes, of which several may be called the same."""
        return f"{self.node.id}/{','.join(self.gpus)}"

    @property
    def idle(self) -> bool:
        """True where a job can be given to it."""
        return self.state == "ready" and self.attempt is None

    def greet(self, greeting: Greeting, now: float) -> None:
        """Note that the process runs; it loads its models now."""
        self.state, self.gpus, self.heard = "loading", greeting.gpus, now

    def give(self, attempt: Attempt, now: float) -> Job:
        """Take a job on and return it."""
        self.attempt, self.begun = attempt, False
        self.since = self.heard = now
        self.asked = {task: len(items) for task, items in attempt.job.items.items()}
        self.left = dict(self.asked)
        attempt.runs.add(self.number)
        return attempt.job

    def note(self, answers: Answers, now: float) -> None:
        """Note what it has answered."""
        self.saved = now
        if answers.left:
            self.left[answers.task] = answers.left
        else:
            self.left.pop(answers.task, None)

    def release(self, now: float) -> tuple[Attempt, float]:
        """Let go of the job; return it and how many seconds it took so far."""
        attempt = self.attempt
        assert attempt is not None
        seconds = now - self.since
        self.busy_seconds += seconds
        self.attempt = None
        attempt.runs.discard(self.number)
        return attempt, seconds

    def row(self, now: float, quarantined: bool) -> dict[str, Any]:
        """Return what `Pool.status` says of it."""
        state = self.state if self.state != "ready" else "busy" if self.attempt else "idle"
        busy = self.busy_seconds + (now - self.since if self.attempt else 0.0)
        return {
            "name": self.name,
            "state": "quarantined" if quarantined and state == "idle" else state,
            "busy_seconds": busy,
            "done": self.done,
            "node": self.node.name,
            "gpus": self.share,
            "gpu_ids": list(self.gpus),
        }
