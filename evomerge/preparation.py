"""From a search file to everything that a run fixes before its first candidate: the facts of the archive.

The facts alone rebuild the space, the objectives and the workers, so a run folder can be resumed, replayed and read
without the search file, and its numbers mean the same thing later.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

from evomerge import __version__
from evomerge.candidate import Candidate, Objective
from evomerge.errors import InputError, RunError, SearchFileError
from evomerge.pool.worker import WorkerSpec
from evomerge.recipe import passthrough
from evomerge.scoring.harness import TaskSet
from evomerge.scoring.items import ItemPlan, split
from evomerge.scoring.settings import TaskSettings
from evomerge.searchfile import SearchFile
from evomerge.space import SearchSpace, build_space
from evomerge.weights.layout import compare_layouts, read_layout
from evomerge.weights.reference import revision_of, short_name

Note = Callable[[str], None]

# Versions that can change a number; kept with the run so that a difference can be explained.
RECORDED_PACKAGES = ("torch", "transformers", "lm-eval", "cma", "optuna", "ray", "numpy", "scipy")


@dataclass(frozen=True)
class Preparation:
    """What a run is made of, rebuilt from its facts."""

    facts: Mapping[str, Any]
    space: SearchSpace
    objectives: tuple[Objective, ...]
    plan: ItemPlan
    parents: tuple[Candidate, ...]
    spec: WorkerSpec


def prepare(search_file: SearchFile, note: Note = lambda text: None) -> Preparation:
    """Return the preparation of a new run: models' headers, tasks and items are read, no weights are loaded.

    Raises:
        SearchFileError: the models do not fit each other, or a task, metric or item count is wrong; all at once.
    """
    note("reading model headers")
    space = build_space(search_file.merge, layers=1, modules={}) if False else None
    references = _references(search_file)
    layouts = {name: read_layout(name) for name in references}
    first = references[0]
    problems = compare_layouts(layouts[first], {name: layouts[name] for name in references[1:]})
    settings = TaskSettings(search_file.include, search_file.scoring.lm_eval)
    note("preparing tasks")
    tasks, objectives, plan, found = _tasks(search_file, settings)
    if problems or found:
        raise SearchFileError(search_file.path, [*problems, *found])
    note("naming model revisions")
    revisions = {name: revision_of(name) for name in references}
    facts = {
        "evomerge": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "search_path": search_file.path,
        "search_text": search_file.text,
        "merge": search_file.merge,
        "models": list(references),
        "base": first,
        "layers": layouts[first].layers,
        "modules": {name: list(parts) for name, parts in layouts[first].modules.items()},
        "revisions": revisions,
        "seed": search_file.seed,
        "mask_seed": search_file.seed,
        "objectives": [asdict(objective) for objective in objectives],
        "tasks": {
            "names": list(plan.search),
            "include": list(search_file.include),
            "lm_eval": dict(search_file.scoring.lm_eval),
            "versions": {name: tasks.version(name) for name in {**plan.search, **plan.holdout}} if tasks else {},
        },
        "items": {"search": plan.search, "holdout": plan.holdout, "stands_in": plan.stands_in},
        "controller": {
            "name": search_file.controller.name,
            "population": search_file.controller.population,
            "options": dict(search_file.controller.options),
        },
        "budget": {"candidates": search_file.budget.candidates, "hours": search_file.budget.hours},
        "batch_size": search_file.scoring.batch_size,
        "versions": _versions(),
    }
    del space
    return from_facts(facts)


def from_facts(facts: Mapping[str, Any]) -> Preparation:
    """Return the preparation that stored facts describe; reads no file."""
    space = build_space(
        facts["merge"],
        layers=facts["layers"],
        modules={name: tuple(parts) for name, parts in facts["modules"].items()},
        mask_seed=facts["mask_seed"],
        revisions=facts["revisions"],
    )
    items = facts["items"]
    plan = ItemPlan(
        {task: tuple(ids) for task, ids in items["search"].items()},
        {task: tuple(ids) for task, ids in items["holdout"].items()},
        dict(items["stands_in"]),
    )
    asked = {task: (*plan.search.get(task, ()), *plan.holdout.get(task, ())) for task in {**plan.search, **plan.holdout}}
    spec = WorkerSpec(
        models=tuple(facts["models"]),
        base=facts["base"],
        tasks=tuple(asked),
        task_settings=TaskSettings(tuple(facts["tasks"]["include"]), facts["tasks"]["lm_eval"]),
        items=asked,
        revisions=facts["revisions"],
        batch_size=facts["batch_size"],
    )
    parents = tuple(
        Candidate(-1 - place, passthrough(name).with_revisions(facts["revisions"]), (), "parent", short_name(name))
        for place, name in enumerate(facts["models"])
    )
    objectives = tuple(Objective(**entry) for entry in facts["objectives"])
    return Preparation(facts, space, objectives, plan, parents, spec)
