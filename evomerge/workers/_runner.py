"""Runs jobs in one process: `SafeEvaluator` for any worker, `LocalPool` for a search without further processes.

`SafeEvaluator` is the only place where an exception becomes a failure with a kind, and where answers are checked.
"""

from __future__ import annotations

import math
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from evomerge.candidate import Answers, Failure, FailureKind, Job, Outcome
from evomerge.errors import CandidateError, InfrastructureError, InputError, MergeError, out_of_memory
from evomerge.workers._pool_protocol import Evaluator, EvaluatorSpec
from evomerge.workers._secrets import hide

GATHER_SECONDS = 0.02  # results within this time arrive together, so that they share one write to the disk
MOST_QUEUED = 256
_MOST_TRACEBACK = 20_000  # characters kept, from the end, where the cause stands


class SafeEvaluator:
    """Builds its evaluator at the first job, runs jobs, and never raises an exception of the evaluator.

    Whatever the evaluator does, each job gives finite answers to some of its items, each once, then one outcome, which
    is a failure where items are left unanswered.
    """

    def __init__(self, spec: EvaluatorSpec, name: str) -> None:
        self.name = name
        self._spec = spec
        self._evaluator: Evaluator | None = None
        self._load_seconds = 0.0  # reported with the next outcome

    def prepare(self) -> float:
        """Build the evaluator; return the seconds that took. Where it fails, the first job tries again and says so."""
        started = time.monotonic()
        # Broad as in `evaluate`: what cannot be built must reach the driver as a failure of a job, with its kind.
        with suppress(Exception):
            self._built()
        return time.monotonic() - started

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Yield answers as they come, then exactly one outcome, which names this worker."""
        started = time.monotonic()
        try:
            outcome = None
            left = {task: set(items) for task, items in job.items.items()}
            evaluator = self._built()
            started = time.monotonic()
            for result in evaluator.evaluate(job):
                if isinstance(result, Answers):
                    _check(result, job, left)
                    left[result.task].difference_update(result.items)
                    yield result
                else:
                    outcome = result
                    break
            unanswered = sorted(task for task, items in left.items() if items)
            yield self._signed(outcome, unanswered) if outcome else _silent(job, self.name)
        # Broad on purpose: anything that a model, a task or a library raises must end one candidate, not the run.
        except Exception as error:
            yield _failed(job, failure_of(error), self.name, time.monotonic() - started)

    def _built(self) -> Evaluator:
        if self._evaluator is None:
            started = time.monotonic()
            self._evaluator = self._spec.build()
            self._load_seconds = time.monotonic() - started
        return self._evaluator

    def _signed(self, outcome: Outcome, unanswered: list[str]) -> Outcome:
        """Return an outcome with this worker's name and, once, the seconds of loading; refuse it where answers miss."""
        if outcome.done and unanswered:
            raise CandidateError(f"the worker ended well without answering {', '.join(unanswered)}")
        stages = dict(outcome.stages)
        if self._load_seconds:
            stages["load"], self._load_seconds = self._load_seconds, 0.0
        return replace(outcome, worker=self.name, stages=stages)


