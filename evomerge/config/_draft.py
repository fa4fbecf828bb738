"""A first search file from models and tasks, as `evomerge init` writes it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evomerge._model_reference import is_folder, parse
from evomerge.errors import InputError, near
from evomerge.merge import CATALOGUE

# method -> does it start from a base, and the searched parameters as (name, marker, meaning)
_WEIGHT = (
    "weight",
    "{{search: [0.0, 1.5], per: [model, {{blocks: {blocks}}}]}}",
    "of each task vector; 0 leaves it out",
)
_DENSITY = ("density", "{{search: [0.1, 1.0], per: [model, {{blocks: {blocks}}}]}}", "fraction of its entries kept")
_SHARE = ("weight", "{{search: [0.0, 1.0], per: [model, {{blocks: {blocks}}}]}}", "share of each model")
_METHODS = {
    "ties": (True, (_WEIGHT, _DENSITY)),
    "dare_ties": (True, (_WEIGHT, _DENSITY)),
    "task_arithmetic": (True, (_WEIGHT,)),
    "linear": (False, (_SHARE,)),
}
METHODS = tuple(_METHODS)
_PLAIN = re.compile(
    r"[A-Za-z0-9_./~][\w./~+@-]*"
)  # what YAML reads as the text that it is; numbers are asked for below


@dataclass(frozen=True)
class Draft:
    """What a first search file says; paths are relative to `folder`, as the user typed them."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    base: str | None = None
    include: tuple[str, ...] = ()  # folders of task YAML
    method: str = "ties"
    items: int = 100
    candidates: int = 200
    blocks: int = 4
    seed: int = 1
    folder: str = ""  # working directory when empty


def draft_text(draft: Draft, to: str) -> str:
    """Return a commented search file; folders are written relative to the folder of `to`.

    Raises:
        InputError: something is missing, unknown or impossible; the message says which and what to give.
    """
    _check(draft)
    based, parameters = _METHODS[draft.method]
    draft = _placed(draft, os.path.dirname(os.path.abspath(os.path.join(draft.folder, to))))
    lines = _header(draft, to, len(parameters))
    lines += ["merge:                        # a mergekit configuration; {search: ...} may stand for any number"]
    lines.append(
        f"  merge_method: {draft.method:<15} # or {{search: [ties, dare_ties, task_arithmetic]}}: the search chooses"
    )
    if based and draft.base is not None:
        lines.append(f"  base_model: {_scalar(draft.base)}")
    lines += ["  models:", *(f"    - model: {_scalar(model)}" for model in draft.models)]
    lines.append("  parameters:                 # one gene per model and block of layers")
    lines += [f"    {name}: {marker.format(blocks=draft.blocks)}   # {about}" for name, marker, about in parameters]
    lines.append(
        f"    normalize: {'true' if draft.method == 'linear' else 'false':<18} # true divides by the sum of weights"
    )
    lines.append("objectives:                   # one: the best model; several: a Pareto front")
    lines += [f"  - {{task: {_scalar(task)}}}" for task in draft.tasks]
    if draft.include:
        folders = ", ".join(_scalar(folder) for folder in draft.include)
        lines.append(f"tasks: {{include: [{folders}]}}   # where lm-eval finds further task YAML")
    lines += [
        f"scoring: {{items: {draft.items}, holdout: 0.5}}   # questions per task; the share kept for the final report",
        "controller: {name: auto}      # chosen by genes, objectives and budget; `evomerge check` says which, and why",
        f"budget: {{candidates: {draft.candidates}}}     # strict; also hours, gpu_hours, deadline, cost with price",
        f"seed: {draft.seed}                       # the same seed gives the same candidates",
    ]
    return "\n".join(lines) + "\n"


def _header(draft: Draft, to: str, parameters: int) -> list[str]:
    genes = parameters * len(draft.models) * draft.blocks
    size = f"{len(draft.models)} models x {draft.blocks} blocks of layers x {parameters} = {genes} dimensions"
    stem = os.path.splitext(os.path.basename(to))[0]
    return [
        f"# {draft.method} over {size}.",
        "#",
        f"# Check it:  evomerge check  {to}",
        f"# Try it:    evomerge search {to} --candidates 20",
        f"# Look:      evomerge front  runs/{stem}",
    ]


def _check(draft: Draft) -> None:
    if draft.method not in METHODS:
        where = "; any other goes into the file by hand" if draft.method in CATALOGUE else ""
        raise InputError(f"unknown method {draft.method!r} of a first search. {near(draft.method, METHODS)}{where}")
    if not draft.tasks:
        raise InputError("tasks are missing: name at least one lm-eval task, as in --tasks gsm8k,mbpp")
    if _METHODS[draft.method][0] and not draft.base:
        raise InputError(f"the base is missing: {draft.method} adds task vectors to it; give --base MODEL")
    least = 1 if _METHODS[draft.method][0] else 2
    if len(draft.models) < least:
        raise InputError(f"{draft.method} needs at least {least} --model, got {len(draft.models)}")
    for what, names in (("model", draft.models), ("task", draft.tasks)):
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"the {what} {name!r} is listed twice; list each {what} once")
    for option, value in (("items", draft.items), ("candidates", draft.candidates), ("blocks", draft.blocks)):
        if value < 1:
            raise InputError(f"{option} must be 1 or more, got {value}")


def _placed(draft: Draft, folder: str) -> Draft:
    """Return the draft with folders relative to `folder`; hub ids, absolute paths and those of '~' stay."""
    return replace(
        draft,
        models=tuple(_model(model, draft.folder, folder) for model in draft.models),
        base=None if draft.base is None else _model(draft.base, draft.folder, folder),
        include=tuple(_relative(path, draft.folder, folder) for path in draft.include),
    )


def _model(text: str, here: str, folder: str) -> str:
    reference = parse(text, here)
    if reference is None:
        return text  # `check` names what is wrong with it
    adapter = None if reference.adapter is None else _relative(reference.adapter, here, folder)
    return str(replace(reference, path=_relative(reference.path, here, folder), adapter=adapter))


def _relative(path: str, here: str, folder: str) -> str:
    if path.startswith(("~", os.sep)) or not is_folder(path, here):
        return path
    found = os.path.relpath(os.path.join(here or os.getcwd(), path), folder)
    # without the dot a folder beside the file could be read as a hub id once it is gone
    return found if found.startswith(os.pardir) else os.path.join(os.curdir, found)


def _scalar(text: str) -> str:
    """Return a text as YAML that reads back as this text: a JSON string wherever a plain one could be misread."""
    import yaml

    plain = _PLAIN.fullmatch(text) is not None and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def comma_list(text: str) -> Sequence[str]:
    """Return the entries of a list written with commas, without spaces and empty ones.

    >>> comma_list("add, sort,")
    ['add', 'sort']
    """
    return [part.strip() for part in text.split(",") if part.strip()]
