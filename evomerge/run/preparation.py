"""From a search file to everything that a run fixes before its first candidate: the facts of the archive.

The facts alone rebuild the space, the objectives and the workers, so a run folder can be resumed, replayed and read
without the search file, and its numbers mean the same thing later.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from evomerge.candidate import Candidate, Objective
from evomerge.errors import RunError, SearchFileError, TaskError, WeightsError
from evomerge.metrics import is_size, metric_info
from evomerge.pool.worker import WorkerSpec
from evomerge.recipe import Recipe, passthrough, recipe_from_mapping
from evomerge.results.constraints import constraint_problems
from evomerge.run.banks import digest_of, held_out_in_banks, names_and_banks
from evomerge.run.proposing import decide
from evomerge.run.route_models import misfits
from evomerge.scoring.answer_flags import RESPONSE_TOKENS
from evomerge.scoring.documents import Document
from evomerge.scoring.estimate import metric_key
from evomerge.scoring.harness import TaskSet
from evomerge.scoring.items import ItemPlan, split
from evomerge.scoring.measures import Measure
from evomerge.scoring.measures import documents as documents_of
from evomerge.scoring.measures import version as version_of
from evomerge.scoring.sanity_checks import SanityChecks
from evomerge.scoring.settings import TaskSettings
from evomerge.searchfile import ObjectiveRequest, SearchFile
from evomerge.space import SearchSpace, build_space
from evomerge.space.form import model_places
from evomerge.space.problems import Problem, located
from evomerge.space.route_request import only_lends
from evomerge.tokenizer import UNION, TokenizerChoice, choice_of
from evomerge.version import __version__
from evomerge.weights.chat_template import template_problem
from evomerge.weights.inspection import facts_of, problems_between
from evomerge.weights.layout import Layout, compare_layouts, read_layout
from evomerge.weights.reference import revision_of, short_name
from evomerge.weights.vocabulary import Alignment, aligned_layouts, alignment_of, merge_of

Note = Callable[[str], None]

HELD_OUT_SHARE = 0.5  # of the documents of other measures than tasks, where `holdout` names tasks

# Versions that can change a number; kept with the run so that a difference can be explained.
RECORDED_PACKAGES = ("torch", "transformers", "lm-eval", "cma", "optuna", "ray", "numpy", "scipy")


@dataclass(frozen=True)
class Preparation:
    """What a run is made of, rebuilt from its facts."""

    facts: Mapping[str, Any]
    space: SearchSpace
    objectives: tuple[Objective, ...]
    plan: ItemPlan
    parents: tuple[Candidate, ...]
    spec: WorkerSpec


def prepare(search_file: SearchFile, note: Note = lambda text: None) -> Preparation:
    """Return the preparation of a new run: models' headers, tasks and items are read, no weights are loaded.

    Raises:
        SearchFileError: the models do not fit each other, or a task, metric or item count is wrong; all at once.
    """
    problems: list[str] = []
    note("reading the models' headers")
    models = read_layouts(search_file.merge, problems, search_file.route)
    problems += template_problems(search_file, models)
    base = models.base
    if base is not None and not problems:
        # markers or a route that do not fit these models
        search_file.space(layers=base.layers, modules=base.modules, depths=models.depths)
    note("preparing the tasks")
    tasks = prepare_tasks(search_file, problems)
    if problems or tasks is None or base is None:
        raise SearchFileError(search_file.path, problems)
    refuse_constraints(search_file, tasks, models)
    facts = _facts(search_file, models, tasks)
    plain = from_facts(facts)
    request = search_file.controller
    chosen = decide(request, facts["merge"], plain.space, plain.objectives, plain.plan, facts["budget"]["candidates"])
    return replace(plain, facts={**facts, "controller": chosen.to_facts(request)})


def refuse_constraints(search_file: SearchFile, tasks: PreparedTasks, models: Models) -> None:
    """Raise SearchFileError, with lines, where a constraint names nothing that exists or is none."""
    names = [short_name(name) for name in models.layouts]
    found = constraint_problems(search_file.constraints, tasks.objectives, names)
    if found:
        problems = [Problem(("constraints", place), text) for place, text in found]
        raise SearchFileError(search_file.path, located(problems, search_file.lines))


@dataclass(frozen=True)
class PreparedTasks:
    """The tasks of a search file: what is wanted, on which items, in which version of each task."""

    objectives: tuple[Objective, ...]
    plan: ItemPlan
    versions: Mapping[str, str]  # of tasks
    documents: Mapping[str, int]  # task or measure -> documents in all
    warnings: tuple[str, ...]
    measures: tuple[Measure, ...] = ()
    measure_versions: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)  # task -> item -> hashes of its text
    banks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # task -> path and digest of its item bank


def prepare_tasks(search_file: SearchFile, problems: list[str]) -> PreparedTasks | None:
    """Return the tasks with their pinned items; what is wrong is appended to `problems`, and None returned."""
    scoring = search_file.scoring
    wanted = list(dict.fromkeys(request.task for request in search_file.objectives if request.measure is None))
    try:
        holdout = _holdout(scoring.holdout, wanted)
        stand_ins = [name for name in holdout.values() if isinstance(name, str)] if isinstance(holdout, dict) else []
        settings = TaskSettings(search_file.include, scoring.lm_eval)
        tasks = TaskSet.load([*wanted, *stand_ins], settings)
    except TaskError as error:
        problems += [_with_line(text, search_file) for text in str(error).splitlines()]
        return None
    measures = _measures(search_file, tasks, problems)
    objectives = _objectives(search_file, tasks, problems)
    documents = {name: tasks.documents(name) for name in dict.fromkeys([*wanted, *stand_ins])}
    try:
        # An estimator asks `items` of every candidate and speaks about all of the pool.
        items = scoring.items if scoring.estimator == "mean" else scoring.pool
        plan = split(documents, items=items, holdout=holdout, seed=search_file.seed)
    except TaskError as error:
        problems.append(str(error))
        return None
    if problems:
        return None
    plan, warnings = _with_measures(plan, measures, search_file, problems)
    names, banks = names_and_banks(search_file, tasks, plan, wanted, problems)
    if problems:
        return None
    versions = {name: tasks.version(name) for name in documents}
    counts = {name: len(found) for name, found in documents.items()}
    counts |= {one.measure.name: len(one.documents) for one in measures}
    return PreparedTasks(
        tuple(objectives),
        plan,
        versions,
        counts,
        (*tasks.warnings, *warnings, *held_out_in_banks(tasks, plan, banks)),
        tuple(one.measure for one in measures),
        {one.measure.name: one.version for one in measures},
        names,
        banks,
    )


def models_of(merge: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every model that a merge section names, the base (or else the first) first, once each."""
    listed = [model for _, model in model_places(merge)]
    base = merge.get("base_model")
    return tuple(dict.fromkeys([*([base] if base else []), *listed]))


