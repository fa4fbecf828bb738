"""The worker's edge: the one place where an exception becomes a failure with a kind, and where answers are checked."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace

from evomerge.candidate import Answers, Failure, FailureKind, Job, Outcome
from evomerge.errors import CandidateError, InfrastructureError, InputError, MergeError
from evomerge.pool.protocol import Evaluator, EvaluatorSpec

_MOST_TRACEBACK = 20_000  # characters kept, from the end, where the cause stands


class Edge:
    """One worker: builds its evaluator at the first job, runs jobs, and never raises for what goes wrong inside.

    Whatever the evaluator does, each job gives complete and finite answers of some of its tasks, then one outcome.
    """

    def __init__(self, spec: EvaluatorSpec, name: str) -> None:
        self.name = name
        self._spec = spec
        self._evaluator: Evaluator | None = None

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Yield the answers of each task as it is done, then exactly one outcome, which names this worker."""
        started = time.monotonic()
        try:
            outcome = None
            for result in self._built().evaluate(job):
                if isinstance(result, Answers):
                    _check(result, job)
                    yield result
                else:
                    outcome = result
                    break
            yield replace(outcome, worker=self.name) if outcome else _silent(job, self.name)
        # Broad on purpose: anything that a model, a task or a library raises must end one candidate, not the run.
        except Exception as error:
            yield _failed(job, failure_of(error), self.name, time.monotonic() - started)

    def _built(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = self._spec.build()
        return self._evaluator


def failure_of(error: BaseException) -> Failure:
    """Return the failure that an exception stands for.

    CandidateError and MergeError belong to the candidate: other coefficients may be fine. What the machine does
    (InfrastructureError, memory, files, connections) is worth another try elsewhere. Other InputErrors are mistakes in
    the set-up and end the search. Anything else is held against the candidate, with its traceback.
    """
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-_MOST_TRACEBACK:]
    message = str(error) if isinstance(error, (CandidateError, InputError)) else f"{type(error).__name__}: {error}"
    return Failure(_kind(error), message, text)


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, (CandidateError, MergeError)):
        return "candidate"
    if isinstance(error, InputError):
        return "configuration"
    if isinstance(error, (InfrastructureError, MemoryError, OSError)):
        return "infrastructure"
    if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():  # CUDA's, and torch's on the CPU
        return "infrastructure"
    return "candidate"


def _check(answers: Answers, job: Job) -> None:
    """Raise unless the answers are this job's, complete and finite: a wrong number must not look right."""
    wanted = job.items.get(answers.task)
    if answers.number != job.candidate.number or answers.split != job.split or wanted is None:
        raise CandidateError(
            f"the worker answered task {answers.task!r} ({answers.split}) of candidate {answers.number}, which is not "
            f"part of the job of candidate {job.candidate.number} ({job.split})"
        )
    got = {response.item for response in answers.responses}
    if got != set(wanted):
        missing, foreign = sorted(set(wanted) - got), sorted(got - set(wanted))
        raise CandidateError(
            f"task {answers.task!r}: expected answers to {len(wanted)} items; missing {missing[:3]}, "
            f"not asked {foreign[:3]}"
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