class LocalPool:
    """Evaluates one job after another inside `collect`, in the order of submission.

    It takes one job at a time, or, where jobs are faster than the disk, as many as fit in `GATHER_SECONDS`.
    """

    def __init__(self, spec: EvaluatorSpec) -> None:
        self._evaluator = SafeEvaluator(spec, f"{socket.gethostname()}/0")
        self._jobs: deque[Job] = deque()
        self._running: Iterator[Answers | Outcome] | None = None
        self._tasks_left = 0  # tasks of the running job without an answer
        self._busy_seconds = 0.0
        self._done = 0

    def room(self) -> int:
        """Return how many more jobs can be submitted."""
        mean = self._busy_seconds / self._done if self._done else GATHER_SECONDS
        most = min(MOST_QUEUED, max(1, int(GATHER_SECONDS / max(mean, 1e-9))))
        return max(0, most - len(self._jobs) - (self._running is not None))

    def submit(self, job: Job) -> None:
        """Take one job; it runs in a later `collect`."""
        self._jobs.append(job)

    def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
        """Run jobs until one result is there, and gather what follows within `GATHER_SECONDS`.

        What has begun goes on to its next answers whatever the timeout says: nothing can stop it from inside this
        process.
        """
        started = time.monotonic()
        arrived: list[Answers | Outcome] = []
        while self._begin():
            result = self._next()
            arrived.append(result)
            if time.monotonic() - started > GATHER_SECONDS and not self._only_outcome_left(result):
                break
        self._busy_seconds += time.monotonic() - started
        return arrived

    def status(self) -> list[dict[str, Any]]:
        """Return one row."""
        state = "busy" if self._running is not None else "idle"
        row = {"name": self._evaluator.name, "state": state, "busy_seconds": self._busy_seconds, "done": self._done}
        return [row]

    def close(self) -> None:
        """Drop what is queued."""
        self._jobs.clear()
        self._running = None

    def _begin(self) -> bool:
        """Make sure that a job is running; False where there is none."""
        if self._running is None and self._jobs:
            job = self._jobs.popleft()
            self._tasks_left = len(job.items)
            self._running = self._evaluator.evaluate(job)
        return self._running is not None

    def _next(self) -> Answers | Outcome:
        assert self._running is not None
        result = next(self._running)
        if isinstance(result, Outcome):
            self._running = None
            self._done += 1
        elif not result.left:
            self._tasks_left -= 1
        return result

    def _only_outcome_left(self, result: Answers | Outcome) -> bool:
        """The outcome costs nothing once every task is answered; with them it is recorded in one go."""
        return isinstance(result, Answers) and self._tasks_left <= 0


def failure_of(error: BaseException) -> Failure:
    """Return the failure that an exception stands for.

    CandidateError and MergeError belong to the candidate: other coefficients may be fine. What the machine does
    (InfrastructureError, memory, files, connections) is worth another try elsewhere. Other InputErrors are mistakes in
    the set-up and end the search. Anything else is held against the candidate, with its traceback.
    """
    text = hide("".join(traceback.format_exception(type(error), error, error.__traceback__)))[-_MOST_TRACEBACK:]
    message = str(error) if isinstance(error, (CandidateError, InputError)) else f"{type(error).__name__}: {error}"
    return Failure(_kind(error), hide(message), text)


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, (CandidateError, MergeError)):
        return "candidate"
    if isinstance(error, InputError):
        return "configuration"
    if isinstance(error, (InfrastructureError, MemoryError, OSError)):
        return "infrastructure"
    if out_of_memory(error):
        return "infrastructure"
    return "candidate"


def _check(answers: Answers, job: Job, left: Mapping[str, set[str]]) -> None:
    """Raise unless the answers are this job's, finite, and to items of `left` (task -> items not answered yet)."""
    wanted = left.get(answers.task)
    if answers.number != job.candidate.number or answers.split != job.split or wanted is None:
        raise CandidateError(
            f"the worker answered task {answers.task!r} ({answers.split}) of candidate {answers.number}, which is not "
            f"part of the job of candidate {job.candidate.number} ({job.split})"
        )
    got = set(answers.items)
    if not got <= wanted or len(wanted - got) != answers.left:
        missing, foreign = sorted(wanted - got), sorted(got - wanted)
        raise CandidateError(
            f"task {answers.task!r}: expected answers to {len(wanted) - answers.left} of {len(wanted)} items; missing "
            f"{missing[:3]}, not asked {foreign[:3]}"
        )
    if len({(response.item, response.metric) for response in answers.responses}) != len(answers.responses):
        raise CandidateError(f"task {answers.task!r}: an item was answered twice in one metric")
    for response in answers.responses:
        if not math.isfinite(response.value):
            raise CandidateError(
                f"task {answers.task!r}, item {response.item!r}: {response.metric} is {response.value}, not a number"
            )


def _failed(job: Job, failure: Failure, worker: str, seconds: float = 0.0) -> Outcome:
    return Outcome(job.candidate.number, job.split, failure, worker, seconds)


def _silent(job: Job, worker: str) -> Outcome:
    message = "the evaluator ended without an outcome"
    return _failed(job, Failure("candidate", message), worker)
