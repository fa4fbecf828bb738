"""`SafeEvaluator`: exceptions become failures of the right kind, and wrong answers never pass for right ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from evomerge.candidate import Answers, Candidate, Job, Outcome, Response
from evomerge.errors import (
    CandidateError,
    ExtraMissing,
    InfrastructureError,
    InputError,
    MergeError,
    TaskError,
    WeightsError,
)
from evomerge.recipe import passthrough
from evomerge.workers._pool_protocol import Evaluator
from evomerge.workers._runner import SafeEvaluator, failure_of

JOB = Job(Candidate(4, passthrough("model")), "search", {"add": ("x", "y"), "sort": ("z",)})
ADD = tuple(Response("add", item, "acc", 1.0) for item in ("x", "y"))
SORT = (Response("sort", "z", "acc", 0.0),)
GOOD = [Answers(4, "search", "add", ADD), Answers(4, "search", "sort", SORT), Outcome(4, "search", seconds=1.5)]

KINDS = [
    (CandidateError("NaN logits"), "candidate"),
    (MergeError("weights sum to 0"), "candidate"),
    (KeyError("a bug"), "candidate"),
    (RuntimeError("shape mismatch"), "candidate"),
    (ValueError("not ours"), "candidate"),
    (InfrastructureError("lost"), "infrastructure"),
    (MemoryError(), "infrastructure"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "infrastructure"),
    (OSError(5, "Input/output error"), "infrastructure"),
    (ConnectionResetError(), "infrastructure"),
    (InputError("wrong"), "configuration"),
    (TaskError("no such task"), "configuration"),
    (WeightsError("no such tensor"), "configuration"),
    (ExtraMissing("torch", "hf"), "configuration"),
]


@dataclass
class Script:
    """A spec whose evaluator does what a function says; it counts how often it was built."""

    play: Callable[[], Iterator[Answers | Outcome]]
    built: int = 0

    def build(self) -> Evaluator:
        self.built += 1
        return self

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        return self.play()


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=[f"{type(e).__name__}-{k}" for e, k in KINDS])
def test_every_exception_has_its_kind(error: Exception, kind: str) -> None:
    def play() -> Iterator[Answers | Outcome]:
        yield GOOD[0]
        raise error

    first, outcome = SafeEvaluator(Script(play), "host/0").evaluate(JOB)
    assert first == GOOD[0]
    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert (outcome.number, outcome.split, outcome.worker) == (4, "search", "host/0")
    assert outcome.failure.kind == kind
    assert str(error) in outcome.failure.message
    assert "in play" in outcome.failure.traceback


def test_what_went_well_passes_and_names_the_worker() -> None:
    results = list(SafeEvaluator(Script(lambda: iter(GOOD)), "host/0").evaluate(JOB))
    assert results[:2] == GOOD[:2]
    assert isinstance(results[2], Outcome)
    assert set(results[2].stages) == {"load"}
    assert replace(results[2], stages={}) == Outcome(4, "search", worker="host/0", seconds=1.5)


def test_a_task_may_be_answered_in_portions() -> None:
    parts = [replace(GOOD[0], responses=ADD[:1], left=1), replace(GOOD[0], responses=ADD[1:])]  # type: ignore[type-var]
    script = [parts[0], GOOD[1], parts[1], GOOD[2]]
    *passed, outcome = SafeEvaluator(Script(lambda: iter(script)), "host/0").evaluate(JOB)
    assert passed == script[:3]
    assert isinstance(outcome, Outcome)
    assert outcome.done


def test_portions_that_leave_items_out_or_repeat_them_are_held_against_the_candidate() -> None:
    first = Answers(4, "search", "add", ADD[:1], left=1)
    for wrong, message in [
        (first, r"expected answers to 0 of 1 items; missing \['y'\], not asked \['x'\]"),
        (replace(first, responses=ADD[1:], left=1), "expected answers to 0 of 1 items"),
        (GOOD[1], "ended well without answering add"),
    ]:
        *_, outcome = SafeEvaluator(Script(lambda wrong=wrong: iter([first, wrong, GOOD[2]])), "host/0").evaluate(JOB)  # type: ignore[misc]
        assert isinstance(outcome, Outcome)
        assert outcome.failure is not None
        assert outcome.failure.kind == "candidate"
        assert re.search(message, outcome.failure.message), outcome.failure.message


BAD = {
    "an item is missing": Answers(4, "search", "add", ADD[:1]),
    "an item was not asked": Answers(4, "search", "add", (*ADD, Response("add", "w", "acc", 1.0))),
    "an item comes twice": Answers(4, "search", "add", (*ADD, ADD[0])),
    "nan": Answers(4, "search", "sort", (Response("sort", "z", "acc", math.nan),)),
    "infinite": Answers(4, "search", "sort", (Response("sort", "z", "acc", math.inf),)),
    "another task": Answers(4, "search", "spell", ()),
    "another candidate": Answers(5, "search", "add", ADD),
    "another split": Answers(4, "holdout", "add", ADD),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_wrong_answers_are_held_against_the_candidate(bad: Answers) -> None:
    results = list(SafeEvaluator(Script(lambda: iter([bad, GOOD[2]])), "host/0").evaluate(JOB))
    assert len(results) == 1
    assert isinstance(results[0], Outcome)
    assert results[0].failure is not None
    assert results[0].failure.kind == "candidate"


def test_an_evaluator_that_falls_silent() -> None:
    *_, outcome = SafeEvaluator(Script(lambda: iter(GOOD[:2])), "host/0").evaluate(JOB)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert outcome.failure.message == "the evaluator ended without an outcome"


def test_nothing_passes_after_the_outcome() -> None:
    results = list(SafeEvaluator(Script(lambda: iter([GOOD[2], GOOD[0]])), "host/0").evaluate(JOB))
    assert [type(result) for result in results] == [Outcome]


def test_an_evaluator_is_built_once_and_again_only_if_that_failed() -> None:
    script = Script(lambda: iter(GOOD))
    evaluator = SafeEvaluator(script, "host/0")
    list(evaluator.evaluate(JOB))
    list(evaluator.evaluate(JOB))
    assert script.built == 1


def test_an_evaluator_that_cannot_be_built() -> None:
    class Broken:
        def build(self) -> Evaluator:
            raise WeightsError("checkpoint 'x' is truncated")

    (outcome,) = SafeEvaluator(Broken(), "host/0").evaluate(JOB)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.message) == ("configuration", "checkpoint 'x' is truncated")


def test_ctrl_c_is_not_a_failure() -> None:
    def play() -> Iterator[Answers | Outcome]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        list(SafeEvaluator(Script(play), "host/0").evaluate(JOB))


def test_long_tracebacks_keep_their_end() -> None:
    failure = failure_of(RuntimeError("x" * 50_000 + "the cause"))
    assert len(failure.traceback) == 20_000
    assert failure.traceback.endswith("the cause\n")
