"""`check`: everything about a search that can be known in seconds, without loading weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.errors import SearchFileError
from evomerge.run.preparation import PreparedTasks, models_of, prepare_tasks, read_layouts
from evomerge.searchfile import SearchFile, load_search_file
from evomerge.space import SearchSpace
from evomerge.weights.layout import Layout
from evomerge.weights.plan import available_bytes, resident_bytes


@dataclass(frozen=True)
class CheckReport:
    """What a search would do, and what it needs."""

    path: str
    models: dict[str, Layout]  # the base first
    space: SearchSpace
    tasks: PreparedTasks
    search_file: SearchFile
    warnings: list[str] = field(default_factory=list)

    @property
    def needed_bytes(self) -> int:
        """Memory that one worker needs, beside what the forward pass takes."""
        return resident_bytes(list(self.models.values()))

    def to_mapping(self) -> dict[str, Any]:
        """Return the form of `check --json`."""
        return {
            "file": self.path,
            "models": {
                name: {"parameters": layout.parameters, "layers": layout.layers, "dtype": layout.dtype}
                for name, layout in self.models.items()
            },
            "genes": list(self.space.names),
            "objectives": [
                {"name": o.name, "task": o.task, "metric": o.metric, "goal": o.goal} for o in self.tasks.objectives
            ],
            "items": {task: len(items) for task, items in self.tasks.plan.search.items()},
            "holdout": {task: len(items) for task, items in self.tasks.plan.holdout.items()},
            "needed_bytes": self.needed_bytes,
            "available_bytes": available_bytes("cpu"),
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{self.path}: no problems found"]
        for name, layout in self.models.items():
            lines.append(
                f"  model      {_short(name):<24} {layout.parameters / 1e6:,.2f}M parameters, "
                f"{layout.layers} layers, {layout.dtype}"
            )
        budget, controller = self.search_file.budget, self.search_file.controller
        limits = [
            f"{budget.candidates} candidates" if budget.candidates else "",
            f"{budget.hours:g} h" if budget.hours else "",
        ]
        lines.append(f"  space      {self.space.dimension} genes: {_some(self.space.names)}")
        lines.append(f"  controller {controller.name}, budget {' and '.join(part for part in limits if part)}")
        for objective in self.tasks.objectives:
            asked, held = self.tasks.plan.search[objective.task], self._held(objective.task)
            lines.append(
                f"  objective  {objective.name}: {objective.goal} {objective.metric} on {len(asked)} items, "
                f"{held} held out, of {self.tasks.documents[objective.task]}"
            )
        free = available_bytes("cpu")
        lines.append(
            f"  memory     {self.needed_bytes / 2**30:.2f} GiB per worker"
            + (f", {free / 2**30:.1f} GiB free here" if free is not None else "")
        )
        return "\n".join([*lines, *(f"  warning    {warning}" for warning in self.warnings)])

    def _held(self, task: str) -> int:
        plan = self.tasks.plan
        return len(plan.holdout.get(plan.stands_in.get(task, task), ()))


def check(file: str | Path) -> CheckReport:
    """Return what a search of `file` would do; reads the file, models' headers and tasks, and loads no weights.

    Raises:
        SearchFileError: lists every problem of the file, the models and the tasks.
    """
    search_file = load_search_file(file)
    problems: list[str] = []
    models = models_of(search_file.merge)
    layouts = read_layouts(models, problems)
    tasks = prepare_tasks(search_file, problems)
    if problems or tasks is None:
        raise SearchFileError(search_file.path, problems)
    base = layouts[models[0]]
    space = search_file.space(layers=base.layers, modules=base.modules)
    warnings = list(tasks.warnings)
    free = available_bytes("cpu")
    needed = resident_bytes(list(layouts.values()))
    if free is not None and needed > free:
        warnings.append(f"a worker needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free on this machine")
    return CheckReport(search_file.path, layouts, space, tasks, search_file, warnings)


def _short(name: str) -> str:
    return name if len(name) <= 40 else "..." + name[-37:]


def _some(names: tuple[str, ...], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... {names[-1]}"
