"""Prepares a search in three steps: inspect the models, inspect the tasks, freeze both into a configuration.

`check` takes the same steps as `search` without reading weights, and the first two complete the list of problems of a
search file that has mistakes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from evomerge.candidate import Candidate, Objective
from evomerge.checkpoints import revision_of, short_name
from evomerge.commands._banks import digest_of
from evomerge.commands._controller_setup import decide
from evomerge.commands._model_inspection import Models, inspect_models, tokenizer_of
from evomerge.commands._problem_list import Problems
from evomerge.commands._task_inspection import SearchTasks, inspect_tasks
from evomerge.config import SearchFile, load_search_file
from evomerge.errors import EvomergeError, RunError, SearchFileError
from evomerge.recipe import Recipe, passthrough, recipe_from_mapping
from evomerge.run_config import BudgetConfig, EstimationConfig, ModelsConfig, RacingConfig, RunConfig, TasksConfig
from evomerge.runs import constraint_problems
from evomerge.scoring import ItemPlan, SanityChecks, TaskSet, TaskSettings
from evomerge.scoring import version as version_of
from evomerge.space import SearchSpace
from evomerge.version import __version__
from evomerge.workers import WorkerSpec

Note = Callable[[str], None]

# Versions that can change a number; kept with the run so that a difference can be explained.
RECORDED_PACKAGES = ("torch", "transformers", "lm-eval", "cma", "optuna", "ray", "numpy", "scipy")


@dataclass(frozen=True)
class Preparation:
    """Everything that a search needs to run, rebuilt from its configuration."""

    config: RunConfig
    space: SearchSpace
    parents: tuple[Candidate, ...]
    spec: WorkerSpec

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, in the search file's order."""
        return self.config.objectives

    @property
    def plan(self) -> ItemPlan:
        """The pinned items."""
        return self.config.items


def read_search_file(path: str | os.PathLike[str]) -> SearchFile:
    """Return a search file in which nothing is wrong that can be known without loading models or tasks.

    Raises:
        SearchFileError: lists every mistake, also those of models and tasks in the sections that could be read.
    """
    return load_search_file(path, _further_problems)


def prepare(search_file: SearchFile, note: Note = lambda text: None) -> Preparation:
    """Return the preparation of a new run: models' headers, tasks and items are read, no weights are loaded.

    Raises:
        SearchFileError: the models do not fit each other, or a task, metric or item count is wrong; all at once.
    """
    problems = Problems(search_file)
    note("reading the models' headers")
    models = inspect_models(search_file, problems)
    note("preparing the tasks")
    tasks = inspect_tasks(search_file, problems, models)
    return freeze(search_file, models, tasks, problems)


def freeze(
    search_file: SearchFile,
    models: Models | None,
    tasks: SearchTasks | None,
    problems: Problems,
    *,
    read_weights: bool = True,
) -> Preparation:
    """Return the preparation of a search of these models and tasks.

    Args:
        search_file: the search file.
        models: from `inspect_models`.
        tasks: from `inspect_tasks`.
        problems: what both have found.
        read_weights: False for a check: models get no revisions, and their weights are not compared.

    Raises:
        SearchFileError: there are problems, or markers, a route or constraints do not fit these models and tasks.
    """
    problems.refuse()
    assert models is not None  # there are problems otherwise
    assert tasks is not None
    revisions = {name: revision_of(name) for name in models.layouts} if read_weights else {}
    try:
        # The merge document was expanded at load, for errors with line numbers; layer counts are known only now.
        space = search_file.space(
            layers=models.base.layers, modules=models.base.modules, revisions=revisions, depths=models.depths
        )
    except SearchFileError as error:
        problems.add(*error.problems)
    names = [short_name(name) for name in models.layouts]
    for index, text in constraint_problems(search_file.constraints, tasks.objectives, names):
        problems.add_at(("constraints", index), text)
    problems.refuse()
    scoring, budget = search_file.scoring, BudgetConfig(**dict(search_file.budget))
    config = RunConfig(
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        search_path=search_file.path,
        search_text=search_file.text,
        seed=search_file.seed,
        merge=dict(search_file.merge),
        models=_models_config(models, revisions),
        objectives=tasks.objectives,
        tasks=TasksConfig(tasks.settings.include, dict(tasks.settings.lm_eval), dict(tasks.versions)),
        items=tasks.plan,
        controller=decide(
            search_file.controller,
            search_file.merge,
            space,
            tasks.objectives,
            tasks.plan,
            budget.candidates,
            read_weights=read_weights,
        ),
        budget=budget,
        versions=_versions(),
        route=None if search_file.route is None else dict(search_file.route),
        constraints=search_file.constraints,
        measures=tasks.measures,
        measure_versions=tasks.measure_versions,
        estimation=_estimation_config(search_file, tasks),
        item_hashes=tasks.item_hashes,
        racing=None if scoring.racing is None else RacingConfig(**dict(scoring.racing)),
        sanity_checks=None if scoring.sanity_checks is None else SanityChecks(**dict(scoring.sanity_checks)),
        batch_size=scoring.batch_size,
        cache=scoring.cache,
        warnings=tasks.warnings,
    )
    return from_config(config, space)


