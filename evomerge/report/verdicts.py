"""What was found and how sure: the headline, and finalists against parents on the held-out items."""

from __future__ import annotations

from evomerge.markup import Html, element, joined, number, table
from evomerge.report.drawing import Plot, Scale, figure, scale_of, scrolling
from evomerge.report.findings import Findings, points
from evomerge.results.finals import Final
from evomerge.results.generalisation import MEAN
from evomerge.results.summaries import clock, verdict
from evomerge.scoring.comparison import Difference

BAR, BAR_HEIGHT = 240, 26  # pixels of an interval's drawing


def headline(findings: Findings) -> Html:
    """Return the one sentence that a reader came for, with what it rests on."""
    final, best = findings.winner, findings.best
    if best is None:
        text, note, tone = "No candidate could be scored.", "See the failures below.", "bad"
    elif final is None or final.gain is None:
        text = f"Candidate {best} is the best so far, on the items that chose it."
        note = (
            "It has not been asked held-out items, so its scores are flattered by luck. "
            + ("The search is not finished." if findings.status["state"] != "finished" else "")
        ).strip()
        tone = "open"
    else:
        text = _claim(final, final.gain)
        note = (
            f"Paired comparison on {final.score.items} held-out items that the search never saw, "
            f"{final.gain.level:.0%} interval [{points(final.gain.low, final.in_points)}, "
            f"{points(final.gain.high, final.in_points)}]"
            + (" points" if final.in_points else "")
            + ", mean over the objectives. The best parent was picked by these very items, which favours the parent."
        )
        tone = "good" if final.gain.low > 0 else "bad" if final.gain.high < 0 else "open"
    claim = element("p", {"class": f"claim {tone}"}, text)
    return joined([claim, element("p", {"class": "basis"}, note), _tiles(findings)])


def _claim(final: Final, gain: Difference) -> str:
    parent, unit = final.against.removeprefix("parent "), " points" if final.in_points else ""
    shown = points(abs(gain.value), final.in_points)
    who = final.name[0].upper() + final.name[1:]
    if not gain.distinguishable:
        sign = "+" if gain.value >= 0 else "−"
        return f"{who} cannot be told apart from the best parent, {parent} ({sign}{shown}{unit})."
    return f"{who} is {'better' if gain.value > 0 else 'worse'} than the best parent, {parent}, by {shown}{unit}."


def _tiles(findings: Findings) -> Html:
    status = findings.status
    budget = status["budget"].get("candidates")
    tiles = [
        ("candidates scored", f"{status['done']}" + (f" of {budget}" if budget else "")),
        ("on the front", f"{status['front_size']}"),
        ("failed", f"{status['failed']}"),
        ("time", clock(status["seconds"])),
        ("workers busy", f"{100 * findings.busy:.0f}%"),
        ("state", status["state"]),
    ]
    cells = [element("div", {}, element("dt", {}, name), element("dd", {}, value)) for name, value in tiles]
    return element("dl", {"class": "tiles"}, *cells)


def finals(findings: Findings) -> Html:
    """Return finalists and parents on held-out items, and how search scores held up there."""
    if not findings.finals:
        text = "No held-out items were asked: either the search has not come to its end, or none were kept apart."
        return element("p", {}, text)
    gains = [final.gain for final in findings.finals if final.gain is not None]
    reach = max([abs(end) for gain in gains for end in (gain.low, gain.high)], default=1.0) or 1.0
    rows = [_row(final, reach, findings) for final in findings.finals]
    names = [objective.name for objective in findings.objectives]
    head = ("model", *(["mean"] if findings.in_points else []), "gain over the best parent", "in words", *names)
    words = "Scores ± one standard error" + (" in points of 100" if findings.in_points else "")
    caption = f"{words}, on held-out items. The first finalist is the best by search items; it was named before."
    numeric = [i for i, title in enumerate(head) if title in ("mean", *names)]
    shown = scrolling(table(head, rows, caption=caption, numeric=numeric), "Finalists and parents on held-out items")
    return joined([shown, _held(findings)])


