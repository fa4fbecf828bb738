"""Finalists and parents on the held-out items: paired gains over the best parent, and search beside held-out scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.candidate import Evaluation, Objective, Response, Score
from evomerge.objectives import Objectives
from evomerge.runs._evaluations import evaluation_of
from evomerge.runs._run_data import RunData
from evomerge.scoring import Difference, gain_over_best, joint_gains

if TYPE_CHECKING:
    import pandas as pd

GENERALISATION_COLUMNS = (
    *("candidate", "name", "kind", "objective", "search", "search_stderr", "holdout", "holdout_stderr"),
)
MEAN = "mean"  # stands for the objective's name in the row of their mean


@dataclass(frozen=True)
class Final:
    """One model on the held-out items: its mean over the objectives, and its paired gain over the best parent."""

    number: int  # candidate; negative for a parent
    name: str
    score: Score  # mean fitness over the objectives, each weighing the same; the model's size is left out
    scores: Mapping[str, Score]  # objective -> score in the metric's units
    gain: Difference | None = None  # over the best parent; None for parents
    against: str = ""  # the best parent's name
    joint: Difference | None = None  # the same gain with an interval that holds for all finalists together
    in_points: bool = True  # every compared objective is a fraction of items; otherwise units differ
    averaged: tuple[str, ...] = ()  # objectives that `score` and the gains are means of


def finals_of(run: RunData) -> list[Final]:
    """Return finalists and parents of a run on the held-out items; see `compare_finals`."""
    plan, stands_in = run.config.items.holdout, run.config.items.stands_in
    with run.open_archive() as archive:
        models = sorted(archive.candidates(), key=lambda candidate: (candidate.number < 0, candidate.number))
        # a finalist may have failed, or the budget ended first
        done = [c for c in models if (outcome := archive.outcome(c.number, "holdout")) and outcome.done]
        responses = {c.number: archive.responses("holdout", c.number) for c in done} if plan else {}
    names = {c.number: f"parent {c.name}" if c.kind == "parent" else f"candidate {c.number}" for c in models}
    return compare_finals(responses, names, run.objectives, stands_in)


def compare_finals(
    responses: Mapping[int, Sequence[Response]],
    names: Mapping[int, str],
    objectives: Sequence[Objective],
    stands_in: Mapping[str, str],
) -> list[Final]:
    """Return parents, then finalists, each group from the best down; [] where nothing was scored on held-out items.

    Each finalist is compared with the parent that did best on the same items, which favours the parent, so a gain
    is underestimated if anything (see `gain_over_best`). The first finalist is the best one by *search* items: which
    one is reported as the winner was decided without the held-out items. Its own interval (`gain`) therefore needs no
    correction; a choice among the finalists by these scores needs the wider one (`joint`).

    Args:
        responses: number -> responses of a model that answered all held-out items.
        names: number -> what to call it.
        objectives: what is compared; sizes of the model are exact and are left to the reader, where there is more.
        stands_in: objective's task -> the task of its held-out items.
    """
    parents = {number: rows for number, rows in responses.items() if number < 0}
    finals = []
    others = {names[parent]: answers for parent, answers in parents.items()}  # the same parents for every finalist
    candidates = {names[number]: rows for number, rows in responses.items() if number >= 0 and parents}
    compared = Objectives(objectives).scores()
    # simultaneous intervals need all finalists at once
    joint = joint_gains(candidates, others, compared, stands_in=stands_in)
    names_of = tuple(objective.name for objective in compared)
    in_points = all(objective.kind == "task" for objective in compared)
    for number, rows in responses.items():
        scores = evaluation_of(number, rows, objectives, stands_in).scores
        gain, against = None, ""
        if number >= 0 and parents:  # parents are the yardstick and have no gain
            against, gain = gain_over_best(rows, others, compared, stands_in=stands_in)
        together = joint.get(names[number]) if number >= 0 else None
        mean = mean_score(scores, compared)
        finals.append(Final(number, names[number], mean, scores, gain, against, together, in_points, names_of))
    # False sorts first: parents
    return sorted(finals, key=lambda final: (final.number >= 0, -final.score.value, final.number))


def mean_score(scores: Mapping[str, Score], objectives: Sequence[Objective]) -> Score:
    """Return the mean fitness over objectives, whose errors are taken as independent: their items differ."""
    count = len(objectives)
    value = sum(objective.fitness(scores[objective.name].value) for objective in objectives) / count
    # standard error of a mean of independent terms
    stderr = math.sqrt(sum(scores[objective.name].stderr ** 2 for objective in objectives)) / count
    return Score(value, stderr, sum(scores[objective.name].items for objective in objectives))


def generalisation_frame(
    finals: Sequence[Final], searched: Mapping[int, Evaluation], objectives: Sequence[Objective]
) -> pd.DataFrame:
    """Return one row per finalist or parent and objective, then one for the mean over objectives.

    Args:
        finals: scores on held-out items.
        searched: number -> evaluation on search items, parents included.
        objectives: what is wanted. The mean is of fitness (higher is better), and missing where units differ.
    """
    import pandas as pd

    rows = []
    for final in finals:
        before = searched.get(final.number)
        if before is None or before.failure is not None:  # without a search score there is nothing to set beside
            continue
        kind = "parent" if final.number < 0 else "candidate"
        for objective in objectives:
            pair = (before.scores[objective.name], final.scores[objective.name])
            rows.append((final.number, final.name, kind, objective.name, *_cells(pair)))
        if len(Objectives(objectives).scores()) > 1 and final.in_points:  # different units have no mean
            pair = (mean_score(before.scores, Objectives(objectives).scores()), final.score)
            rows.append((final.number, final.name, kind, MEAN, *_cells(pair)))
    return pd.DataFrame(rows, columns=list(GENERALISATION_COLUMNS))


def _cells(pair: tuple[Score, Score]) -> tuple[float, float, float, float]:
    return pair[0].value, pair[0].stderr, pair[1].value, pair[1].stderr
