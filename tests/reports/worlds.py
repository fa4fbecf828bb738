"""Finished synthetic runs with realistic spaces: the real loop, controllers and archive; only the model is made up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, evaluate, run_search
from evomerge.recipe import passthrough
from evomerge.run_config import BudgetConfig, ControllerConfig, ModelsConfig, RunConfig, TasksConfig
from evomerge.runs import evaluation_of, finalists
from evomerge.scoring import ItemPlan
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.space import build_space
from evomerge.workers import LocalPool

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&é 中"


def make_world(
    folder: Path,
    tasks: tuple[str, ...] = ("add", "sort"),
    models: tuple[str, ...] = ("math", "chat"),
    candidates: int = 60,
    *,
    layers: int = 8,
    blocks: int = 4,
    asked: int = 60,
    held: int = 80,
    controller: str = "nsga-ii",
    trouble: Mapping[int, Any] | None = None,
    seconds: float = 0.0,
) -> Path:
    """Search a TIES merge with blocks and modules over `models`; each task has its optimum near one corner."""
    merge = {
        "merge_method": "ties",
        "base_model": "org/base",
        "models": [{"model": f"org/{name}"} for name in models],
        "parameters": {
            "weight": {"search": [0.0, 1.2], "per": ["model", {"blocks": blocks}]},
            "density": {"search": [0.1, 1.0], "per": ["model"]},
            "lambda": 1.0,
        },
    }
    space = build_space(merge, layers=layers, modules={}, mask_seed=3)
    size = space.dimension
    shares = np.linspace(0.2, 0.8, len(tasks))
    shifts = [0.5 + 0.32 * np.cos(2 * np.pi * (share + np.arange(size) / size)) for share in shares]
    optima = {task: tuple(float(x) for x in shift) for task, shift in zip(tasks, shifts, strict=True)}
    names = ("base", *models)
    places = {name: tuple(0.12 + 0.76 * ((i + np.arange(size)) % 2)) for i, name in enumerate(names)}
    spec = SyntheticSpec(
        optima, parents=places, peak=1.6, steepness=10.0, troubles=trouble or {}, seconds=seconds, spread=0.4
    )
    objectives = tuple(Objective(task, task, "acc") for task in tasks)
    items = {task: tuple(f"{task}-{i}" for i in range(asked)) for task in tasks}
    kept = {task: tuple(f"{task}-held-{i}" for i in range(held)) for task in tasks} if held else {}
    revisions = {f"org/{name}": f"{i:040x}" for i, name in enumerate(names)}
    config = RunConfig(
        created="2026-11-21T00:00:00Z",
        search_path="search_spaces/world.yaml",
        search_text=f"merge:\n  merge_method: ties  # {models[0]}\n",
        seed=3,
        merge=merge,
        models=ModelsConfig(tuple(revisions), revisions, layers, depths={}, modules={}),
        objectives=objectives,
        tasks=TasksConfig((), {}, dict.fromkeys(tasks, "v1")),
        items=ItemPlan(items, kept),
        controller=ControllerConfig(controller),
        budget=BudgetConfig(candidates=candidates),
        versions={"evomerge": "0.1.0", "python": "3.11", "numpy": np.__version__},
    )
    parents = [Candidate(-1 - i, passthrough(f"org/{name}"), (), "parent", name) for i, name in enumerate(names)]
    pool = LocalPool(spec)
    with Archive.create(folder, config.to_json()) as archive:
        archive.put_parents(parents)
        engine = build(controller, SearchProblem(dimensions=size, seed=3, objectives=len(tasks)))
        fitness = lambda number, responses: evaluation_of(number, responses, objectives)  # noqa: E731
        run_search(archive, space, engine, pool, objectives, items, Budget(candidates), fitness)
        if kept:
            done = {c.number: c for c in archive.candidates() if (o := archive.outcome(c.number)) and o.done}
            found = {n: fitness(n, archive.responses("search", n)) for n in done if n >= 0}
            evaluate(archive, pool, [*parents, *(done[n] for n in finalists(found, objectives))], "holdout", kept)
        archive.put_event("ended")
    return folder