def read_layouts(merge: Mapping[str, Any], problems: list[str], route: Mapping[str, Any] | None = None) -> Models:
    """Return the models of a merge section, from headers only; what is wrong or does not fit goes to `problems`.

    With a route over models that only lend their layers, the models need not be equally deep.
    """
    models = models_of(merge)
    layouts: dict[str, Layout] = {}
    for name in models:
        try:
            layouts[name] = read_layout(name)
        except WeightsError as error:
            problems += str(error).splitlines()
    if len(layouts) < len(models):
        return Models(layouts, None)
    alignment = _alignment(merge, models, layouts, problems)
    aligned = aligned_layouts(alignment, layouts)
    if route is not None:
        problems += misfits(aligned, equally_deep=not merge.get("slices") and not only_lends(merge))
        return Models(layouts, alignment)
    base, *others = (aligned[name] for name in models)
    problems += compare_layouts(base, others, depth=not merge.get("slices"), vocabulary=False)
    problems += problems_between({name: facts_of(layout) for name, layout in layouts.items()})
    return Models(layouts, alignment)


@dataclass(frozen=True)
class Models:
    """The models of a search, from their headers."""

    layouts: Mapping[str, Layout]  # the base first
    alignment: Alignment | None  # how their vocabularies become one; None where they are one

    @property
    def base(self) -> Layout | None:
        """The base's layout, None where it could not be read."""
        return next(iter(self.layouts.values()), None)

    @property
    def depths(self) -> dict[str, int]:
        """Layers per model."""
        return {name: layout.layers for name, layout in self.layouts.items()}


def template_problems(search_file: SearchFile, models: Models) -> list[str]:
    """Return why prompts cannot be written in chat form, where the search file asks for that."""
    base, alignment = models.base, models.alignment
    if base is None or not search_file.scoring.lm_eval.get("apply_chat_template"):
        return []
    donor = base if alignment is None else models.layouts[alignment.donor]
    problem = template_problem(search_file.merge.get("chat_template"), donor)
    return [problem] if problem else []


