"""Who proposes, decided once before a search begins: `auto` resolved, other results read, task vectors compared.

All of it goes into the facts, so that a resumed search builds the same controller without looking at anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import FILE_NAME
from evomerge.candidate import Objective
from evomerge.controllers.auto import auto_options, choose
from evomerge.controllers.model_weights import ingredients_in, models_with_weights, with_products
from evomerge.controllers.protocol import Prior, Setup
from evomerge.controllers.registry import AUTO, controller_info
from evomerge.errors import EvomergeError, InputError
from evomerge.objectives import Objectives
from evomerge.pareto.constraints import Bounds
from evomerge.recipe import Recipe
from evomerge.results import Run, open_run
from evomerge.results.evaluations import best_number, fitness_table
from evomerge.scoring.items import ItemPlan
from evomerge.searchfile import load_recipe
from evomerge.searchfile.requests import ControllerRequest
from evomerge.space import SearchSpace

NO_WEIGHT = "a size counts once it has a weight, as in {measure: layers, weight: 0.02}"


@dataclass(frozen=True)
class Proposing:
    """Which controller proposes, what it begins with, and sentences on how that came about."""

    name: str
    options: Mapping[str, Any]  # of this controller, by name
    notes: tuple[str, ...]
    prior: Mapping[str, Any]  # points and fitness as plain data, {} for none
    products: Sequence[Sequence[float]]  # of task vectors, () where nobody asks for them

    def to_facts(self, request: ControllerRequest) -> dict[str, Any]:
        """Return the entry `controller` of a run's facts."""
        return {
            "name": self.name,
            "options": dict(self.options),
            "asynchronous": request.asynchronous,
            "staleness": request.staleness,
            "notes": list(self.notes),
            **({"prior": dict(self.prior)} if self.prior else {}),
            **({"products": [list(row) for row in self.products]} if len(self.products) else {}),
        }


def decide(
    request: ControllerRequest,
    merge: Mapping[str, Any],
    space: SearchSpace,
    objectives: tuple[Objective, ...],
    plan: ItemPlan,
    budget: int | None,
    *,
    measure: bool = True,
) -> Proposing:
    """Return who proposes in a new search.

    Args:
        request: of the search file.
        merge: the file's merge section.
        space: what is searched.
        objectives: what is wanted.
        plan: which items are asked.
        budget: candidates, where that is limited.
        measure: read the models' weights where the controller asks how akin they are; False for a check.

    Raises:
        InputError: the warm start is no run and no recipe, or none of its candidates lies in this space.
    """
    prior, notes = dict[str, Any](), tuple[str, ...]()
    if (source := request.options.get("warm_start")) is not None:
        prior, notes = _warm_start(str(source), space, objectives)
    setup = setup_of({"prior": prior}, space, merge, objectives, plan, budget=budget, seed=0)
    name = request.name
    options = {key: value for key, value in request.options.items() if key != "warm_start"}
    if name == AUTO:
        choice = choose(setup)
        name, notes = choice.name, (f"controller {choice.why}", *notes)
        options = auto_options(name, options.get("batch_size"))
    if controller_info(name).scalarises and (sizes := Objectives(objectives).left_out()):
        names = ", ".join(objective.name for objective in sizes)
        notes = (*notes, f"{name} optimises the weighted mean of the objectives, without {names}: {NO_WEIGHT}")
    products: list[list[float]] = []
    if controller_info(name).needs_similarity and measure and setup.ingredients is not None:
        from evomerge.weights.kinship import task_vector_products

        products = task_vector_products(models_with_weights(merge, space), merge.get("base_model"))
    return Proposing(name, options, notes, prior, products)


def setup_of(
    controller: Mapping[str, Any],
    space: SearchSpace,
    merge: Mapping[str, Any],
    objectives: tuple[Objective, ...],
    plan: ItemPlan,
    *,
    budget: int | None,
    seed: int,
    bounds: Bounds | None = None,
) -> Setup:
    """Return what the controller is told about a search, from its facts alone.

    Args:
        controller: the facts' entry of that name.
        space: what is searched.
        merge: the facts' merge section.
        objectives: what is wanted.
        plan: which items are asked.
        budget: candidates that the search began with.
        seed: of the search.
        bounds: on fitness, where the search has constraints and they are known.
    """
    start = space.start()
    ingredients = ingredients_in(merge, space)
    if ingredients is not None and controller.get("products"):
        ingredients = with_products(ingredients, controller["products"])
    prior = controller.get("prior") or {"points": [], "fitness": []}
    return Setup(
        dimensions=space.dimension,
        seed=seed,
        objectives=len(objectives),
        weights=Objectives(objectives).scalarisation.relative,
        start=None if start is None else tuple(float(gene) for gene in start),
        budget=budget,
        choices=space.choices,
        switches=space.switches,
        items=_items(objectives, plan),
        ingredients=ingredients,
        asynchronous=controller.get("asynchronous", False),  # absent from runs of earlier versions
        staleness=controller.get("staleness"),
        bounds=bounds,
        prior=tuple(
            Prior(tuple(point), None if fitness is None else tuple(fitness))
            for point, fitness in zip(prior["points"], prior["fitness"], strict=True)
        ),
    )


def _items(objectives: tuple[Objective, ...], plan: ItemPlan) -> tuple[int, ...]:
    """Return the items behind each objective's score; () where one is no mean over a task's items."""
    if any(objective.kind != "task" or objective.task not in plan.search for objective in objectives):
        return ()
    return tuple(len(plan.search[objective.task]) for objective in objectives)


def _warm_start(
    source: str, space: SearchSpace, objectives: tuple[Objective, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return prior points with their fitness, as plain data, and what to say about them."""
    if not (Path(source) / FILE_NAME).is_file():
        try:
            recipe = load_recipe(source)
            point = space.encode(_ours(recipe, space))
        except EvomergeError as error:
            raise InputError(f"controller.warm_start: {source} cannot be started from: {error}") from error
        return _prior(source, [point], [None]), (f"starts from the recipe {source}",)
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
        return _prior(source, [points[place]], [None]), (note,)
    return _prior(source, points, fitness), (f"builds on {len(points)} candidates of {source}{outside}",)


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


def _prior(source: str, points: Sequence[np.ndarray], fitness: Sequence[Sequence[float] | None]) -> dict[str, Any]:
    return {
        "from": source,
        "points": [[float(gene) for gene in point] for point in points],
        "fitness": [None if row is None else [float(value) for value in row] for row in fitness],
    }
