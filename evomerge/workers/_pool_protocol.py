"""The interfaces of pools and evaluators: a pool takes jobs, and returns answers and one outcome for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from evomerge.candidate import Answers, Job, Outcome, Split


@dataclass(frozen=True)
class Retry:
    """A job was given to another worker after its machine failed; an outcome for it is still to come."""

    number: int
    split: Split
    worker: str  # the one that failed
    message: str
    seconds: float = 0.0  # lost work: since the last answers that arrived
    worked: float = 0.0  # seconds spent on the job, lost ones included


@dataclass(frozen=True)
class PoolEvent:
    """An event of a worker for the record; it changes no job.

    `what` is one of joined, left, lost (it died or hung), refused (other versions), quarantined, straggler (its job was
    given to a second worker too), wasted (answers that the other one had given before).
    """

    what: Literal["joined", "left", "lost", "refused", "quarantined", "straggler", "wasted"]
    worker: str
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON-ready: node, gpus, seconds, message, log


Arrival = Answers | Outcome | Retry | PoolEvent


class Evaluator(Protocol):
    """Evaluates jobs in a worker; a plain class, the same in this process and under Ray."""

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Yield answers as they come, those of a task at once or in portions, then exactly one outcome.

        Batches are made from `job.together`, so that an answer does not depend on what was answered before. Its
        exceptions are turned into a failed outcome by `SafeEvaluator`, which also checks its results.
        """
        ...


class EvaluatorSpec(Protocol):
    """Plain, picklable data from which a worker builds its evaluator, on whatever machine it runs."""

    def build(self) -> Evaluator:
        """Return a fresh evaluator; called once per worker."""
        ...


class Pool(Protocol):
    """Runs jobs on one or more workers. The loop is its only user and calls it from one thread."""

    def room(self) -> int:
        """Return how many more jobs can be submitted without waiting in a queue."""
        ...

    def submit(self, job: Job) -> None:
        """Take one job; its results come back through `collect`."""
        ...

    def collect(self, timeout: float | None = None) -> Sequence[Arrival]:
        """Return what has arrived since the last call, waiting up to `timeout` seconds (None: until something has).

        Returns [] at once where there is nothing to wait for. Every job ends in exactly one outcome; an item is
        answered at most once, however often its job had to be tried.
        """
        ...

    def status(self) -> list[dict[str, Any]]:
        """Return a row per worker: name, state, busy seconds, jobs done."""
        ...

    def close(self) -> None:
        """Stop the workers that this pool started, and nothing else; jobs under way are dropped. Safe to call twice."""
        ...
