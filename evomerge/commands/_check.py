"""`check`: everything about a search that can be known in seconds, without loading weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.candidate import Objective
from evomerge.checkpoints import (
    Layout,
    ModelFacts,
    available_bytes,
    facts_of,
    licence_warnings,
    lint_folder,
    resident_bytes,
    short_name,
    warnings_between,
)
from evomerge.commands._model_inspection import inspect_models
from evomerge.commands._prepare import freeze, read_search_file
from evomerge.commands._problem_list import Problems
from evomerge.commands._task_inspection import SearchTasks, inspect_tasks
from evomerge.config import SearchFile
from evomerge.engine import TimeEstimate, estimate_time, export_bytes
from evomerge.run_config import ControllerConfig
from evomerge.space import SearchSpace


@dataclass(frozen=True)
class CheckReport:
    """What a search would do, and what it needs."""

    path: str  # the search file's path
    models: dict[str, Layout]  # the base first
    space: SearchSpace  # the genes
    tasks: SearchTasks  # documents and items of each
    search_file: SearchFile  # the search file as it was read
    facts: dict[str, ModelFacts]  # what the headers say of each model
    time: TimeEstimate  # per candidate, on this machine
    controller: ControllerConfig  # the controller, `auto` being resolved
    vocabulary: tuple[str, ...] = ()  # what happens to rows of models whose vocabularies differ
    warnings: list[str] = field(default_factory=list)  # what to mind; nothing here stops a search

    @property
    def items(self) -> int:
        """Items that a candidate answers, over all tasks."""
        return sum(len(self.tasks.plan.search[task]) for task in {o.task for o in self.tasks.objectives})

    @property
    def export_bytes(self) -> int:
        """Disk that one exported candidate takes."""
        merge = self.search_file.merge
        return export_bytes(next(iter(self.models.values())), merge.get("out_dtype") or merge.get("dtype"))

    @property
    def needed_bytes(self) -> int:
        """Memory that one worker needs, beside what the forward pass takes."""
        return resident_bytes(list(self.models.values()))

    def to_mapping(self) -> dict[str, Any]:
        """Return the form of `check --json`."""
        return {
            "file": self.path,
            "models": {
                name: {
                    "parameters": layout.parameters,
                    "layers": layout.layers,
                    "dtype": layout.dtype,
                    **self.facts[name].to_mapping(),
                }
                for name, layout in self.models.items()
            },
            "genes": list(self.space.names),
            "route": None if self.space.route is None else self.space.route.describe(),
            "objectives": [
                {"name": o.name, "task": o.task, "metric": o.metric, "goal": o.goal} for o in self.tasks.objectives
            ],
            "items": {task: len(items) for task, items in self.tasks.plan.search.items()},
            "holdout": {task: len(items) for task, items in self.tasks.plan.holdout.items()},
            "controller": {"name": self.controller.name, "notes": list(self.controller.notes)},
            "needed_bytes": self.needed_bytes,
            "available_bytes": available_bytes("cpu"),
            "export_bytes": self.export_bytes,
            "seconds_per_candidate": self.time.seconds,
            "seconds_basis": self.time.basis,
            "vocabulary": list(self.vocabulary),
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{self.path}: no problems found"]
        lines += [f"  model      {_short(name):<24} {_model_line(facts)}" for name, facts in self.facts.items()]
        budget = self.search_file.budget
        limits = [
            f"{budget.candidates} candidates" if budget.candidates else "",
            f"{budget.hours:g} h" if budget.hours else "",
            f"{budget.gpu_hours:g} GPU-hours" if budget.gpu_hours else "",
            f"until {budget.deadline}" if budget.deadline else "",
            f"a cost of {budget.cost:g} at {budget.price:g} per GPU-hour" if budget.cost else "",
        ]
        lines.append(f"  space      {self.space.dimension} genes: {_some(self.space.names)}")
        if self.space.route is not None:
            lines.append(f"  route      {self.space.route.describe()}")
        lines.append(f"  controller {self.controller.name}, budget {' and '.join(part for part in limits if part)}")
        lines += [f"             {note.removeprefix('controller ')}" for note in self.controller.notes]
        for objective in self.tasks.objectives:
            held = self._held(objective.task)
            lines.append(
                f"  objective  {objective.name}: {objective.goal} {objective.metric} on "
                f"{self._asked(objective)} items, {held} held out, of {self.tasks.documents[objective.task]}"
            )
        lines += [f"  constraint {text}" for text in self.search_file.constraints]
        free = available_bytes("cpu")
        lines.append(
            f"  memory     {self.needed_bytes / 2**30:.2f} GiB per worker"
            + (f", {free / 2**30:.1f} GiB free here" if free is not None else "")
        )
        lines.append(f"  disk       {_size(self.export_bytes)} per exported candidate")
        lines.append(f"  time       about {_span(self.time.seconds)} per candidate{self._in_all()}: {self.time.basis}")
        lines += [f"  vocabulary {note.removeprefix('vocabulary of ')}" for note in self.vocabulary]
        return "\n".join([*lines, *(f"  warning    {warning}" for warning in self.warnings)])

    def _in_all(self) -> str:
        candidates = self.search_file.budget.candidates
        return f", {_span(candidates * self.time.seconds)} for {candidates} by one worker" if candidates else ""

    def _asked(self, objective: Objective) -> str:
        """Return how many items a candidate is asked, and of how many where its score is estimated."""
        asked, scoring = len(self.tasks.plan.search[objective.task]), self.search_file.scoring
        if scoring.estimator == "mean" or scoring.items is None or objective.kind != "task" or scoring.items >= asked:
            return str(asked)
        return f"{scoring.items} of {asked} (estimator {scoring.estimator})"

    def _held(self, task: str) -> int:
        plan = self.tasks.plan
        return len(plan.holdout.get(plan.stands_in.get(task, task), ()))


def check(file: str | Path) -> CheckReport:
    """Return what a search of `file` would do; reads the file, models' headers and tasks, and loads no weights.

    Raises:
        SearchFileError: lists every problem of the file, the models and the tasks.

    >>> from evomerge import check
    >>> report = check("small.yaml")
    >>> len(report.models), report.controller.name
    (3, 'sobol')
    """
    search_file = read_search_file(file)
    problems = Problems(search_file)
    models = inspect_models(search_file, problems)
    tasks = inspect_tasks(search_file, problems, models)
    preparation = freeze(search_file, models, tasks, problems, read_weights=False)
    assert models is not None  # freeze has refused the problems otherwise
    assert tasks is not None
    layouts = dict(models.layouts)
    facts = {name: facts_of(layout) for name, layout in layouts.items()}
    names = {name: short_name(name) for name in layouts}
    warnings = [
        *tasks.warnings,
        *warnings_between(facts),
        *licence_warnings({names[name]: found.licence for name, found in facts.items()}),
        *(f"'{name}': {finding}" for name, layout in layouts.items() for finding in lint_folder(layout.folder)),
    ]
    few = search_file.scoring.items if search_file.scoring.estimator != "mean" else None
    asked = {objective.task: len(tasks.plan.search[objective.task]) for objective in tasks.objectives}
    items = sum(count if few is None else min(count, few) for count in asked.values())
    time = estimate_time(list(layouts.values()), items)
    notes = models.alignment.notes if models.alignment is not None else ()
    space, controller = preparation.space, preparation.config.controller
    report = CheckReport(search_file.path, layouts, space, tasks, search_file, facts, time, controller, notes, warnings)
    free = available_bytes("cpu")
    if free is not None and report.needed_bytes > free:
        warnings.append(f"a worker needs {_size(report.needed_bytes)}, {_size(free)} are free on this machine")
    return report


def _model_line(facts: ModelFacts) -> str:
    """Return what people want to see of a model in one line."""
    heads = f"{facts.heads} heads" + (f" ({facts.kv_heads} key-value)" if facts.kv_heads != facts.heads else "")
    parts = [
        f"{facts.parameters / 1e6:,.2f}M parameters",
        f"{facts.layers} layers",
        heads if facts.heads else "",
        facts.dtype,
        f"{facts.rows} tokens" if facts.rows else "",
        f"context {facts.context}" if facts.context else "",
        f"LoRA rank {'/'.join(map(str, facts.adapter_ranks))}" if facts.adapter_ranks else "",
        f"licence {facts.licence}" if facts.licence else "",
    ]
    return ", ".join(part for part in parts if part)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _span(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _short(name: str) -> str:
    """Return a hub id as it is, and a folder by its last two parts: enough to know it by."""
    if not name.startswith(("/", ".", "~")):
        return name
    return "/".join(name.rstrip("/").split("/")[-2:])


def _some(names: tuple[str, ...], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... {names[-1]}"