def from_config(config: RunConfig, space: SearchSpace | None = None) -> Preparation:
    """Return the preparation that a configuration describes; reads no file.

    Args:
        config: of the run.
        space: its search space, where that is built already.
    """
    others = {measure.name for measure in config.measures}
    spec = WorkerSpec(
        models=config.models.names,
        tasks=tuple(name for name in {**config.items.search, **config.items.holdout} if name not in others),
        task_settings=TaskSettings(config.tasks.include, config.tasks.lm_eval),
        revisions=config.models.revisions,
        batch_size=config.batch_size,
        tokenizer=tokenizer_of(config.merge),
        measures=config.measures,
        cache=config.cache,
        sanity_checks=config.sanity_checks,
    )
    parents = tuple(
        Candidate(-1 - place, _parent(name, config), (), "parent", short_name(name))
        for place, name in enumerate(config.models.names)
    )
    return Preparation(config, config.space() if space is None else space, parents, spec)


def verify(preparation: Preparation) -> None:
    """Compare models and tasks with what the run began with.

    Raises:
        RunError: a model's weights or a task's documents or settings have changed; names each.
    """
    config, changed = preparation.config, []
    for name, revision in config.models.revisions.items():
        if revision_of(name) != revision:
            changed.append(f"model {name!r} has other contents")
    tasks = TaskSet.load(config.tasks.versions, preparation.spec.task_settings)
    for name, version in config.tasks.versions.items():
        if tasks.version(name) != version:
            changed.append(f"task {name!r} has other documents or settings ({tasks.version(name)}, was {version})")
    for task, bank in (config.estimation.banks if config.estimation else {}).items():
        if not Path(bank.path).is_file() or digest_of(bank.path) != bank.digest:
            changed.append(f"the item bank of task {task!r}, {bank.path}, is gone or has other contents")
    for measure in config.measures:
        if version_of(measure) != config.measure_versions[measure.name]:
            changed.append(f"objective {measure.name!r} has other documents, settings or code")
    if changed:
        raise RunError(
            f"{'; '.join(changed)} than when this run began. Put them back, or start a new search: scores of two "
            "versions cannot be compared"
        )


def _further_problems(search_file: SearchFile, sound: Set[str]) -> list[str]:
    """Return the problems of models and tasks, of a file with mistakes in other sections than the `sound` ones."""
    problems, models = Problems(search_file), None
    # Without lm-eval, or with a file that defeats it, the other mistakes are still listed.
    with contextlib.suppress(EvomergeError):
        if {"merge", "route"} <= sound:
            models = inspect_models(search_file, problems)
        if {"objectives", "tasks", "scoring", "seed"} <= sound:
            inspect_tasks(search_file, problems, models)
    return problems.texts


def _models_config(models: Models, revisions: dict[str, str]) -> ModelsConfig:
    return ModelsConfig(
        names=tuple(models.layouts),
        revisions=revisions,
        layers=models.base.layers,
        depths=models.depths,
        modules={name: tuple(parts) for name, parts in models.base.modules.items()},
        aligned=models.alignment is not None,
    )


def _estimation_config(search_file: SearchFile, tasks: SearchTasks) -> EstimationConfig | None:
    scoring = search_file.scoring
    if scoring.estimator == "mean":
        return None
    assert scoring.items is not None  # the search file was refused otherwise
    return EstimationConfig(
        scoring.estimator, scoring.items, scoring.anchors, scoring.full_evaluation_every, tasks.banks
    )


def _versions() -> dict[str, str]:
    found = {"evomerge": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _parent(name: str, config: RunConfig) -> Recipe:
    """Return the recipe of a parent alone; where vocabularies differ, with the rows that it has in every merge."""
    recipe, merge = passthrough(name), config.merge
    if config.models.aligned:
        tokenizer = {key: merge[key] for key in ("tokenizer_source", "tokenizer") if merge.get(key) is not None}
        recipe = recipe_from_mapping({**recipe.to_mapping(), "base_model": config.models.names[0], **tokenizer})
    template = merge.get("chat_template")
    if template not in (None, "auto"):  # all candidates are asked with this template
        recipe = recipe_from_mapping({**recipe.to_mapping(), "chat_template": template})
    return recipe.with_revisions(config.models.revisions)