def _alignment(
    merge: Mapping[str, Any], models: tuple[str, ...], layouts: Mapping[str, Layout], problems: list[str]
) -> Alignment | None:
    tokenizer = _tokenizer_of(merge)
    if tokenizer is not None and tokenizer.source == UNION:
        problems.append(
            "a union of vocabularies cannot be searched: a parent alone has no such vocabulary to be scored with. Name "
            "base or one model as tokenizer_source; evomerge merge makes models with the union of vocabularies"
        )
        return None
    try:
        return alignment_of(merge_of(models, models[0], tokenizer), layouts)
    except WeightsError as error:
        problems.append(str(error))
        return None


def _tokenizer_of(merge: Mapping[str, Any]) -> TokenizerChoice | None:
    source = merge.get("tokenizer_source")
    return TokenizerChoice(source) if source is not None else choice_of(merge.get("tokenizer"))


def verify(preparation: Preparation) -> None:
    """Compare models and tasks with what the run began with.

    Raises:
        RunError: a model's weights or a task's documents or settings have changed; names each.
    """
    facts, changed = preparation.facts, []
    for name, revision in facts["revisions"].items():
        if revision_of(name) != revision:
            changed.append(f"model {name!r} has other contents")
    tasks = TaskSet.load(facts["tasks"]["versions"], preparation.spec.task_settings)
    for name, version in facts["tasks"]["versions"].items():
        if tasks.version(name) != version:
            changed.append(f"task {name!r} has other documents or settings ({tasks.version(name)}, was {version})")
    for task, bank in ((facts.get("estimation") or {}).get("banks") or {}).items():
        if not Path(bank["path"]).is_file() or digest_of(bank["path"]) != bank["digest"]:
            changed.append(f"the item bank of task {task!r}, {bank['path']}, is gone or has other contents")
    for measure in preparation.spec.measures:
        if version_of(measure) != facts["measure_versions"][measure.name]:
            changed.append(f"objective {measure.name!r} has other documents, settings or code")
    if changed:
        raise RunError(
            f"{'; '.join(changed)} than when this run began. Put them back, or start a new search: scores of two "
            "versions cannot be compared"
        )


@dataclass(frozen=True)
class _Measured:
    measure: Measure
    documents: tuple[Document, ...]
    version: str


def _measures(search_file: SearchFile, tasks: TaskSet, problems: list[str]) -> list[_Measured]:
    found = []
    for request in search_file.objectives:
        measure = request.measure
        if measure is None:
            continue
        if measure.name in tasks.tasks:
            problems.append(f"objective {measure.name!r} is called as a task is; give it another `name`")
        try:
            found.append(_Measured(measure, documents_of(measure).documents, version_of(measure)))
        except TaskError as error:
            problems.append(f"objective {measure.name!r}: {error}")
    return found


