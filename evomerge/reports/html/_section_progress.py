"""Progress of the search: incumbent, hypervolume, utilisation of the workers, and failures."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from evomerge._markup import Html, element, number, table
from evomerge.reports.html._drawing import Plot, Scale, band, figure, scale_of, scrolling, steps
from evomerge.reports.html._findings import Findings
from evomerge.runs import clock

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 250, 46, 210, 26
SHOWN_FAILURES = 20  # kinds of failure
SHOWN_LANES = 24  # workers
SHOWN_DOTS = 1500  # candidates in the drawing of progress


def progress(findings: Findings) -> Html:
    """Return the progress section: incumbent and hypervolume."""
    if not len(findings.history):
        return element("p", {}, "No candidate has scores yet.")
    drawings = [best_so_far(findings), growth(findings)]
    return element("div", {"class": "pair"}, *drawings)


def best_so_far(findings: Findings) -> Html:
    """Return the incumbent with its interval over the candidates, beside the best parent."""
    history = findings.history
    parent = findings.best_parent()
    values = [*history["overall"], *history["best_low"], *history["best_high"], *([parent[1]] if parent else [])]
    last = float(history["candidate"].iloc[-1])
    plot = Plot(
        WIDTH, HEIGHT, Scale(0.0, max(last, 1.0), LEFT, WIDTH - 12), scale_of([float(v) for v in values], BOTTOM, TOP)
    )
    # thousands of dots make the file slow and show no more
    shown = history.iloc[np.unique(np.linspace(0, len(history) - 1, min(len(history), SHOWN_DOTS)).astype(int))]
    dots = [
        element("circle", {"cx": plot.x(float(c)), "cy": plot.y(float(v)), "r": 2.2, "class": "dominated"})
        for c, v in zip(shown["candidate"], shown["overall"], strict=True)
    ]
    changes = history[history["incumbent"].ne(history["incumbent"].shift())]  # a step per new incumbent
    rows = [
        (plot.x(float(r.candidate)), plot.y(r.best), plot.y(r.best_low), plot.y(r.best_high))
        for r in changes.itertuples()
    ]
    around = element("path", {"d": band([(x, low, high) for x, _, low, high in rows], plot.x(last)), "class": "band"})
    line = element("path", {"d": steps([(x, y) for x, y, _, _ in rows], plot.x(last)), "class": "line front"})
    marks = [around, *dots, line, *(_parent_line(plot, *parent) if parent else [])]
    label = f"Incumbent over {len(history)} candidates, ending at {history['best'].iloc[-1]:.4g}"
    unit = "mean score, points" if findings.in_points else "overall fitness"
    drawn = plot.drawn(label, "candidate", unit, *marks, percent=findings.in_points)
    note = "Line: incumbent with its 95% interval. Dots: candidates. Dashed: best parent. All on search items."
    return figure("Incumbent", drawn, note, label)


def growth(findings: Findings) -> Html:
    """Return the hypervolume of the front over all candidates."""
    history = findings.history.dropna(subset=["hypervolume"])
    last = float(findings.history["candidate"].iloc[-1])
    values = [0.0, *history["hypervolume"]]
    plot = Plot(WIDTH, HEIGHT, Scale(0.0, max(last, 1.0), LEFT, WIDTH - 12), scale_of(values, BOTTOM, TOP, 0.04))
    # relative to the last value, because a product of several scores has no readable unit
    top = float(history["hypervolume"].iloc[-1]) if len(history) else 0.0
    relative = plot if top <= 0 else Plot(WIDTH, HEIGHT, plot.x, Scale(0.0, 1.04, BOTTOM, TOP))
    rows = [
        (relative.x(float(c)), relative.y(float(v) / top if top > 0 else 0.0))
        for c, v in zip(history["candidate"], history["hypervolume"], strict=True)
    ]
    line = element("path", {"d": steps(rows, relative.x(last)), "class": "line parent"})
    label = f"Hypervolume of the front, ending at {top:.4g}"
    drawn = relative.drawn(label, "candidate", "fraction of the final hypervolume", line)
    note = (
        f"Volume that the front dominates above the worst parent; {top:.4g} at the end, with "
        f"{_candidates(int(findings.history['front_size'].iloc[-1]))} on the front. A flat end means that "
        "a longer search would gain little."
    )
    return figure("Hypervolume", drawn, note, label)


def utilisation(findings: Findings) -> Html:
    """Return when each worker was busy, and its time by stage."""
    work = findings.work
    if not len(work):
        return element("p", {}, "No evaluation is finished yet.")
    spans = work["end"] - work["start"]
    facts = (
        f"{findings.workers} worker{'s' if findings.workers != 1 else ''}, busy {100 * findings.busy:.0f}% of "
        f"{clock(findings.status['seconds'])}. An evaluation took {_seconds(float(spans.median()))} in the middle, "
        f"{_seconds(float(spans.min()))} at least and {_seconds(float(spans.max()))} at most."
    )
    return element("div", {}, element("p", {}, facts), _lanes(findings), _stages(findings))


def _stages(findings: Findings) -> Html:
    """Return where the workers' time went, all of them together."""
    status = findings.status
    total = sum(status["stages"].values()) or 1.0
    rows = [
        (stage, clock(seconds), f"{100 * seconds / total:.0f}%")
        for stage, seconds in sorted(status["stages"].items(), key=lambda pair: -pair[1])
        if seconds
    ]
    known = [
        ("candidates per hour", status["candidates_per_hour"]),
        ("GPU-hours", status["gpu_hours"]),
        ("work lost, seconds", status["lost_seconds"]),
        ("cost", status["cost"]),
    ]
    rows += [(name, f"{value:.4g}", "") for name, value in known if value]
    caption = "Workers' time by stage, over all sessions"
    shown = table(("stage", "time", "fraction"), rows, caption=caption, numeric=[1, 2], attributes={"class": "narrow"})
    return scrolling(shown, "Time by stage")


