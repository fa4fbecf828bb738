"""Finalists and parents on the held-out items, compared item by item: pure functions of the stored responses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.candidate import Objective, Response, Score
from evomerge.results.evaluations import comparable, evaluation_of
from evomerge.scoring.comparison import Difference, gain_over_best, joint_gains


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
    in_points: bool = True  # all that is compared are shares of items; otherwise each has a unit of its own
    averaged: tuple[str, ...] = ()  # objectives that `score` and the gains are means of


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
    correction; whoever picks among the finalists by what is shown here needs the wider one (`joint`).

    Args:
        responses: number -> responses of a model that answered all held-out items.
        names: number -> what to call it.
        objectives: what is compared; sizes of the model are exact and are left to the reader, where there is more.
        stands_in: objective's task -> the task of its held-out items.
    """
    parents = {number: rows for number, rows in responses.items() if number < 0}
    finals = []
    others = {names[parent]: answers for parent, answers in parents.items()}
    candidates = {names[number]: rows for number, rows in responses.items() if number >= 0 and parents}
    compared = comparable(objectives)
    joint = joint_gains(candidates, others, compared, stands_in=stands_in)
    names_of = tuple(objective.name for objective in compared)
    in_points = all(objective.kind == "task" for objective in compared)
    for number, rows in responses.items():
        scores = evaluation_of(number, rows, objectives, stands_in).scores
        gain, against = None, ""
        if number >= 0 and parents:
            against, gain = gain_over_best(rows, others, compared, stands_in=stands_in)
        together = joint.get(names[number]) if number >= 0 else None
        mean = mean_score(scores, compared)
        finals.append(Final(number, names[number], mean, scores, gain, against, together, in_points, names_of))
    return sorted(finals, key=lambda final: (final.number >= 0, -final.score.value, final.number))


def mean_score(scores: Mapping[str, Score], objectives: Sequence[Objective]) -> Score:
    """Return the mean fitness over objectives, whose errors are taken as independent: their items differ."""
    count = len(objectives)
    value = sum(objective.fitness(scores[objective.name].value) for objective in objectives) / count
    stderr = math.sqrt(sum(scores[objective.name].stderr ** 2 for objective in objectives)) / count
    return Score(value, stderr, sum(scores[objective.name].items for objective in objectives))
