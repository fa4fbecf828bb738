"""Public docstrings are complete: every parameter, what comes back, every error, every field; and nothing that is not.

What is public: what `evomerge`, its figures and the reference page name, and what one writes against to extend it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

import evomerge
from evomerge import errors, figures

# module -> names; a class stands for its public methods, those it inherits from evomerge's own classes too
EXTENDING = {
    "evomerge.candidate": ("Objective", "Candidate", "Response", "Score", "Failure", "Job", "Answers", "Outcome"),
    "evomerge.recipe": ("Recipe", "Source", "passthrough"),
    "evomerge.space": ("SearchSpace", "build_space"),
    "evomerge.space._genes": ("Gene",),
    "evomerge.controllers._protocol": (
        "SearchProblem",
        "Controller",
        "NoiseAware",
        "CountsUpdates",
        "WarmStartPoint",
        "tell",
    ),
    "evomerge.controllers._registry": ("build",),
    "evomerge.merge._catalogue": ("Method", "Parameter"),
    "evomerge.scoring.metrics._python_function": ("Asked",),
    "evomerge.scoring.metrics._metric": ("Measure", "ModelInterface"),
    "evomerge.runs._front_table": ("Front",),
    "evomerge.runs._fronts": ("FrontRequest", "FrontAnswer"),
    "evomerge.runs._comparison": ("Comparison", "compare"),
    "evomerge.runs._holdout": ("Final", "compare_finals"),
    "evomerge.runs._columns": ("Column", "describe", "markdown"),
    "evomerge.runs._optuna_storage": ("write_study",),
    "evomerge.reports": ("write_report", "report_html"),
    "evomerge.commands._check": ("CheckReport",),
    "evomerge.commands._search_options": ("Reporter", "Execution", "ResumeOptions", "SearchLimits", "SearchOptions"),
    "evomerge.reports.trackers._values": ("RunInfo", "LoggedStep", "RunResult", "Resumed", "Tracker"),
}
OWN_ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)}


def surface() -> dict[str, Any]:
    """Return every public function and class by its dotted name."""
    found = {
        f"evomerge.{name}": getattr(evomerge, name)
        for name in evomerge.__all__
        if name not in ("__version__", "figures")
    }
    found |= {f"evomerge.figures.{name}": getattr(figures, name) for name in figures.__all__}
    for module, names in EXTENDING.items():
        found |= {f"{module}.{name}": getattr(importlib.import_module(module), name) for name in names}
    return found


def functions() -> dict[str, FunctionType]:
    """Return every public function and method by its dotted name."""
    found = {}
    for name, value in surface().items():
        if isinstance(value, type):
            found |= {f"{name}.{method}": function for method, function in methods(value)}
        else:
            found[name] = value
    return found


def methods(kind: type) -> Iterator[tuple[str, FunctionType]]:
    for owner in kind.__mro__:
        if not owner.__module__.startswith("evomerge"):
            continue
        for name, value in vars(owner).items():
            if name.startswith("_"):
                continue
            value = value.fget if isinstance(value, property) else value
            value = value.func if isinstance(value, functools.cached_property) else value
            value = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if isinstance(value, FunctionType):
                yield name, value


def section(text: str, title: str) -> dict[str, str]:
    """Return the entries of a docstring's section, name -> text: those of `Args:`, `Raises:`, ..."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", text + "\n", re.MULTILINE)
    entries: dict[str, str] = {}
    for line in textwrap.dedent(found[1]).splitlines() if found else ():
        if entry := re.match(r"([\w, *]+): ?(.*)$", line):
            entries |= {name.strip(" *"): entry[2] for name in entry[1].split(",")}
    return entries


def raised(function: FunctionType) -> set[str]:
    """Return the types of evomerge's own that a function raises by itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    } & OWN_ERRORS


@pytest.mark.parametrize("name", sorted(functions()))
def test_a_function_tells_its_parameters_its_result_and_its_errors(name: str) -> None:
    function = functions()[name]
    text = inspect.getdoc(function) or ""
    assert text, "no docstring"
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters if parameter not in ("self", "cls")]
    arguments = section(text, "Args")
    assert set(arguments) <= set(parameters), "Args names something that is no parameter"
    untold = [p for p in parameters if not arguments.get(p) and f"`{p}`" not in text]
    # told by its entry, as `name` in the prose, or together with all parameters of another function: as in `that`
    borrowed = re.search(r"as in `\w+`", text) is not None
    assert borrowed or not untold, f"parameters that are told nowhere: {untold}"
    if signature.return_annotation not in ("None", None, inspect.Signature.empty):
        noun = not parameters  # a property's line is what it is
        assert noun or re.search(r"\b(return|yield|and say)", text, re.IGNORECASE), "what comes back is told nowhere"
    told = set(section(text, "Raises")) | set(re.findall(r"Raises? (\w+)", text))
    told |= {part for entry in told for part in re.split(r",\s*", entry)}
    assert raised(function) <= told, f"raises {raised(function) - told}, which is told nowhere"


@pytest.mark.parametrize("name", sorted(n for n, value in surface().items() if isinstance(value, type)))
def test_a_class_tells_what_it_is_and_every_field(name: str) -> None:
    kind = surface()[name]
    text = inspect.getdoc(kind) or ""
    assert len(text) > 20
    if not dataclasses.is_dataclass(kind):
        return
    source = textwrap.dedent(inspect.getsource(kind))
    lines, (tree,) = source.splitlines(), ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    spans = {node.target.id: node for node in tree.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    for field in dataclasses.fields(kind):
        if field.metadata.get("help") or field.name not in spans:  # told by `--help`, or by the class that it is from
            continue
        start, end = spans[field.name].lineno, spans[field.name].end_lineno
        beside = "#" in "".join(lines[start - 1 : end]) or lines[start - 2].strip().startswith("#")
        plain = f"{field.name}:" in text or f"`{field.name}`" in text or re.search(rf"\b{field.name}\b", text)
        assert beside or plain or field.name == "name", f"field {field.name} is told nowhere"


def test_the_rules_see_what_is_missing() -> None:
    def silent(run: object, count: int) -> int:
        """Return something.

        Args:
            count: of them.
        """
        if count:
            raise errors.InputError("no")
        return 1

    text = inspect.getdoc(silent) or ""
    assert section(text, "Args") == {"count": "of them."}
    assert "`run`" not in text

    def loud() -> None:
        raise InputError("no")  # noqa: F821

    assert raised(loud) == {"InputError"}
    assert len(functions()) > 100
