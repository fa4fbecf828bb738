"""A worker that is stopped in the middle of a task, and another one that goes on: the answers of one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.candidate import Answers, Candidate, Job, Outcome
from evomerge.recipe import Recipe, Source
from evomerge.scoring import ModelScorer, SanityChecks, TaskSet, TaskSettings
from evomerge.workers import WorkerSpec
from evomerge.workers._retry import JobAttempt
from evomerge.workers._runner import SafeEvaluator
from evomerge.workers._worker import Worker

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = tuple(str(EXAMPLES / "experts" / name) for name in ("base", "add", "sort"))
TASKS = ("add", "sort")


@pytest.fixture(scope="module")
def spec() -> WorkerSpec:
    settings = TaskSettings(include=(str(EXAMPLES / "tasks"),))
    return WorkerSpec(MODELS, TASKS, settings, batch_size=8, portion_seconds=0.0, sanity_checks=SanityChecks())


@pytest.fixture(scope="module")
def job(spec: WorkerSpec) -> Job:
    tasks = TaskSet.load(TASKS, spec.task_settings)
    items = {task: tuple(document.id for document in tasks.documents(task)[:60]) for task in TASKS}
    weights = tuple(Source(model, (("weight", 0.6),)) for model in MODELS[1:])
    return Job(Candidate(0, Recipe("task_arithmetic", weights, base=MODELS[0])), "search", items)


def responses(results: list[Answers | Outcome]) -> dict[object, object]:
    found = {}
    for result in results:
        for response in result.responses if isinstance(result, Answers) else ():
            key = (response.task, response.item, response.metric)
            assert key not in found
            found[key] = (response.value, response.answer)
    return found


def test_the_next_worker_answers_the_rest_as_the_first_one_would_have(
    spec: WorkerSpec, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right and wrong seldom show by which batches they were found; so the batches are looked at, too."""
    batches: list[tuple[str, ...]] = []
    plain = ModelScorer.output_portions

    def noting(self: ModelScorer, task: str, items: tuple[str, ...], together: tuple[str, ...] = ()) -> object:
        batches.append(tuple(together or items))
        return plain(self, task, items, together)

    monkeypatch.setattr(ModelScorer, "output_portions", noting)
    worker: Worker = spec.build()
    whole = list(worker.evaluate(job))
    outcome = whole[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.stages["prefill.add"] > 0
    assert outcome.stages["decode.sort"] > 0
    assert sum(outcome.timed.values()) <= outcome.seconds
    assert len(whole) > 6, "several portions per task"
    for stop in (1, len(whole) - 3):  # within the first task, and within the second
        attempt, given = JobAttempt(job), list[Answers | Outcome]()
        for result in whole[:stop]:
            assert isinstance(result, Answers)
            fresh = attempt.add_answers(result)
            assert fresh == result
            given.append(fresh)
        batches.clear()
        rest = list(SafeEvaluator(spec, "another/0").evaluate(attempt.job))
        ended = rest[-1]
        assert isinstance(ended, Outcome)
        assert ended.done
        assert ended.fingerprint == outcome.fingerprint
        assert set(batches) <= {job.items[task] for task in TASKS} | {job.items["sort"][: SanityChecks().probes]}
        assert responses([*given, *rest]) == responses(whole)
