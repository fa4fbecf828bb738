"""Points predicted by surrogates: shown apart, with the reasons to doubt them and the command to measure them."""

from __future__ import annotations

import shlex
from typing import Any

from evomerge._markup import Html, element, table
from evomerge.reports.html._drawing import scrolling
from evomerge.reports.html._findings import SHOWN_PREDICTED, Findings, points
from evomerge.runs import LEVEL, remeasured_lines


def predicted_points(findings: Findings) -> list[dict[str, Any]]:
    """Return the predicted points for the page's script: scores, standard deviations, ends of the interval."""
    if findings.predicted is None:
        return []
    names = [objective.name for objective in findings.objectives]
    # the measured ones are drawn already
    rows = [row for row in findings.predicted.points() if row["candidate"] is None]
    return [
        {
            "predicted": index + 1,  # numbered from 1: they have no candidate number
            "s": [row["score"][name] for name in names],
            "e": [row["stderr"][name] for name in names],
            "low": [row["interval"][name][0] for name in names],
            "high": [row["interval"][name][1] for name in names],
        }
        for index, row in enumerate(rows)
    ]


def predictions(findings: Findings) -> Html | None:
    """Return the predicted points as a table, with what is known about the errors of such predictions."""
    answer = findings.predicted
    if answer is None or answer.errors is None:
        return None
    rows = []
    for point in predicted_points(findings):
        cells = []
        for index, objective in enumerate(findings.objectives):
            fraction = objective.kind == "task"
            value, low, high = (points(point[part][index], fraction) for part in ("s", "low", "high"))
            cells.append(f"{value} ({low} to {high})")
        rows.append((str(point["predicted"]), *cells))
    names = [objective.name for objective in findings.objectives]
    errors = "; ".join(
        f"{row.objective} {row.left_out_r2:.2f}, {row.coverage:.0%} inside their interval"
        for row in answer.errors.itertuples()
    )
    summary = (
        f"Quadratic surrogates of {int(answer.errors['candidates'].max())} candidates. Cross-validated R²: {errors}."
    )
    caption = f"Predicted scores with their {LEVEL:.0%} interval, on the search items; not evaluated"
    shown = scrolling(table(("point", *names), rows, caption=caption, numeric=range(1, 1 + len(names))), "Predicted")
    command = f"evomerge front {shlex.quote(str(findings.run.folder))} --predicted {SHOWN_PREDICTED} --remeasure"
    doubts = [element("li", {}, text) for text in answer.warnings]
    return element(
        "section",
        {"id": "predicted", "aria-labelledby": "predicted-title"},
        element("h3", {"id": "predicted-title"}, "Predicted, not measured"),
        element("p", {}, summary),
        element("ul", {"class": "doubts"}, *doubts) if doubts else None,
        shown if rows else None,
        element("p", {}, "To measure them and add them to the archive: ") if rows else None,
        element("p", {"class": "command"}, command) if rows else None,
        *(element("p", {}, line) for line in remeasured_lines(findings.run.data)),
    )
