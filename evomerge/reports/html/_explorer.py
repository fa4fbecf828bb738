"""The front to explore: the data that the page's script draws, and the controls around it.

Everything that the script shows is in the page as JSON, and everything that it needs to be read without a script is in
the table: the script adds pictures, preferences and commands.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge._markup import Html, element, joined
from evomerge._yaml_text import yaml_text
from evomerge.errors import TaskError
from evomerge.objectives import Objectives
from evomerge.reports.html._drawing import scrolling
from evomerge.reports.html._findings import Findings, points, with_error
from evomerge.reports.html._section_predictions import predicted_points, predictions
from evomerge.runs import coefficients_frame, fitness_table
from evomerge.scoring import paired_difference

if TYPE_CHECKING:
    import pandas as pd

    from evomerge.candidate import Response

SHOWN_DOTS = 3000  # dominated candidates in the picture
SHOWN_CHOICES = 300  # rows of the table
BEST_OF_ONE = 20  # candidates to choose from where one objective makes a front of one
DETAIL_BYTES = 2_500_000  # limit on embedded recipes; keeps the report below 5 MB


def explorer(findings: Findings) -> Html:
    """Return the section: controls, picture, the chosen candidate, and the table of all choices."""
    if findings.best is None:
        return element("p", {}, "No candidate has scores yet, so there is no front to explore.")
    data = _data(findings)
    # NaN is no JSON: a browser would refuse the whole page
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    # a `</script>` in a name would end the script element
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, code)
    block = element("script", {"type": "application/json", "id": "front-data"}, Html(text))
    picture = element("div", {"class": "stage"}, _views(findings), _canvas(), _legend(findings, data))
    # aria-live: screen readers announce a new choice
    chosen = element("section", {"id": "chosen", "aria-live": "polite", "aria-label": "Chosen candidate"})
    return joined(
        [
            _note(findings, data),
            element(
                "div", {"class": "explorer", "id": "explorer"}, picture, element("div", {}, _controls(findings), chosen)
            ),
            _choices(findings, data["choices"]),
            predictions(findings),
            block,
        ]
    )


def _note(findings: Findings, data: Mapping[str, Any]) -> Html:
    count = len(findings.front)
    text = (
        f"{count} candidate{'s are' if count != 1 else ' is'} on the front (non-dominated). Scores are on "
        "the search items, bars are one standard error. "
    )
    if data["predicted"]:
        text += "Open squares are predicted, not measured. "
    if findings.estimated:
        text += "Hollow points, and scores with a ~, are estimated from few items. "
    if data["hidden"]:
        text += f"Of the dominated candidates, {len(data['dots'])} of {len(data['dots']) + data['hidden']} are drawn. "
    return element(
        "p",
        {},
        text,
        element("span", {"class": "script-only"}, "Select a point in the plot, by preference, or in the table."),
    )


def _views(findings: Findings) -> Html:
    count = len(findings.objectives)
    predicted = _toggle() if predicted_points(findings) else None
    if count < 3:  # the plane is the only view
        return element("div", {"class": "views script-only"}, predicted)
    options = [element("option", {"value": i}, o.name) for i, o in enumerate(findings.objectives)]
    second = [element("option", {"value": i, "selected": i == 1}, o.name) for i, o in enumerate(findings.objectives)]
    return element(
        "div",
        {"class": "views script-only"},
        element("label", {"for": "view"}, "Show"),
        element(
            "select",
            {"id": "view"},
            element("option", {"value": "parallel"}, "all objectives"),
            element("option", {"value": "plane"}, "two objectives"),
        ),
        element("label", {"for": "axis-x", "class": "plane-only"}, "across"),
        element("select", {"id": "axis-x", "class": "plane-only"}, *options),
        element("label", {"for": "axis-y", "class": "plane-only"}, "up"),
        element("select", {"id": "axis-y", "class": "plane-only"}, *second),
        predicted,
    )


def _toggle() -> Html:
    box = element("input", {"type": "checkbox", "id": "show-predicted", "checked": True})
    return element("label", {"for": "show-predicted", "class": "toggle"}, box, "predicted points")


def _canvas() -> Html:
    hint = "The plot needs JavaScript; the table below has the same data."
    return element(
        "div",
        {"class": "canvas"},
        element(
            "svg", {"id": "picture", "role": "img", "aria-label": "Pareto front; the table below has the same data"}
        ),
        element("div", {"id": "tip", "hidden": True}),
        element("noscript", {}, element("p", {}, hint)),
    )


def _legend(findings: Findings, data: Mapping[str, Any]) -> Html:
    kinds = [("front", "on the front"), ("dominated", "dominated"), ("parent", "parents"), ("picked", "chosen")]
    kinds += [("estimated", "estimated from few items")] if findings.estimated else []
    kinds += [("predicted", "predicted, not measured")] if data["predicted"] else []
    return element(
        "ul",
        {"class": "legend script-only"},
        *(element("li", {}, element("span", {"class": f"key {kind}"}), text) for kind, text in kinds),
    )


def _controls(findings: Findings) -> Html:
    """Return shortcuts, and a slider per objective for its weight."""
    marks: dict[str, int] = {}  # text -> candidate: the first of several in one role
    for number, texts in findings.marks.items():
        for text in texts:
            marks.setdefault(text, number)
    buttons = [element("button", {"type": "button", "data-pick": n}, text) for text, n in list(marks.items())[:8]]
    shortcuts = element("div", {"class": "shortcuts", "role": "group", "aria-label": "Shortcuts"}, *buttons)
    if len(findings.objectives) < 2:
        return element("div", {"class": "controls script-only"}, shortcuts)
    sliders = []
    for index, objective in enumerate(findings.objectives):
        name = f"weight-{index}"
        control = {"type": "range", "id": name, "min": 0, "max": 10, "step": 1, "value": 5, "data-objective": index}
        sliders += [
            element("label", {"for": name}, objective.name),
            element("input", control),
            element("output", {"for": name, "id": f"shown-{index}"}, "5"),
        ]
    preference = element(
        "fieldset",
        {"class": "preference"},
        element("legend", {}, "Weight of each objective"),
        element("div", {"class": "sliders"}, *sliders),
    )
    return element("div", {"class": "controls script-only"}, shortcuts, preference)


def _choices(findings: Findings, choices: Sequence[int]) -> Html:
    """Return the table of selectable candidates; its radio buttons make it usable with the keyboard."""
    head = [element("th", {"scope": "col"}, "candidate"), element("th", {"scope": "col"}, "outstanding in")]
    head += [element("th", {"scope": "col", "class": "n"}, o.name) for o in findings.objectives]
    rows = [_choice(findings, number) for number in choices]
    hidden = len(findings.front) - len(choices)  # negative with one objective, whose table has more than the front
    text = "Candidates, best overall first" + (f"; {hidden} more: evomerge front" if hidden > 0 else "")
    body = element(
        "table",
        {"id": "choices"},
        element("caption", {}, text),
        element("thead", {}, element("tr", {}, *head)),
        element("tbody", {}, *rows),
    )
    return element("div", {"class": "choices"}, scrolling(body, "Candidates"))


def _choice(findings: Findings, number: int) -> Html:
    name = f"pick-{number}"
    radio = element(
        "input", {"type": "radio", "name": "candidate", "id": name, "value": number, "class": "script-only"}
    )
    cells = [element("th", {"scope": "row"}, radio, element("label", {"for": name}, str(number)))]
    estimated = ["estimated"] if number in findings.estimated else []
    cells.append(element("td", {}, ", ".join([*findings.marks.get(number, []), *estimated])))
    scores = findings.evaluations[number].scores
    for o in findings.objectives:
        task = o.kind == "task"
        guess = "~ " if number in findings.estimated else ""
        text = with_error(scores[o.name], task)
        cells.append(element("td", {"class": "n"}, guess + text))
    return element("tr", {"data-candidate": number}, *cells)


def _data(findings: Findings) -> dict[str, Any]:
    """Return what the script draws; numbers as short as they stay distinct."""
    numbers, fitness, errors = fitness_table(findings.evaluations, findings.objectives)
    signs = np.array([o.fitness(1.0) for o in findings.objectives])  # (m,) fitness -> the metrics' units
    rows = {n: (fitness[i], errors[i]) for i, n in enumerate(numbers)}  # number -> ((m,), (m,))
    if len(findings.objectives) == 1:
        ranked = sorted(numbers, key=lambda n: (-Objectives(findings.objectives).scalarise(rows[n][0]), n))
        choices = ranked[:BEST_OF_ONE]
    else:
        choices = list(findings.front[:SHOWN_CHOICES])
    front = set(findings.front)
    rest = [n for n in numbers if n not in front]
    # evenly over the search: early candidates stay visible
    kept = [rest[i] for i in np.unique(np.linspace(0, len(rest) - 1, min(len(rest), SHOWN_DOTS)).astype(int))]
    # the first candidate shown was measured in full, even where estimated points dominate it
    first = [findings.best] if findings.best is not None and findings.best not in front else []
    kept = sorted({*kept, *(n for n in first if n in rest)})

    def point(number: int) -> dict[str, Any]:
        values, stderr = rows[number]
        found = {"n": number, "s": _short(values * signs), "e": _short(stderr)}
        return {**found, "estimated": True} if number in findings.estimated else found

    return {
        "objectives": [
            {"name": o.name, "sign": float(o.fitness(1.0)), "points": o.kind == "task"} for o in findings.objectives
        ],
        "front": [point(n) for n in sorted(findings.front)],
        "dots": [point(n) for n in kept],
        "hidden": len(rest) - len(kept),
        "parents": _parents(findings),
        "predicted": [
            {key: _short(value) if isinstance(value, list) else value for key, value in point.items()}
            for point in predicted_points(findings)
        ],
        "choices": choices,
        "first": findings.best,
        "marks": {str(n): texts for n, texts in findings.marks.items()},
        "folder": shlex.quote(str(findings.run.folder)),  # the page shows commands to paste into a shell
        "details": _details(findings, list(dict.fromkeys([*first, *choices]))),
    }


def _parents(findings: Findings) -> list[dict[str, Any]]:
    found = []
    for number, evaluation in sorted(findings.parents.items(), reverse=True):
        if evaluation.fitness(findings.objectives) is None:  # a failed parent has no point
            continue
        scores = [evaluation.scores[o.name] for o in findings.objectives]
        name = findings.candidates[number].name
        found.append({"name": name, "s": _short([s.value for s in scores]), "e": _short([s.stderr for s in scores])})
    return found


def _details(findings: Findings, choices: Sequence[int]) -> dict[str, Any]:
    """Return recipe, command and comparison of each choice, as many as fit."""
    parent = findings.best_parent()
    by_name = {findings.candidates[n].name: n for n in findings.parents}
    against = by_name[parent[0]] if parent else None  # the parent's number
    finals = {final.number: final for final in findings.finals}
    answers = findings.run.data.answers_of([*choices, *([against] if against is not None else [])])
    details: dict[str, Any] = {}
    spent = 0  # bytes so far
    for number in choices:
        recipe = findings.candidates[number].recipe
        final = finals.get(number)
        entry = {
            # mergekit's format cannot express a route
            "yaml": yaml_text(recipe.to_mergekit() if recipe.route is None else recipe.to_mapping()),
            "digest": recipe.digest,
            "map": _map(coefficients_frame(recipe, findings.config.models.layers, findings.config.models.modules)),
            "route": [list(hop) for hop in recipe.route] if recipe.route is not None else None,
            "gain": None if against is None else _gain(findings, answers[number], answers[against], parent),
            "held": None
            if final is None
            else _short([part for o in findings.objectives for part in _pair(final.scores[o.name])]),
        }
        spent += len(json.dumps(entry))
        if spent > DETAIL_BYTES:  # the last candidates of the table go without details
            break
        details[str(number)] = entry
    return details


def _pair(score: Any) -> tuple[float, float]:
    return score.value, score.stderr


def _gain(
    findings: Findings, mine: Sequence[Response], theirs: Sequence[Response], parent: tuple[str, float] | None
) -> str | None:
    """Return one sentence on the paired difference to the best parent, on search items."""
    if parent is None:
        return None
    try:
        gain = paired_difference(mine, theirs, Objectives(findings.objectives).scores())
    except TaskError:  # racing: the two have no common items
        return None
    unit = " points" if findings.in_points else ""
    low, high = points(gain.low, findings.in_points), points(gain.high, findings.in_points)
    sign = "+" if gain.value >= 0 else ""
    if not gain.has_interval:
        return f"{sign}{points(gain.value, findings.in_points)}{unit} against parent {parent[0]}, the best overall"
    return (
        f"{sign}{points(gain.value, findings.in_points)}{unit} against parent {parent[0]}, the best "
        f"overall (95% interval [{low}, {high}], paired on the search items, biased by selection)"
    )


def _map(table: pd.DataFrame) -> dict[str, Any]:
    """Return parameters with a row of values over the layers per model and module, and those of the whole merge."""
    inside, whole, maps = table[table["layer"] >= 0], [], []  # -1: embedding and head, which have no layer
    layers = int(inside["layer"].max()) + 1 if len(inside) else 0
    for parameter, found in inside.groupby("parameter", sort=True):
        values = found["value"].unique()
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        if len(values) == 1 or not numeric:  # a heat map of one value, or of words, shows nothing
            whole.append([str(parameter), ", ".join(_value(v) for v in values)])
            continue
        rows = []
        for (model, module), row in found.groupby(["model", "module"], sort=False):
            label = f"{model} {module}".strip() if module != "all" else str(model)  # 'all' is no module to name
            cells = dict(zip(row["layer"], row["value"], strict=True))  # slices may leave a model out of some layers
            rows.append({"label": label, "values": [_number(cells.get(n)) for n in range(layers)]})
        maps.append({"name": str(parameter), "rows": rows})
    return {"maps": maps, "whole": whole}


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(f"{float(value):.4g}")


def _short(values: Sequence[float] | np.ndarray) -> list[float | None]:
    # eight digits: the page ranks as Python does, at half the size
    return [float(f"{float(v):.8g}") if math.isfinite(float(v)) else None for v in values]
