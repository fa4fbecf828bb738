"""A finished run whose objectives have nothing in common: a task, a function's one number, and the model's depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Answers, Candidate, Objective, Outcome, Response, Split
from evomerge.recipe import passthrough
from evomerge.runs import Run, open_run
from evomerge.scoring import ItemPlan
from evomerge.space import build_space
from tests.commands.made import HELD, ITEMS, MERGE, PARENTS, config

TASK = Objective("left", "left", "acc")
POISE = Objective("poise", "poise", "score", kind="python")
LAYERS = Objective("layers", "layers", "layers", goal="minimize", weight=0.0, kind="layers")
# number -> share of items right, poise, layers; parents are negative
MODELS = {
    **{-1: (0.30, 0.10, 24.0), -2: (0.60, 0.20, 24.0), -3: (0.40, 0.30, 24.0)},
    **{0: (0.90, 0.90, 24.0), 1: (0.10, 0.05, 6.0), 2: (0.70, 0.50, 12.0), 3: (0.80, 0.60, 20.0)},
}


def mixed_run(folder: Path, objectives: Sequence[Objective] = (TASK, POISE, LAYERS)) -> Run:
    """Write a run in which candidate 0 is best in the task, and candidate 1 is bad but shallow."""
    space = build_space(MERGE, layers=4, modules={}, mask_seed=3)
    points = {n: (0.2 + 0.15 * n, 0.8 - 0.1 * n) for n in MODELS if n >= 0}
    made = config(4, objectives=tuple(objectives), items=ItemPlan(_plan(ITEMS), _plan(HELD)))
    with Archive.create(folder, made.to_json()) as archive:
        names = list(PARENTS)
        archive.put_parents(
            [Candidate(n, passthrough(f"org/{names[-1 - n]}"), (), "parent", names[-1 - n]) for n in (-1, -2, -3)]
        )
        searched = [Candidate(n, space.decode(np.array(point)), point) for n, point in points.items()]
        archive.put_asked(searched, len(searched))
        for number in MODELS:
            _answer(archive, number, "search", _plan(ITEMS), objectives)
            if number >= 0:
                archive.put_observed(number, tuple(_fitness(number, objectives)))
        for number in (-1, -2, -3, 0, 2, 3):
            _answer(archive, number, "holdout", _plan(HELD), objectives)
        archive.put_event("ended")
    return open_run(folder)


def _plan(items: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {"left": items["left"], "poise": ("poise",), "layers": ("layers",)}


def _answer(
    archive: Archive,
    number: int,
    split: Split,
    plan: Mapping[str, tuple[str, ...]],
    objectives: Sequence[Objective],
) -> None:
    share, poise, layers = MODELS[number]
    items = plan["left"]
    right = [Response("left", item, "acc", float(place < share * len(items))) for place, item in enumerate(items)]
    all_answers = {
        "left": right,
        "poise": [Response("poise", "poise", "score", poise), Response("poise", "poise", "whole", 1.0)],
        "layers": [Response("layers", "layers", "layers", layers)],
    }
    for objective in objectives:
        archive.put_answers(Answers(number, split, objective.task, tuple(all_answers[objective.task])))
    archive.put_outcome(Outcome(number, split, None, "here", 1.0))


def _fitness(number: int, objectives: Sequence[Objective]) -> list[float]:
    values = dict(zip(("left", "poise", "layers"), MODELS[number], strict=True))
    return [objective.fitness(values[objective.name]) for objective in objectives]
