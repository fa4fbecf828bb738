"""A finished run made by the real loop on the synthetic scorer, with a complete configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, evaluate, run_search
from evomerge.recipe import passthrough
from evomerge.run_config import BudgetConfig, ControllerConfig, ModelsConfig, RunConfig, TasksConfig
from evomerge.runs import evaluation_of
from evomerge.scoring import ItemPlan
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.space import build_space
from evomerge.workers import LocalPool

MERGE = {
    "merge_method": "task_arithmetic",
    "base_model": "org/base",
    "models": [{"model": "org/left"}, {"model": "org/right"}],
    "parameters": {"weight": {"search": [0.0, 1.0], "per": ["model"]}},
}
OBJECTIVES = (Objective("left", "left", "acc"), Objective("right", "right", "acc"))
ITEMS = {task: tuple(f"{task}-{i}" for i in range(40)) for task in ("left", "right")}
HELD = {task: tuple(f"{task}-held-{i}" for i in range(60)) for task in ("left", "right")}
OPTIMA = {"left": (0.9, 0.1), "right": (0.1, 0.9)}
PARENTS = {"base": (0.0, 0.0), "left": (1.0, 0.0), "right": (0.0, 1.0)}


def config(candidates: int, **changes: Any) -> RunConfig:
    """Return the configuration of a Sobol search over two models; `changes` replace its fields."""
    names = tuple(f"org/{name}" for name in PARENTS)
    made = RunConfig(
        created="2026-01-01T00:00:00Z",
        search_path="made.yaml",
        search_text="",
        seed=3,
        merge=MERGE,
        models=ModelsConfig(names, revisions={}, layers=4, depths={}, modules={}),
        objectives=OBJECTIVES,
        tasks=TasksConfig((), {}, {}),
        items=ItemPlan(ITEMS, HELD),
        controller=ControllerConfig("sobol"),
        budget=BudgetConfig(candidates=candidates),
        versions={"evomerge": "0"},
    )
    return replace(made, **changes)


def make_run(folder: Path, candidates: int = 16, constraints: Sequence[str] = (), **scorer: Any) -> Path:
    """Search `candidates` Sobol points and score the held-out items of parents and the first two candidates."""
    space = build_space(MERGE, layers=4, modules={}, mask_seed=3)
    parents = [Candidate(-1 - i, passthrough(f"org/{name}"), (), "parent", name) for i, name in enumerate(PARENTS)]
    pool = LocalPool(SyntheticSpec(OPTIMA, parents=PARENTS, **scorer))
    with Archive.create(folder, config(candidates, constraints=tuple(constraints)).to_json()) as archive:
        archive.put_parents(parents)
        controller = build("sobol", SearchProblem(dimensions=2, seed=3, objectives=2))
        fitness = lambda number, responses: evaluation_of(number, responses, OBJECTIVES)  # noqa: E731
        run_search(archive, space, controller, pool, OBJECTIVES, ITEMS, Budget(candidates), fitness)
        done = [c for c in archive.candidates() if (o := archive.outcome(c.number)) and o.done]
        evaluate(archive, pool, done[: len(parents) + 2], "holdout", HELD)
        archive.put_event("ended")
    return folder
