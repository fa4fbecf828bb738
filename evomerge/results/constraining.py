"""What a search file's constraints mean in a run: bounds on fitness, read once the parents have scores.

'safety >= base - 1 point' is a number as soon as the base has answered; until then nothing is known to meet it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.candidate import Candidate, Evaluation, Objective
from evomerge.errors import InputError
from evomerge.pareto.constraints import Bounds
from evomerge.results.conditions import Condition, read_conditions, require_some
from evomerge.results.evaluations import fitness_table


def parent_scores(parents: Sequence[Candidate], evaluations: Mapping[int, Evaluation]) -> dict[str, dict[str, float]]:
    """Return parent -> objective -> score in the metric's units, the base first; what failed is left out."""
    return {
        person.name: {name: score.value for name, score in evaluations[person.number].scores.items()}
        for person in parents
        if person.number in evaluations and evaluations[person.number].failure is None
    }


def constraint_problems(
    texts: Sequence[str], objectives: Sequence[Objective], parents: Sequence[str]
) -> list[tuple[int, str]]:
    """Return what is wrong with constraints that can be known before anybody has scores: place and message.

    Args:
        texts: as written.
        objectives: of the search.
        parents: names, the base first.
    """
    middle = {name: {objective.name: 0.5 for objective in objectives} for name in parents}
    found = []
    for place, text in enumerate(texts):
        try:
            read_conditions([text], objectives, middle)
        except InputError as error:
            found.append((place, str(error).replace("condition", "constraint", 1)))
    return found


def bounds_of(conditions: Sequence[Condition], objectives: Sequence[Objective]) -> Bounds:
    """Return conditions as bounds on fitness; of several on one objective the tightest counts."""
    low, high = [-np.inf] * len(objectives), [np.inf] * len(objectives)
    for one in conditions:
        objective = objectives[one.place]
        bound = objective.fitness(one.bound)
        if one.at_least == (objective.fitness(1.0) > 0):
            low[one.place] = max(low[one.place], bound)
        else:
            high[one.place] = min(high[one.place], bound)
    return Bounds(tuple(map(float, low)), tuple(map(float, high)))


def feasible(
    evaluations: Mapping[int, Evaluation], conditions: Sequence[Condition], objectives: tuple[Objective, ...]
) -> dict[int, Evaluation]:
    """Return the evaluations whose scores meet all conditions; all of them where there is no condition."""
    if not conditions:
        return dict(evaluations)
    bounds = bounds_of(conditions, objectives)
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    met = bounds.met(fitness) if len(numbers) else np.zeros(0, dtype=bool)
    return {number: evaluations[number] for number, kept in zip(numbers, met, strict=True) if kept}


def infeasible_text(
    evaluations: Mapping[int, Evaluation], conditions: Sequence[Condition], objectives: tuple[Objective, ...]
) -> str | None:
    """Return why no candidate meets the constraints; None where one does, or where none has scores."""
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    if not numbers or not conditions or feasible(evaluations, conditions, objectives):
        return None
    signs = np.array([objective.fitness(1.0) for objective in objectives])
    try:
        require_some(np.zeros(len(numbers), dtype=bool), fitness * signs, conditions, objectives)
    except InputError as error:
        return str(error).replace("all conditions", "all constraints")
    return None
