"""Reads the tasks of a search and pins their items: those to search with and those held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evomerge.candidate import Objective
from evomerge.commands._banks import held_out_in_banks, names_and_banks
from evomerge.commands._model_inspection import Models, chat_template_problem
from evomerge.commands._problem_list import Problems
from evomerge.config import ObjectiveRequest, SearchFile
from evomerge.errors import TaskError
from evomerge.metric_kinds import is_size, metric_info
from evomerge.run_config import BankConfig
from evomerge.scoring import RESPONSE_TOKENS, Document, ItemPlan, Measure, TaskSet, TaskSettings, metric_key, split
from evomerge.scoring import documents as documents_of
from evomerge.scoring import version as version_of

HELD_OUT_SHARE = 0.5  # fraction of the documents of other measures than tasks, where `holdout` names tasks


@dataclass(frozen=True)
class SearchTasks:
    """The tasks of a search: objectives, pinned items, and the version of each task."""

    objectives: tuple[Objective, ...]
    plan: ItemPlan
    settings: TaskSettings
    versions: Mapping[str, str]  # task -> digest of its documents and settings
    documents: Mapping[str, int]  # task or measure -> documents in all
    warnings: tuple[str, ...]
    measures: tuple[Measure, ...] = ()
    measure_versions: Mapping[str, str] = field(default_factory=dict)
    item_hashes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)  # task -> item -> its texts'
    banks: Mapping[str, BankConfig] = field(default_factory=dict)  # task -> item bank


def inspect_tasks(search_file: SearchFile, problems: Problems, models: Models | None = None) -> SearchTasks | None:
    """Return the tasks with their pinned items; None where there are problems, which are added to `problems`.

    Args:
        search_file: the search file.
        problems: collects what is wrong.
        models: the models that are asked, whose chat template prompts may need; None where they cannot be read.
    """
    if models is not None and (wrong := chat_template_problem(search_file, models)):
        problems.add(wrong)
    scoring = search_file.scoring
    wanted = list(dict.fromkeys(request.task for request in search_file.objectives if request.measure is None))
    try:
        holdout = _holdout(scoring.holdout, wanted)
        stand_ins = [name for name in holdout.values() if isinstance(name, str)] if isinstance(holdout, dict) else []
        settings = TaskSettings(search_file.include, scoring.lm_eval)
        tasks = TaskSet.load([*wanted, *stand_ins], settings)
    except TaskError as error:
        for text in str(error).splitlines():
            _add_with_line(text, search_file, problems)
        return None
    measures = _measures(search_file, tasks, problems)
    objectives = _objectives(search_file, tasks, problems)
    documents = {name: tasks.documents(name) for name in dict.fromkeys([*wanted, *stand_ins])}
    try:
        # An estimator asks `items` of every candidate and speaks about all of the pool.
        items = scoring.items if scoring.estimator == "mean" else scoring.pool
        plan = split(documents, items=items, holdout=holdout, seed=search_file.seed)
    except TaskError as error:
        problems.add(str(error))
        return None
    if problems:
        return None
    plan, warnings = _with_measures(plan, measures, search_file, problems)
    item_hashes, banks = names_and_banks(search_file, tasks, plan, wanted, problems)
    if problems:
        return None
    versions = {name: tasks.version(name) for name in documents}
    counts = {name: len(found) for name, found in documents.items()}
    counts |= {one.measure.name: len(one.documents) for one in measures}
    return SearchTasks(
        tuple(objectives),
        plan,
        settings,
        versions,
        counts,
        (*tasks.warnings, *warnings, *held_out_in_banks(tasks, plan, banks)),
        tuple(one.measure for one in measures),
        {one.measure.name: one.version for one in measures},
        item_hashes,
        banks,
    )


@dataclass(frozen=True)
class _Measured:
    measure: Measure
    documents: tuple[Document, ...]
    version: str


def _measures(search_file: SearchFile, tasks: TaskSet, problems: Problems) -> list[_Measured]:
    found = []
    for request in search_file.objectives:
        measure = request.measure
        if measure is None:
            continue
        if measure.name in tasks.tasks:
            problems.add(f"objective {measure.name!r} is called as a task is; give it another `name`")
        try:
            found.append(_Measured(measure, documents_of(measure).documents, version_of(measure)))
        except TaskError as error:
            problems.add(f"objective {measure.name!r}: {error}")
    return found


def _with_measures(
    plan: ItemPlan, measures: Sequence[_Measured], search_file: SearchFile, problems: Problems
) -> tuple[ItemPlan, list[str]]:
    """Return the plan with the measures' documents, and what is odd about them.

    `items` is the most that is asked of each. What has one document only, such as a number that a function computes
    of the model, is the same on both sides.
    """
    scoring, warnings = search_file.scoring, list[str]()
    share = scoring.holdout if isinstance(scoring.holdout, float) else HELD_OUT_SHARE
    search, kept = dict(plan.search), dict(plan.holdout)
    for one in measures:
        name, found = one.measure.name, one.documents
        if len({document.hash for document in found}) == 1:
            search[name] = kept[name] = (found[0].id,)
            if one.measure.kind != "python" and not is_size(one.measure.kind):
                warnings.append(f"objective {name!r} has one item, which is therefore not held out either")
            continue
        try:
            own = split({name: found}, items=None, holdout=share, seed=search_file.seed)
        except TaskError as error:
            problems.add(f"objective {name!r}: {error}")
            continue
        search[name], kept[name] = own.search[name][: scoring.items], own.holdout[name]
    return replace(plan, search=search, holdout=kept), warnings


def _objectives(search_file: SearchFile, tasks: TaskSet, problems: Problems) -> list[Objective]:
    shared = Counter(request.task for request in search_file.objectives if request.name is None)
    objectives = []
    for number, request in enumerate(search_file.objectives):
        if request.measure is not None:
            objectives.append(request.measure.objective(request.goal, request.weight))
            continue
        if request.metric == RESPONSE_TOKENS:
            objectives += _length_of_answers(request, tasks, problems)
            continue
        try:
            found = tasks.objective(request.task, request.metric, request.filter, request.goal, _weight(request))
        except TaskError as error:
            problems.add_at(("objectives", number, "metric"), str(error))
            continue
        if request.name is not None:
            found = replace(found, name=request.name)
        elif shared[request.task] > 1:  # an objective is named after its task, with :metric where two share one
            found = replace(found, name=f"{request.task}:{metric_key(found.metric, found.filter)}")
        objectives.append(found)
    return objectives


def _add_with_line(text: str, search_file: SearchFile, problems: Problems) -> None:
    """Add what is wrong with a task, with the line that names the task first."""
    for number, request in enumerate(search_file.objectives):
        if request.measure is None and repr(request.task) in text:
            problems.add_at(("objectives", number, "task"), text)
            return
    problems.add(text)


def _length_of_answers(request: ObjectiveRequest, tasks: TaskSet, problems: Problems) -> list[Objective]:
    """Return the objective that wants a task's answers short or long; they are written for the task's score anyway."""
    name = request.name or request.task
    if len(tasks.expand(request.task)) > 1 or not tasks.writes(request.task):
        problems.add(f"objective {name!r}: task {request.task!r} has no written answers whose length could be wanted")
        return []
    goal = request.goal or metric_info("response_length").goal
    return [Objective(name, request.task, RESPONSE_TOKENS, goal, _weight(request), kind="response_length")]


def _weight(request: ObjectiveRequest) -> float:
    return 1.0 if request.weight is None else request.weight


def _holdout(holdout: float | tuple[str, ...] | Mapping[str, str], wanted: list[str]) -> float | dict[str, float | str]:
    """Return the held-out share, or task -> the task that stands in; a plain list names one per task, in order."""
    if isinstance(holdout, tuple):
        if len(holdout) != len(wanted):
            raise TaskError(
                f"scoring.holdout names {len(holdout)} tasks for {len(wanted)} tasks of the objectives; name one for "
                "each, in the same order, or write a mapping as in {add: add_test}"
            )
        return dict(zip(wanted, holdout, strict=True))
    return dict(holdout) if isinstance(holdout, Mapping) else holdout
