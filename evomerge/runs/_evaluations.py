"""Scores, front and selection of candidates from stored responses: pure functions of the archive's rows.

Responses are stored, fitness is not: everything here is computed anew from responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evomerge.archive import Event
from evomerge.candidate import Evaluation, Objective, Response
from evomerge.errors import InputError, near
from evomerge.objectives import Objectives
from evomerge.pareto import choose_by_preference, knee, non_dominated
from evomerge.scoring import estimate

BEST_FINALISTS = 5  # this many candidates of highest overall fitness get held-out items


def fitness_table(
    evaluations: Mapping[int, Evaluation], objectives: tuple[Objective, ...]
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the candidates that have a fitness, with their fitness and standard errors.

    Where candidates raced, only those that answered all items count: the others were behind when they were stopped,
    and a lucky score on few items must not make one of them the best.

    Returns:
        Candidate numbers in ascending order, fitness (n, m), standard errors (n, m); higher is better.
    """
    rows = {
        number: None if evaluation.partial else evaluation.fitness(objectives)
        for number, evaluation in sorted(evaluations.items())
    }
    numbers = [number for number, row in rows.items() if row is not None]
    errors = [[evaluations[number].scores[o.name].stderr for o in objectives] for number in numbers]
    shape = (len(numbers), len(objectives))
    fitness = np.array([rows[number] for number in numbers], dtype=float).reshape(shape)  # (n, m) also for n = 0
    return numbers, fitness, np.array(errors, dtype=float).reshape(shape)


def answered_everything(observed: Iterable[Event]) -> set[int]:
    """Return the candidates of a race that answered all items, by the standard errors that the controller observed."""
    return {
        event.candidate
        for event in observed
        # errors of 0: all items, nothing sampled
        if event.candidate is not None and not any(event.payload.get("stderr") or (1.0,))
    }


def best_number(evaluations: Mapping[int, Evaluation], objectives: tuple[Objective, ...]) -> int | None:
    """Return the candidate of highest weighted mean fitness (the earlier one on a tie), or None where none has any."""
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    if not numbers:
        return None
    return numbers[int(np.argmax([Objectives(objectives).scalarise(row) for row in fitness]))]


def front_numbers(evaluations: Mapping[int, Evaluation], objectives: tuple[Objective, ...]) -> list[int]:
    """Return the candidates that no other dominates, the first of several equal ones, best overall first."""
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    if not numbers:
        return []
    kept = np.flatnonzero(non_dominated(fitness, duplicates=False))  # (f,) indices
    return [numbers[i] for i in sorted(kept, key=lambda i: (-Objectives(objectives).scalarise(fitness[i]), numbers[i]))]


def pick_number(pick: str, evaluations: Mapping[int, Evaluation], objectives: tuple[Objective, ...]) -> int:
    """Return the candidate that `pick` names: best, knee, a number, or a preference such as 'add=2,sort=1'.

    A preference chooses on the measured front, by the augmented Tchebycheff distance to the ideal point; objectives
    that are not named weigh nothing.

    Raises:
        InputError: no candidate has scores yet, or the pick names nothing that exists.
    """
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    text = pick.strip()
    if text.lstrip("-").isdigit():  # a leading minus names a parent
        if int(text) not in evaluations:
            raise InputError(f"--pick {text}: no such candidate; see: evomerge trials")
        if (failure := evaluations[int(text)].failure) is not None:
            raise InputError(f"--pick {text}: that candidate failed ({failure.message}); pick another one")
        return int(text)
    if not numbers:
        raise InputError("no candidate has scores yet, so there is nothing to pick")
    if text == "best":
        return numbers[int(np.argmax([Objectives(objectives).scalarise(row) for row in fitness]))]
    if text == "knee":
        return numbers[knee(fitness)]
    return numbers[choose_by_preference(fitness, preference_of(text, objectives))]


def reference_point(parents: Mapping[int, Evaluation], objectives: tuple[Objective, ...]) -> dict[str, float]:
    """Return the hypervolume's reference: per objective the worst parent's score, in the metric's own units.

    It is fixed by the parents, so that hypervolumes of one run can be compared over time. Without parents it is 0.
    """
    _, fitness, _ = fitness_table(parents, objectives)
    worst = fitness.min(axis=0) if len(fitness) else np.zeros(len(objectives))  # (m,)
    return {objective.name: objective.fitness(float(value)) for objective, value in zip(objectives, worst, strict=True)}


def preference_of(text: str, objectives: Sequence[Objective], option: str = "--pick") -> list[float]:
    """Return one weight per objective from a text such as 'add=2,sort=1'; objectives not named weigh nothing.

    Raises:
        InputError: the text is no preference, or names no objective; `option` is what the message calls it.
    """
    names = [objective.name for objective in objectives]
    weights = dict.fromkeys(names, 0.0)  # objectives that the text leaves out do not count
    also = "best, knee, a candidate's number, or " if option == "--pick" else ""
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if not separator:
            raise InputError(f"{option} {text!r}: expected {also}weights as in 'add=2,sort=1'")
        if name.strip() not in weights:
            raise InputError(f"{option} {text!r}: unknown objective {name.strip()!r}. {near(name.strip(), names)}")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise InputError(
                f"{option} {text!r}: the weight of {name.strip()!r} must be a number, got {value!r}"
            ) from None
    return [weights[name] for name in names]


def evaluation_of(
    number: int,
    responses: Sequence[Response],
    objectives: Sequence[Objective],
    stands_in: Mapping[str, str] | None = None,
) -> Evaluation:
    """Return the scores of one model from its responses: per objective the mean over items, with its standard error.

    Args:
        number: of the candidate.
        responses: all of them; those of metrics that are no objective are passed over.
        objectives: what is wanted.
        stands_in: objective's task -> the task of its held-out items, see `ItemPlan`.
    """
    tasks = stands_in or {}
    return Evaluation(number, {o.name: estimate(responses, o, task=tasks.get(o.task)) for o in objectives})


def finalists(
    evaluations: Mapping[int, Evaluation], objectives: tuple[Objective, ...], most: int = BEST_FINALISTS
) -> list[int]:
    """Return the candidates worth held-out items: the best overall and the front's knee, the best first.

    Chosen on search items alone. Few, because the expected maximum of noisy scores grows with every further finalist.
    """
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    if not numbers:
        return []
    ranked = [  # stable sort: ties keep the order of proposals
        numbers[i] for i in np.argsort([-Objectives(objectives).scalarise(row) for row in fitness], kind="stable")
    ]
    return list(dict.fromkeys([*ranked[:most], numbers[knee(fitness)]]))  # the knee is often among the best already
