"""Search files and recipe files: read, checked as a whole, and turned into plain frozen values.

This is where configuration stops. Every mistake of a file is reported at once, each with its line, its place, what was
expected, what came, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from copy import deepcopy
from typing import Any

from evomerge.config._grammar import Text
from evomerge.config._objective_sections import read_objectives
from evomerge.config._requests import BudgetRequest, ControllerRequest, ScoringRequest, SearchFile
from evomerge.config._sections import COMMON, search_file_section
from evomerge.config._yaml_lines import Document, read_document, read_text
from evomerge.controllers import CONTROLLERS, warm_starting
from evomerge.errors import SearchFileError
from evomerge.merge import CATALOGUE
from evomerge.model_reference import plain_models
from evomerge.recipe import Recipe, recipe_from_mapping
from evomerge.space import (
    MERGED,
    Place,
    Problem,
    check_form,
    expand,
    form_problems,
    is_marker,
    located,
    model_places,
    named_sources,
    read_marker,
    resolve_model,
    route_problems,
    sources_of,
    strange_parameters,
)

LIMITS = ("candidates", "hours", "gpu_hours", "deadline", "cost")
DEFAULT_CONTROLLER = "cma-es"


# Looks at models and tasks: (what could be read of a file, its sections that are free of mistakes) -> what is wrong.
Further = Callable[[SearchFile, Set[str]], Sequence[str]]


def load_search_file(path: str | os.PathLike[str], further: Further | None = None) -> SearchFile:
    """Return a search file in which nothing is wrong that can be known without loading models or tasks.

    Args:
        path: of the file.
        further: asked, where the file has mistakes, about what else is wrong with the sections that have none, so that
            all of it can be told at once. Of other sections it must not believe anything.

    Raises:
        SearchFileError: the file is missing, unreadable, or has mistakes; all of them are listed, with lines.
    """
    name, text, document = _read(path)
    problems = list(document.problems)
    form = search_file_section(_named_controller(document.value))
    content = form.read(document.value, (), problems)
    folder = os.path.dirname(os.path.abspath(name))
    merge = content["merge"]
    route = None
    if merge is not None and isinstance(document.value.get("merge"), Mapping):
        routed = content["route"] is not None
        written, before = merge, len(problems)
        merge = _checked_merge(merge, folder, ("merge",), problems, routed=routed)
        if routed and len(problems) == before:
            route = _route(content["route"], merge, plain_models(deepcopy(dict(written))), problems)
    objectives = read_objectives(content["objectives"] or (), folder, problems)
    tasks = [objective.task for objective in objectives if objective.measure is None]
    scoring = _scoring(content["scoring"], tasks, folder, problems)
    include = _include(content["tasks"], folder, problems)
    controller = {key: value for key, value in (content["controller"] or {}).items() if value is not None}
    _find_warm_start(controller, folder, problems)
    if content["constraints"] and scoring.racing is not None:
        text = "racing cannot be combined with constraints: it may stop feasible candidates; remove one of the two"
        problems.append(Problem(("scoring", "racing"), text))
    budget = content["budget"] or {}
    if isinstance(document.value.get("budget"), Mapping):
        problems += [Problem(("budget",), text) for text in budget_problems(document.value["budget"])]
    unsound = {str(problem.place[0]) if problem.place else "" for problem in problems}
    found = SearchFile(
        path=os.path.abspath(name),
        text=text,
        merge=merge or {},
        objectives=objectives,
        include=include,
        scoring=scoring,
        controller=_controller(controller),
        budget=BudgetRequest(**budget),
        seed=content["seed"] or 0,
        constraints=tuple(content["constraints"] or ()),
        route=route,
        lines=document.lines,
    )
    if problems:
        # a file that is broken as a whole is mended first
        more = further(found, {key.name for key in form.keys} - unsound) if further and "" not in unsound else ()
        raise SearchFileError(name, [*located(problems, document.lines), *more])
    return found


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Return the recipe of a mergekit YAML without markers; model folders are made absolute.

    Raises:
        SearchFileError: the file is missing, unreadable, or has mistakes; all of them are listed, with lines.
    """
    name, _, document = _read(path)
    problems = list(document.problems)
    value = document.value
    if "merge" in value and "merge_method" not in value:
        problems = [Problem((), "this is a search file, not a recipe; use `evomerge search` on it")]
    elif markers := list(_markers(value, ())):
        problems += [
            Problem(at, "a `search` marker is not a value; use `evomerge search`, or write a number") for at in markers
        ]
    else:
        value = _checked_merge(value, os.path.dirname(os.path.abspath(name)), (), problems, recipe=True)
    if problems:
        raise SearchFileError(name, located(problems, document.lines))
    return recipe_from_mapping(value)


