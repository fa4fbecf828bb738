"""Slices of the landscape through the best candidate: surrogate predictions along the most important genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evomerge._markup import Html, element, number
from evomerge.errors import InputError
from evomerge.reports.html._drawing import Plot, Scale, scale_of, scrolling
from evomerge.reports.html._findings import BELIEVABLE, Findings, points
from evomerge.runs import LEVEL

if TYPE_CHECKING:
    import pandas as pd

SHOWN_GENES = 3
SHOWN_OBJECTIVES = 4
STEPS = 21
WIDTH, HEIGHT = 300, 190


def slices(findings: Findings, importance: pd.DataFrame, genes: Sequence[str]) -> Html | None:
    """Return a small drawing per gene and objective with a reliable surrogate; None without any.

    Args:
        findings: of the run.
        importance: `run.tables.importance()`.
        genes: names, the one that mattered most first.
    """
    trusted = importance[importance["left_out_r2"] >= BELIEVABLE]  # NaN compares false: no surrogate, no slice
    names = [o.name for o in findings.objectives if (trusted["objective"] == o.name).any()][:SHOWN_OBJECTIVES]
    if not names or findings.best is None:
        return None
    try:
        frame = findings.run.tables.landscape(str(findings.best), steps=STEPS)
    except InputError:  # a space without a gene that a surrogate could hold
        return None
    drawn_genes = [gene for gene in genes if (frame["line"] == gene).any()][:SHOWN_GENES]
    rows = []
    for gene in drawn_genes:
        parts = {name: frame[(frame["line"] == gene) & (frame["objective"] == name)] for name in names}
        drawings = [_drawing(findings, gene, name, part) for name, part in parts.items()]
        rows.append(element("div", {"class": "small"}, *drawings))
    if not rows:
        return None
    note = (
        "Predictions of quadratic surrogates along one gene, with the others fixed at candidate "
        f"{findings.best} (the dot is its measured score), with the {LEVEL:.0%} interval. Dashed: "
        "extrapolation, unreliable. Objectives with a poor cross-validated surrogate are omitted."
    )
    return element(
        "div",
        {"id": "slices"},
        element("h3", {}, "Slices through the best candidate"),
        element("p", {}, note),
        *rows,
    )


def _drawing(findings: Findings, gene: str, name: str, part: pd.DataFrame) -> Html:
    fraction = next(o.kind == "task" for o in findings.objectives if o.name == name)
    values = [float(value) for value in part["value"]]
    score = findings.evaluations[findings.best or 0].scores[name]
    heights = scale_of([*part["low"], *part["high"], score.value], HEIGHT - 38, 30)  # keeps the measured score in view
    plot = Plot(WIDTH, HEIGHT, Scale(min(values), max(values), 44, WIDTH - 10), heights)
    xs = [plot.x(value) for value in values]
    lows, highs, middle = ([plot.y(float(v)) for v in part[key]] for key in ("low", "high", "score"))
    # along the upper edge, back along the lower one
    around = _path([*zip(xs, highs, strict=True), *reversed(list(zip(xs, lows, strict=True)))]) + "Z"
    marks = [element("path", {"d": around, "class": "band cool"})]
    beyond = [bool(value) for value in part["extrapolates"]]
    for start in range(len(xs) - 1):  # one segment each, so that extrapolated ones can be dashed
        kind = "line parent dashed" if beyond[start] or beyond[start + 1] else "line parent"
        marks.append(
            element("path", {"d": _path(list(zip(xs, middle, strict=True))[start : start + 2]), "class": kind})
        )
    # the user's units, as the axis
    at = findings.run.space.phenotype(np.array(findings.candidates[findings.best or 0].genotype))[gene]
    marks.append(
        element("circle", {"cx": plot.x(float(str(at))), "cy": plot.y(score.value), "r": 4.5, "class": "front"})
    )
    best = part.loc[part["score"].idxmax() if _higher(findings, name) else part["score"].idxmin()]
    said = [points(float(best[key]), fraction) for key in ("score", "low", "high")]
    label = (
        f"{name} along {gene}: best predicted at {number(float(best['value']), 3)}, {said[0]} ({said[1]} to {said[2]})"
    )
    drawn = plot.drawn(label, gene, name + (", points" if fraction else ""), *marks, percent=fraction)
    return scrolling(drawn, label)


def _higher(findings: Findings, name: str) -> bool:
    return next(o.goal == "maximize" for o in findings.objectives if o.name == name)


def _path(spots: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{number(x, 5)} {number(y, 5)}" for x, y in spots)
