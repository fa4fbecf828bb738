"""Search files and recipe files: read, checked as a whole, and turned into plain frozen values.

This is where configuration stops. Every mistake of a file is reported at once, each with its line, its place, what was
expected, what came, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from copy import deepcopy
from typing import Any

from evomerge._model_reference import plain_models
from evomerge.config._objective_sections import repeats
from evomerge.config._section_base import read_section
from evomerge.config._sections import (
    DEFAULT_CONTROLLER,
    BudgetRequest,
    ControllerRequest,
    RouteSection,
    ScoringRequest,
    SearchFile,
    search_file_model,
)
from evomerge.config._yaml_lines import YamlDocument, read_document, read_text
from evomerge.controllers import CONTROLLERS
from evomerge.errors import SearchFileError
from evomerge.merge import CATALOGUE
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

# Looks at models and tasks: (what could be read of a file, its sections that are free of mistakes) -> what is wrong.
Further = Callable[[SearchFile, Set[str]], Sequence[str]]


def load_search_file(path: str | os.PathLike[str], further: Further | None = None) -> SearchFile:
    """Return a search file in which nothing is wrong that can be known without loading models or tasks.

    Args:
        path: of the file.
        further: asked, where the file has mistakes, about what else is wrong with the sections that have none, so that
            all mistakes are reported at once. It must not rely on other sections.

    Raises:
        SearchFileError: the file is missing, unreadable, or has mistakes; all of them are listed, with lines.
    """
    name, text, document = _read(path)
    problems = list(document.problems)
    folder = os.path.dirname(os.path.abspath(name))
    model = search_file_model(_named_controller(document.value))
    content = read_section(model, document.value, folder, problems)
    merge, route = content.merge, None
    if merge is not None:
        written, before = merge, len(problems)
        merge = _checked_merge(merge, folder, ("merge",), problems, routed=content.route is not None)
        if content.route is not None and len(problems) == before:
            route = _route(content.route, merge, plain_models(deepcopy(dict(written))), problems)
    objectives = [entry.request(folder) for entry in content.objectives or ()]
    problems += repeats(objectives)
    unsound = {str(problem.place[0]) if problem.place else "" for problem in problems}
    found = SearchFile(
        path=os.path.abspath(name),
        text=text,
        merge=merge or {},
        objectives=tuple(objective for objective in objectives if objective is not None),
        include=(content.tasks and content.tasks.include) or (),
        scoring=content.scoring or ScoringRequest(),
        controller=ControllerRequest() if content.controller is None else content.controller.request(),
        budget=content.budget or BudgetRequest.model_construct(),
        seed=content.seed,
        constraints=content.constraints or (),
        route=route,
        lines=document.lines,
    )
    if problems:
        # a file that is broken as a whole is mended first
        more = further(found, set(model.model_fields) - unsound) if further and "" not in unsound else ()
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


def _read(path: str | os.PathLike[str]) -> tuple[str, str, YamlDocument]:
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
    section: RouteSection, merge: Mapping[str, Any], written: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """Return the route section with sources as in the merge section; what is wrong is appended to `problems`."""
    given = section.model_dump(mode="json", exclude_none=True)
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


def _named_controller(document: Mapping[str, Any]) -> str | None:
    """Return the controller that a file names, or None where the name is unknown: then any option may be right."""
    section = document.get("controller")
    name = (section.get("name") if isinstance(section, Mapping) else None) or DEFAULT_CONTROLLER
    return name if isinstance(name, str) and name in CONTROLLERS else None