def load_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a YAML file that holds a mapping as plain data, whatever it describes.

    Raises:
        SearchFileError: the file is missing, unreadable, or no such YAML; with lines.
    """
    name, _, document = _read(path)
    if document.problems:
        raise SearchFileError(name, located(document.problems, document.lines))
    value: dict[str, Any] = document.value
    return value


def _read(path: str | os.PathLike[str]) -> tuple[str, str, Document]:
    """Return name, text and content of a YAML file that holds a mapping."""
    name = os.fspath(path)
    text = read_text(name)
    document = read_document(text)
    if document.value is None:
        problems = list(document.problems) or [Problem((), "the file is empty; see search_spaces/ for examples")]
        raise SearchFileError(name, located(problems, document.lines))
    if not isinstance(document.value, dict):
        expected = "must be a mapping with merge, objectives and budget (a search file) or merge_method (a recipe)"
        raise SearchFileError(name, [f"line 1: {expected}, got {type(document.value).__name__}"])
    return name, text, document


def _checked_merge(
    merge: Mapping[str, Any],
    folder: str,
    place: Place,
    problems: list[Problem],
    *,
    recipe: bool = False,
    routed: bool = False,
) -> dict[str, Any]:
    """Return the merge section with absolute folders; what is wrong with it is appended to `problems`.

    Args:
        merge: as written.
        folder: what relative folders are relative to.
        place: where it stands.
        problems: grows.
        recipe: it is the recipe of one model, without markers.
        routed: a route section stands beside it.
    """
    result = plain_models(deepcopy(dict(merge)))
    form = check_form(result, place, recipe=recipe)
    problems += form
    if not all(_is_shallow(problem, place) for problem in form):
        return result
    if not recipe and not routed and not list(_markers(result, ())):
        text = (
            "nothing to search: no `search` marker; replace a number by {search: [low, high]}, or use `evomerge merge`"
        )
        problems.append(Problem(place, text))
    for at, model in list(model_places(result)):
        resolved, wrong = resolve_model(model, folder)
        if wrong:
            problems.append(Problem((*place, *at), wrong))
        _put(result, at, resolved)
    if result.get("route") is not None:
        routed = True
        result["route"] = _recipe_route(result, merge, place, problems)
    method = result.get("merge_method")
    if is_marker(method) or (isinstance(method, str) and method in CATALOGUE):
        problems += expand(result, place=place, routed=routed).problems
    else:  # without a known method a marker can still be wrong in itself
        for at in _markers(result, ()):
            problems += read_marker(_at(result, at), (*place, *at))[1]
        problems += strange_parameters(result, place)
    return result


def _route(
    content: Mapping[str, Any], merge: Mapping[str, Any], written: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """Return the route section with sources as in the merge section; what is wrong is appended to `problems`."""
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}
    given = {key: value for key, value in given.items() if value is not None}
    names = {model: str(_at(merge, at)) for at, model in model_places(written)}
    route, wrong = named_sources(given, merge, names, ("route",))
    problems += wrong
    if not wrong:
        problems += form_problems(route, merge, ("route",))
    return route


def _recipe_route(
    recipe: Mapping[str, Any], written: Mapping[str, Any], place: Place, problems: list[Problem]
) -> list[Any]:
    """Return the hops of a recipe with sources as they stand in it; what is wrong is appended to `problems`."""
    names = {model: str(_at(recipe, at)) for at, model in model_places(plain_models(deepcopy(dict(written))))}
    hops = recipe["route"]
    if isinstance(hops, list):
        hops = [
            [names.get(hop[0], hop[0]), *hop[1:]] if isinstance(hop, list) and hop and isinstance(hop[0], str) else hop
            for hop in hops
        ]
    sources = tuple(source for source in sources_of(recipe) if source != MERGED)
    problems += route_problems(hops, sources, (*place, "route"))
    return hops if isinstance(hops, list) else []


_DEEP = ((), ("models",), ("slices",), ("parameters",), ("tokenizer",))


def _is_shallow(problem: Problem, place: Place) -> bool:
    """True for a mistake that leaves the models and parameters readable, so that theirs are found in the same pass."""
    inner = problem.place[len(place) :]
    return problem.message.startswith("unknown key") or inner[:1] not in _DEEP


def _put(document: Any, place: Place, value: str) -> None:
    for step in place[:-1]:
        document = document[step]
    document[place[-1]] = value


def _at(document: Any, place: Place) -> Any:
    for step in place:
        document = document[step]
    return document


def _markers(node: Any, place: Place) -> list[Place]:
    if is_marker(node):
        return [place]
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    return [found for step, child in children for found in _markers(child, (*place, step))]


def _scoring(
    content: dict[str, Any] | None, tasks: Sequence[str], folder: str, problems: list[Problem]
) -> ScoringRequest:
    if content is None:
        return ScoringRequest()
    holdout, place = content["holdout"], ("scoring", "holdout")
    if isinstance(holdout, dict):
        for task, other in holdout.items():
            known = Text(tuple(dict.fromkeys(tasks)), what="task among the objectives")
            known.read(task, (*place, task), problems)
            Text(what="task").read(other, (*place, task), problems)
    elif isinstance(holdout, tuple) and holdout and len(holdout) != len(set(tasks)):
        text = f"must name one task for each of the {len(set(tasks))} tasks of the objectives, got {len(holdout)}"
        problems.append(Problem(place, text))
    if content["racing"] is not None and content["estimator"] != "mean":
        text = "racing and estimator both choose the items of each candidate; remove one, or set estimator: mean"
        problems.append(Problem(("scoring", "racing"), text))
    content = _estimated(content, tasks, folder, problems)
    if content["cache"] is not None:
        cache = os.path.normpath(os.path.join(folder, os.path.expanduser(content["cache"])))
        if os.path.exists(cache) and not os.path.isdir(cache):
            problems.append(Problem(("scoring", "cache"), f"must be a folder, and {cache} is a file"))
        content = {**content, "cache": cache}
    return ScoringRequest(**content)


def _estimated(content: dict[str, Any], tasks: Sequence[str], folder: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the section with `banks` in the place of `bank`; what does not fit the estimator is a problem."""
    content = dict(content)
    given = content.pop("bank")
    banks = {"": given} if isinstance(given, str) else given or {}
    if content["estimator"] == "mean":
        resample = "resample" if content["anchors"] == "resample" else None
        keys = (
            ("bank", given),
            ("pool", content["pool"]),
            ("full_evaluation_every", content["full_evaluation_every"]),
            ("anchors", resample),
        )
        for key, value in keys:
            if value is not None:
                text = "is only used by an estimator; set estimator: auto, or leave it out"
                problems.append(Problem(("scoring", key), text))
    elif content["estimator"] == "raw" and given is not None:
        problems.append(Problem(("scoring", "bank"), "is not used by estimator raw; choose another, or leave it out"))
    elif content["items"] is None:
        text = f"estimator {content['estimator']!r} needs items: how many each candidate answers, as in items: 10"
        problems.append(Problem(("scoring",), text))
    found = {}
    for task, path in banks.items():
        place: Place = ("scoring", "bank", task) if task else ("scoring", "bank")
        if task:
            Text(tuple(dict.fromkeys(tasks)), what="task among the objectives").read(task, place, problems)
        name = Text(what="file").read(path, place, problems)
        found[task] = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
        if not os.path.isfile(found[task]):
            problems.append(Problem(place, f"no such file: {found[task]}; paths are relative to this file"))
    return {**content, "banks": found}