def _with_measures(
    plan: ItemPlan, measures: Sequence[_Measured], search_file: SearchFile, problems: list[str]
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
            problems.append(f"objective {name!r}: {error}")
            continue
        search[name], kept[name] = own.search[name][: scoring.items], own.holdout[name]
    return replace(plan, search=search, holdout=kept), warnings


def _objectives(search_file: SearchFile, tasks: TaskSet, problems: list[str]) -> list[Objective]:
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
            problems += located([Problem(("objectives", number, "metric"), str(error))], search_file.lines)
            continue
        if request.name is not None:
            found = replace(found, name=request.name)
        elif shared[request.task] > 1:  # an objective is named after its task, with :metric where two share one
            found = replace(found, name=f"{request.task}:{metric_key(found.metric, found.filter)}")
        objectives.append(found)
    return objectives


def _with_line(text: str, search_file: SearchFile) -> str:
    """Return what is wrong with a task behind the line that names it first."""
    for number, request in enumerate(search_file.objectives):
        if request.measure is None and repr(request.task) in text:
            return located([Problem(("objectives", number, "task"), text)], search_file.lines)[0]
    return text


def _length_of_answers(request: ObjectiveRequest, tasks: TaskSet, problems: list[str]) -> list[Objective]:
    """Return the objective that wants a task's answers short or long; they are written for the task's score anyway."""
    name = request.name or request.task
    if len(tasks.expand(request.task)) > 1 or not tasks.writes(request.task):
        problems.append(
            f"objective {name!r}: task {request.task!r} has no written answers whose length could be wanted"
        )
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


def _facts(search_file: SearchFile, models: Models, tasks: PreparedTasks) -> dict[str, Any]:
    """Return what the archive keeps: everything that the rest of the run is rebuilt from."""
    scoring, budget = search_file.scoring, search_file.budget
    base = models.base
    assert base is not None  # otherwise there are problems, and no run
    return {
        "evomerge": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "search_path": search_file.path,
        "search_text": search_file.text,
        "merge": dict(search_file.merge),
        "models": list(models.layouts),
        "aligned": models.alignment is not None,
        "layers": base.layers,
        "route": None if search_file.route is None else dict(search_file.route),
        "depths": models.depths,
        "modules": {name: list(parts) for name, parts in base.modules.items()},
        "revisions": {name: revision_of(name) for name in models.layouts},
        "seed": search_file.seed,
        "objectives": [asdict(objective) for objective in tasks.objectives],
        "constraints": list(search_file.constraints),
        "tasks": {
            "include": list(search_file.include),
            "lm_eval": dict(scoring.lm_eval),
            "versions": dict(tasks.versions),
        },
        "measures": [asdict(measure) for measure in tasks.measures],
        "measure_versions": dict(tasks.measure_versions),
        "items": asdict(tasks.plan),
        "estimator": scoring.estimator,
        "estimation": None
        if scoring.estimator == "mean"
        else {
            "items": scoring.items,
            "anchors": scoring.anchors,
            "full_every": scoring.full_evaluation_every,
            "banks": dict(tasks.banks),
        },
        "warnings": list(tasks.warnings),
        "item_names": {task: dict(names) for task, names in tasks.names.items()},
        "budget": asdict(budget),
        "batch_size": scoring.batch_size,
        "cache": scoring.cache,
        "rungs": None if scoring.sanity_checks is None else dict(scoring.sanity_checks),
        "racing": None if scoring.racing is None else dict(scoring.racing),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def from_facts(facts: Mapping[str, Any]) -> Preparation:
    """Return the preparation that stored facts describe; reads no file."""
    space = build_space(
        facts["merge"],
        layers=facts["layers"],
        modules={name: tuple(parts) for name, parts in facts["modules"].items()},
        mask_seed=facts["seed"],
        revisions=facts["revisions"],
        route=facts.get("route"),  # absent from runs of earlier versions
        depths=facts.get("depths"),
    )
    items = facts["items"]
    plan = ItemPlan(
        {task: tuple(ids) for task, ids in items["search"].items()},
        {task: tuple(ids) for task, ids in items["holdout"].items()},
        dict(items["stands_in"]),
    )
    measures = tuple(Measure(**entry) for entry in facts.get("measures", ()))
    others = {measure.name for measure in measures}
    spec = WorkerSpec(
        models=tuple(facts["models"]),
        tasks=tuple(name for name in {**plan.search, **plan.holdout} if name not in others),
        task_settings=TaskSettings(tuple(facts["tasks"]["include"]), facts["tasks"]["lm_eval"]),
        revisions=facts["revisions"],
        batch_size=facts["batch_size"],
        tokenizer=_tokenizer_of(facts["merge"]),
        measures=measures,
        cache=facts.get("cache"),
        rungs=None if facts.get("rungs") is None else SanityChecks(**facts["rungs"]),
    )
    parents = tuple(
        Candidate(-1 - place, _parent(name, facts), (), "parent", short_name(name))
        for place, name in enumerate(facts["models"])
    )
    objectives = tuple(Objective(**entry) for entry in facts["objectives"])
    return Preparation(facts, space, objectives, plan, parents, spec)


def _parent(name: str, facts: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a parent alone; where vocabularies differ, with the rows that it has in every merge."""
    recipe = passthrough(name)
    if facts.get("aligned"):  # absent from runs of earlier versions
        merge = facts["merge"]
        tokenizer = {key: merge[key] for key in ("tokenizer_source", "tokenizer") if merge.get(key) is not None}
        recipe = recipe_from_mapping({**recipe.to_mapping(), "base_model": facts["models"][0], **tokenizer})
    written = facts["merge"].get("chat_template")
    if written not in (None, "auto"):  # what all candidates are asked with
        recipe = recipe_from_mapping({**recipe.to_mapping(), "chat_template": written})
    return recipe.with_revisions(facts["revisions"])
