"""Sets up the controller of a search: resolves `auto`, reads the warm start, compares the models' task vectors.

All of it goes into the run's configuration, so that a resumed search builds the same controller without reading
anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import FILE_NAME
from evomerge.candidate import Objective
from evomerge.config import ControllerRequest, load_recipe
from evomerge.controllers import (
    AUTO,
    SearchProblem,
    WarmStartPoint,
    auto_options,
    choose,
    controller_info,
    model_weights_in,
    models_with_weights,
)
from evomerge.errors import EvomergeError, InputError
from evomerge.objectives import Objectives
from evomerge.pareto import Bounds
from evomerge.recipe import Recipe
from evomerge.run_config import ControllerConfig, WarmStartConfig
from evomerge.runs import Run, best_number, fitness_table, open_run
from evomerge.scoring import ItemPlan
from evomerge.space import SearchSpace

NO_WEIGHT = "a size counts once it has a weight, as in {measure: layers, weight: 0.02}"


def decide(
    request: ControllerRequest,
    merge: Mapping[str, Any],
    space: SearchSpace,
    objectives: tuple[Objective, ...],
    plan: ItemPlan,
    budget: int | None,
    *,
    read_weights: bool = True,
) -> ControllerConfig:
    """Return the controller of a new search.

    Args:
        request: of the search file.
        merge: the file's merge section.
        space: what is searched.
        objectives: what is wanted.
        plan: which items are asked.
        budget: candidates, where that is limited.
        read_weights: compute the similarity of the models where the controller needs it; False for a check.

    Raises:
        InputError: the warm start is no run and no recipe, or none of its candidates lies in this space.
    """
    warm_start, notes = None, tuple[str, ...]()
    if (source := request.options.get("warm_start")) is not None:
        warm_start, notes = _warm_start(str(source), space, objectives)
    problem = search_problem(
        ControllerConfig(request.name, warm_start=warm_start), space, merge, objectives, plan, budget=budget, seed=0
    )
    name = request.name
    options = {key: value for key, value in request.options.items() if key != "warm_start"}
    if name == AUTO:
        choice = choose(problem)
        name, notes = choice.name, (f"controller {choice.why}", *notes)
        options = auto_options(name, options.get("batch_size"))
    if controller_info(name).scalarises and (sizes := Objectives(objectives).left_out()):
        names = ", ".join(objective.name for objective in sizes)
        notes = (*notes, f"{name} optimises the weighted mean of the objectives, without {names}: {NO_WEIGHT}")
    similarity = tuple[tuple[float, ...], ...]()
    if controller_info(name).needs_similarity and read_weights and problem.model_weights is not None:
        from evomerge.engine import task_vector_products

        products = task_vector_products(models_with_weights(merge, space), merge.get("base_model"))
        similarity = tuple(tuple(float(value) for value in row) for row in products)
    return ControllerConfig(
        name=name,
        options=options,
        asynchronous=request.asynchronous,
        staleness=request.staleness,
        notes=notes,
        warm_start=warm_start,
        similarity=similarity,
    )


def search_problem(
    controller: ControllerConfig,
    space: SearchSpace,
    merge: Mapping[str, Any],
    objectives: tuple[Objective, ...],
    plan: ItemPlan,
    *,
    budget: int | None,
    seed: int,
    bounds: Bounds | None = None,
) -> SearchProblem:
    """Return what the controller knows of a search, from its configuration alone.

    Args:
        controller: of the run's configuration.
        space: what is searched.
        merge: the merge section.
        objectives: what is wanted.
        plan: which items are asked.
        budget: candidates that the search began with.
        seed: of the search.
        bounds: on fitness, where the search has constraints and they are known.
    """
    start = space.start()
    model_weights = model_weights_in(merge, space)
    if model_weights is not None and controller.similarity:
        model_weights = model_weights.with_products(controller.similarity)
    return SearchProblem(
        dimensions=space.dimension,
        seed=seed,
        objectives=len(objectives),
        weights=Objectives(objectives).scalarisation.relative,
        start=None if start is None else tuple(float(gene) for gene in start),
        budget=budget,
        choices=space.choices,
        switches=space.switches,
        items=_items(objectives, plan),
        model_weights=model_weights,
        asynchronous=controller.asynchronous,
        staleness=controller.staleness,
        bounds=bounds,
        prior=_priors(controller.warm_start),
    )


def _priors(warm_start: WarmStartConfig | None) -> tuple[WarmStartPoint, ...]:
    if warm_start is None:
        return ()
    pairs = zip(warm_start.points, warm_start.fitness, strict=True)
    return tuple(WarmStartPoint(point, fitness) for point, fitness in pairs)


def _items(objectives: tuple[Objective, ...], plan: ItemPlan) -> tuple[int, ...]:
    """Return the items behind each objective's score; () where one is no mean over a task's items."""
    if any(objective.kind != "task" or objective.task not in plan.search for objective in objectives):
        return ()
    return tuple(len(plan.search[objective.task]) for objective in objectives)


def _warm_start(
    source: str, space: SearchSpace, objectives: tuple[Objective, ...]
) -> tuple[WarmStartConfig, tuple[str, ...]]:
    """Return known points with their fitness, and notes about them."""
    if not (Path(source) / FILE_NAME).is_file():
        try:
            recipe = load_recipe(source)
            point = space.encode(_ours(recipe, space))
        except EvomergeError as error:
            raise InputError(f"controller.warm_start: {source} cannot be started from: {error}") from error
        return _start(source, [point], [None]), (f"starts from the recipe {source}",)
    run = open_run(source)
    evaluations = run.data.evaluations()
    known, missing = _same_objectives(run, objectives)
    numbers, _, _ = fitness_table(evaluations, known if not missing else run.objectives)
    people = {candidate.number: candidate for candidate in run.data.candidates()}
    points, fitness, left_out = [], list[tuple[float, ...] | None](), 0
    why = ""
    for number in numbers:
        try:
            points.append(space.encode(_ours(people[number].recipe, space)))
        except InputError as error:
            left_out, why = left_out + 1, str(error)
            continue
        fitness.append(None if missing else evaluations[number].fitness(known))
    if not points:
        reason = why or "none of its candidates has scores"
        raise InputError(f"controller.warm_start: nothing in {source} can be used here: {reason}")
    outside = f"; {left_out} lie outside this space, as: {why}" if left_out else ""
    if missing:
        best = best_number(evaluations, run.objectives)
        place = numbers.index(best) if best in numbers and not left_out else 0
        note = f"starts from one candidate of {source}, which has no scores for {', '.join(missing)}{outside}"
        return _start(source, [points[place]], [None]), (note,)
    return _start(source, points, fitness), (f"builds on {len(points)} candidates of {source}{outside}",)


def _same_objectives(run: Run, objectives: tuple[Objective, ...]) -> tuple[tuple[Objective, ...], list[str]]:
    """Return the other run's objectives in this one's order, and the names of those it does not have."""
    found = []
    missing = []
    for wanted in objectives:
        same = (o for o in run.objectives if (o.task, o.metric, o.filter, o.goal) == _key(wanted))
        match = next(same, None)
        if match is None:
            missing.append(wanted.name)
        else:
            found.append(match)
    return tuple(found), missing


def _key(objective: Objective) -> tuple[str, str, str, str]:
    return objective.task, objective.metric, objective.filter, objective.goal


def _ours(recipe: Recipe, space: SearchSpace) -> Recipe:
    """Return the recipe with the masks of this search: another seed's masks are other draws of the same merge."""
    return replace(recipe, mask_seed=space.mask_seed)


def _start(source: str, points: Sequence[np.ndarray], fitness: Sequence[Sequence[float] | None]) -> WarmStartConfig:
    return WarmStartConfig(
        source,
        tuple(tuple(float(gene) for gene in point) for point in points),
        tuple(None if row is None else tuple(float(value) for value in row) for row in fitness),
    )