def _row(final: Final, reach: float, findings: Findings) -> list[object]:
    scores = [
        f"{points(s.value, o.kind == 'task')} ± {points(s.stderr, o.kind == 'task')}"
        for o in findings.objectives
        for s in [final.scores[o.name]]
    ]
    mean = f"{points(final.score.value, True)} ± {points(final.score.stderr, True)}"
    gain = final.gain
    mark = " (best by search items)" if final.number == findings.best else ""
    drawn = "" if gain is None else _interval(gain, reach, final.in_points)
    said = "" if gain is None else verdict(final)
    return [f"{final.name}{mark}", *([mean] if findings.in_points else []), drawn, said, *scores]


def _interval(gain: Difference, reach: float, in_points: bool) -> Html:
    x = Scale(-reach * 1.08, reach * 1.08, 4, BAR - 4)
    middle = BAR_HEIGHT / 2
    tone = "good" if gain.low > 0 else "bad" if gain.high < 0 else "open"
    zero = element("line", {"x1": x(0.0), "x2": x(0.0), "y1": 0, "y2": BAR_HEIGHT, "class": "zero"})
    line = element(
        "line", {"x1": x(gain.low), "x2": x(gain.high), "y1": middle, "y2": middle, "class": f"reach {tone}"}
    )
    dot = element("circle", {"cx": x(gain.value), "cy": middle, "r": 4.5, "class": f"dot {tone}"})
    label = f"{points(gain.value, in_points)}, from {points(gain.low, in_points)} to {points(gain.high, in_points)}"
    size = {"viewBox": f"0 0 {BAR} {BAR_HEIGHT}", "width": BAR, "height": BAR_HEIGHT}
    return element("svg", {**size, "role": "img", "aria-label": label, "class": "interval"}, zero, line, dot)


def _held(findings: Findings) -> Html | None:
    """Return search scores against held-out scores; below the diagonal, search scores were flattered."""
    found = findings.generalisation
    wanted = MEAN if (found["objective"] == MEAN).any() else findings.objectives[0].name
    rows = found[found["objective"] == wanted]
    if not len(rows):
        return None
    values = [float(v) for side in ("search", "holdout") for v in rows[side]]
    ends = scale_of(values, 0, 1, 0.12)
    plot = Plot(420, 340, Scale(ends.low, ends.high, 50, 408), Scale(ends.low, ends.high, 300, 26))
    marks = [
        element(
            "line",
            {
                "x1": plot.x(ends.low),
                "y1": plot.y(ends.low),
                "x2": plot.x(ends.high),
                "y2": plot.y(ends.high),
                "class": "zero",
            },
        )
    ]
    for row in rows.itertuples():
        kind = "parent" if row.kind == "parent" else "front"
        x, y, reach = plot.x(row.search), plot.y(row.holdout), 1.96 * row.holdout_stderr
        upright = {"x1": x, "x2": x, "y1": plot.y(row.holdout - reach), "y2": plot.y(row.holdout + reach)}
        marks.append(element("line", {**upright, "class": f"whisker {kind}"}))
        marks.append(element("circle", {"cx": x, "cy": y, "r": 5.0, "class": kind}, element("title", {}, row.name)))
    parents = rows[rows["kind"] == "parent"]
    for row in parents.itertuples():
        text = row.name.removeprefix("parent ")
        marks.append(
            element("text", {"x": plot.x(row.search) + 8, "y": plot.y(row.holdout) + 14, "class": "name"}, text)
        )
    candidates = rows[rows["kind"] == "candidate"]
    drop = float((candidates["search"] - candidates["holdout"]).mean()) if len(candidates) else 0.0
    told = f"{points(abs(drop), findings.in_points)}{' points' if findings.in_points else ''}"
    note = (
        f"Finalists score {told} {'lower' if drop >= 0 else 'higher'} on held-out items than on the items that chose "
        "them. On the line, both agree; below it, search scores were flattered. Whiskers: 95% intervals."
    )
    percent = 100 if findings.in_points else 1
    label = f"Search scores against held-out scores of {number(float(len(rows)))} models"
    drawn = plot.drawn(label, f"search items, {wanted}", f"held-out items, {wanted}", *marks, percent=percent == 100)
    return figure("Did it hold up?", drawn, note, label)