def failures(findings: Findings) -> Html:
    """Return the failures, equal messages together, and the fractions of answers that were cut off or not parsed."""
    found = findings.failures
    parts: list[Html] = []
    if not len(found):
        parts.append(element("p", {}, "No evaluation failed."))
    else:
        # messages that differ in numbers only are one kind
        alike = found.assign(alike=[re.sub(r"\d+", "#", message) for message in found["message"]])
        rows = []
        for (kind, _), group in list(alike.groupby(["kind", "alike"], sort=False))[:SHOWN_FAILURES]:
            numbers = ", ".join(str(n) for n in group["candidate"][:8]) + (" …" if len(group) > 8 else "")
            rows.append((kind, len(group), group["message"].iloc[0], numbers))
        caption = f"{len(found)} evaluations failed. A failed candidate is recorded without fitness."
        shown = table(("kind", "how often", "message", "candidates"), rows, caption=caption, numeric=[1])
        parts.append(scrolling(shown, "Failed evaluations"))
    if (fractions := _answer_flags(findings)) is not None:
        parts.append(fractions)
    return element("div", {}, *parts)


def _answer_flags(findings: Findings) -> Html | None:
    """Return the fraction of generated answers that were cut off, or in which the filter found no answer."""
    models = [
        *sorted((n for n in findings.answer_flags if n < 0), reverse=True),
        *([findings.best] if findings.best is not None else []),
    ]
    keys = sorted({key for fractions in findings.answer_flags.values() for key in fractions})
    rows = [
        (findings.name(n), *(f"{100 * findings.answer_flags.get(n, {}).get(key, 0.0):.0f}%" for key in keys))
        for n in models
    ]
    if not keys:
        return None
    words = {"truncated": "cut off", "unextracted": "no answer found", "shortened": "question cut"}
    head = ("model", *(f"{name}: {words.get(kind, kind)}" for kind, name in keys))
    caption = "Generated answers on search items. A low score with many of these indicates a formatting problem."
    return scrolling(table(head, rows, caption=caption, numeric=range(1, len(head))), "Truncated or unparsed answers")


def _lanes(findings: Findings) -> Html:
    work = findings.work
    names = sorted(work["worker"].unique())[:SHOWN_LANES]
    left, lane = 110, 22
    height = 30 + lane * len(names)
    x = Scale(0.0, max(float(findings.status["seconds"]), float(work["end"].max())), left, 1100 - 12)
    parts = []
    for value in x.ticks(8):
        parts.append(element("line", {"x1": x(value), "x2": x(value), "y1": 4, "y2": height - 22, "class": "grid"}))
        position = {"x": x(value), "y": height - 6, "class": "tick", "text-anchor": "middle"}
        parts.append(element("text", position, clock(value)))
    for row, name in enumerate(names):
        y = 6 + lane * row
        position = {"x": left - 8, "y": y + 13, "class": "tick", "text-anchor": "end"}
        parts.append(element("text", position, name if len(name) < 16 else "…" + name[-14:]))
        # gaps below a pixel are closed: thousands of rectangles fewer
        for kind, first, end in _stretches(work[work["worker"] == name], (x.high - x.low) / 900):
            size = {"x": x(first), "y": y, "width": max(x(end) - x(first), 0.6), "height": lane - 6}
            parts.append(element("rect", {**size, "class": f"busy {kind}"}))
    label = f"Busy time of {len(names)} workers"
    drawn = element(
        "svg", {"viewBox": f"0 0 1100 {height}", "role": "img", "aria-label": label, "class": "plot"}, *parts
    )
    rest = findings.workers - len(names)
    note = "Blue: answering search items. Green: held-out items. Red: ended in a failure. Gaps: idle." + (
        f" {rest} more workers are not shown." if rest else ""
    )
    return figure("", drawn, note, label)


def _stretches(work: pd.DataFrame, gap: float) -> list[tuple[str, float, float]]:
    """Return (kind, start, end), evaluations of one kind that follow each other within `gap` seconds as one."""
    found: list[tuple[str, float, float]] = []
    for row in work.sort_values("start").itertuples():
        kind = "failed" if row.failed else str(row.split)
        # each failure stays visible
        if found and found[-1][0] == kind and row.start - found[-1][2] <= gap and kind != "failed":
            found[-1] = (kind, found[-1][1], max(found[-1][2], row.end))
        else:
            found.append((kind, row.start, row.end))
    return found


def _parent_line(plot: Plot, name: str, value: float) -> list[Html]:
    y = plot.y(value)
    rule = element("line", {"x1": plot.x.start, "x2": plot.x.end, "y1": y, "y2": y, "class": "line parent dashed"})
    position = {"x": plot.x.end, "y": y - 7, "class": "name parent", "text-anchor": "end"}
    return [rule, element("text", position, f"parent {name}")]


def _candidates(count: int) -> str:
    return f"{count} candidate{'s' if count != 1 else ''}"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{number(1000 * value, 0 if value >= 0.01 else 1)} ms"
    return clock(value) if value >= 60 else f"{number(value, 1)} s"
