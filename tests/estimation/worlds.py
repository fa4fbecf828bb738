"""A run that estimates, over the synthetic scorer: everything is real but the model that answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Job, Objective
from evomerge.commands import Reporter
from evomerge.commands import _run_search as session
from evomerge.commands._prepare import Preparation
from evomerge.commands._search_options import Execution
from evomerge.recipe import passthrough
from evomerge.run_config import ControllerConfig, EstimationConfig
from evomerge.scoring import ItemPlan
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.space import build_space
from tests.commands.made import MERGE, OPTIMA, PARENTS, config
from tests.workers.fakes import ShuffledPool

TASKS = ("left", "right")
OBJECTIVES = tuple(Objective(task, task, "acc") for task in TASKS)
ITEMS = {task: tuple(f"{task}-{i}" for i in range(60)) for task in TASKS}
HELD = {task: tuple(f"{task}-held-{i}" for i in range(20)) for task in TASKS}
HASHES = {task: {item: (f"hash of {item}",) for item in items} for task, items in ITEMS.items()}


@dataclass(frozen=True)
class Spec(SyntheticSpec):
    """The synthetic scorer, which has no models."""

    models: tuple[str, ...] = ()


def prepared(
    *, estimator: str = "auto", candidates: int = 24, items: int = 8, full_every: int | None = 6, **changes: Any
) -> Preparation:
    anchors, banks = changes.pop("anchors", "pinned"), changes.pop("banks", {})
    known = config(
        candidates,
        controller=ControllerConfig("cma-es", {"population": changes.pop("population", 6)}),
        estimation=EstimationConfig(estimator, items, anchors, full_every, banks),
        item_hashes=HASHES,
        items=ItemPlan(ITEMS, HELD),
        objectives=changes.pop("objectives", OBJECTIVES),
    )
    parents = tuple(Candidate(-1 - i, passthrough(f"org/{n}"), (), "parent", n) for i, n in enumerate(PARENTS))
    spec = Spec(OPTIMA, parents=PARENTS, **changes)
    space = build_space(MERGE, layers=4, modules={}, mask_seed=3)
    return Preparation(known, space, parents, spec)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Shuffled(Execution):
    """Several workers whose results arrive in a random, repeatable order."""

    def pool(self, spec: Any, folder: Path | None = None) -> Any:
        return ShuffledPool(spec, 5, 1)


def search(
    folder: Path,
    preparation: Preparation,
    watch: Callable[[str], None] | None = None,
    execution: Execution = Execution(),  # noqa: B008  a frozen value
) -> None:
    """Start the run in `folder`, or go on with it."""
    if Archive.exists(folder):
        archive = Archive.open(folder, read_only=False, watch=watch)
    else:
        archive = Archive.create(folder, preparation.config.to_json(), watch=watch)
    with closing(archive):
        if not archive.count("parent"):
            archive.put_parents(preparation.parents)
        candidates = preparation.config.budget.candidates
        if candidates != archive.config_json["budget"]["candidates"]:
            archive.put_event("resumed", None, {"candidates": candidates})
        session._drive(archive, preparation, session._controller(preparation), execution, Reporter())


def decisions(folder: Path) -> dict[str, Any]:
    """Everything that was decided on the strength of estimates."""
    with closing(Archive.open(folder)) as archive:
        return {
            "anchors": [event.payload for event in archive.events("anchors")],
            "observed": [(event.candidate, event.payload["fitness"]) for event in archive.events("observed")],
            "estimated": [(event.candidate, event.payload) for event in archive.events("estimated")],
            "asked": {c.number: archive.answered("search", c.number) for c in archive.candidates()},
            "search_rest": {c.number: archive.answered("search_rest", c.number) for c in archive.candidates()},
        }


def notes(folder: Path) -> list[str]:
    with closing(Archive.open(folder)) as archive:
        return [event.payload["text"] for event in archive.events("note")]


def truth(preparation: Preparation, candidate: Candidate, task: str) -> float:
    """What the candidate scores over all search items of a task."""
    job = Job(candidate, "search", {task: ITEMS[task]})
    answers = next(iter(preparation.spec.build().evaluate(job)))
    return float(np.mean([response.value for response in answers.responses]))  # type: ignore[union-attr]