def _include(content: dict[str, Any] | None, folder: str, problems: list[Problem]) -> tuple[str, ...]:
    folders: list[str] = []
    for index, name in enumerate((content or {}).get("include") or ()):
        path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
        if not os.path.isdir(path):
            text = f"no such folder: {path}; relative paths are relative to the file"
            problems.append(Problem(("tasks", "include", index), text))
        folders.append(path)
    return tuple(folders)


def _named_controller(document: Mapping[str, Any]) -> str | None:
    """Return the controller that a file names, or None where the name is unknown: then any option may be right."""
    section = document.get("controller")
    name = (section.get("name") if isinstance(section, Mapping) else None) or DEFAULT_CONTROLLER
    return name if isinstance(name, str) and name in CONTROLLERS else None


def _find_warm_start(controller: dict[str, Any], folder: str, problems: list[Problem]) -> None:
    """Make the path of the warm start absolute; say where it is missing, or where the controller has no use for it."""
    name, source = controller.get("name", DEFAULT_CONTROLLER), controller.get("warm_start")
    if source is None:
        return
    place = ("controller", "warm_start")
    if name in CONTROLLERS and not CONTROLLERS[name].warm_start:
        known = ", ".join(warm_starting())
        problems.append(Problem(place, f"{name} cannot start from other results; those that can: {known}"))
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(source)))
    if not os.path.exists(path):
        problems.append(
            Problem(place, f"no such run folder or recipe: {path}; relative paths are relative to the file")
        )
    controller["warm_start"] = path


def _controller(content: dict[str, Any]) -> ControllerRequest:
    # the loop reads all common keys but `warm_start`, which the controller's setup is made from
    of_the_loop = {key.name for key in COMMON} - {"warm_start"}
    options = {key: value for key, value in content.items() if key != "name" and key not in of_the_loop}
    return ControllerRequest(
        content.get("name", DEFAULT_CONTROLLER),
        options,
        asynchronous=content.get("asynchronous", False),
        staleness=content.get("staleness"),
    )


def budget_problems(budget: Mapping[str, Any]) -> list[str]:
    """Return what is missing in a budget: a limit at all, or one of cost and price without the other."""
    problems = []
    if not any(budget.get(key) is not None for key in LIMITS):
        problems.append(f"one of {', '.join(LIMITS)} is needed, as in {{candidates: 300}}")
    if (budget.get("cost") is None) != (budget.get("price") is None):
        given, missing = ("cost", "price") if budget.get("price") is None else ("price", "cost")
        problems.append(f"{given} needs {missing} beside it, as in {{cost: 50, price: 2.5}}: 20 GPU-hours of 2.5 each")
    return problems
