"""A worker that is given routes: the answers of each on its own, with what they shared told beside the seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.candidate import Answers, Candidate, Job, Outcome
from evomerge.recipe import Recipe, Source
from evomerge.scoring import TaskSet, TaskSettings
from evomerge.workers import WorkerSpec
from evomerge.workers._metrics import add_totals
from evomerge.workers._worker import Worker

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = tuple(str(EXAMPLES / "experts" / name) for name in ("add", "sort"))
TASKS = ("add", "sort")


def evaluate(worker: Worker, number: int, recipe: Recipe, items: Any) -> tuple[dict[Any, Any], Outcome]:
    values: dict[Any, Any] = {}
    for part in worker.evaluate(Job(Candidate(number, recipe), "search", items)):
        if isinstance(part, Outcome):
            return values, part
        assert isinstance(part, Answers)
        values |= {(r.task, r.item, r.metric): (r.value, r.answer) for r in part.responses}
    raise AssertionError("no outcome")


def test_routes_share_their_first_layers_and_say_how_much(tmp_path: Path) -> None:
    settings = TaskSettings(include=(str(EXAMPLES / "tasks"),))
    tasks = TaskSet.load(TASKS, settings)
    items = {task: tuple(document.id for document in tasks.documents(task)[:6]) for task in TASKS}
    stack = [(MODELS[0], layer, 1.0) for layer in range(8)]
    routes = [stack, [*stack[:7], (MODELS[1], 7, 1.0)], [*stack[:6], stack[6], *stack[6:]]]
    shared = WorkerSpec(MODELS, TASKS, settings, share_bytes=2**28, cache=str(tmp_path)).build()
    alone = WorkerSpec(MODELS, TASKS, settings, share_bytes=0).build()
    totals: dict[str, float] = {}
    seen = set()
    for number, route in enumerate(routes):
        recipe = Recipe("passthrough", tuple(Source(model) for model in MODELS), route=tuple(route))
        (ours, outcome), (plain, other) = (evaluate(worker, number, recipe, items) for worker in (shared, alone))
        assert ours == plain
        assert outcome.fingerprint == other.fingerprint
        run, saved = outcome.layer_evaluations
        assert other.layer_evaluations == (run + saved, 0)
        assert (saved > 0.5 * run) if number else (saved == 0)
        stages = {"merge", "prefill.add", "score.add", "prefill.sort", "decode.sort", "score.sort"}
        assert set(outcome.timed) - stages == set()
        add_totals([outcome], totals)
        seen.add(tuple(ours.values()))
    # counts are no seconds, and the cache of answers takes no route for another
    stages = {f"stage_seconds/{stage}" for stage in ("merge", "prefill", "decode", "score")}
    assert set(totals) == {"candidates_done", *stages}
    assert len(seen) > 1
