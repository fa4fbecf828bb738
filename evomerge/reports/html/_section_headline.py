"""The result and its uncertainty: the headline, and finalists against parents on the held-out items."""

from __future__ import annotations

import math

from evomerge._markup import Html, element, joined, number, table
from evomerge.objectives import Objectives
from evomerge.reports.html._drawing import Plot, Scale, diamond, figure, scale_of, scrolling, spread
from evomerge.reports.html._findings import Findings, points, with_error
from evomerge.runs import MEAN, Final, clock, verdict
from evomerge.scoring import Difference

BAR, BAR_HEIGHT = 240, 26  # pixels of an interval's drawing


def headline(findings: Findings) -> Html:
    """Return the result in one sentence, with its statistical basis."""
    final, best = findings.winner, findings.best
    if best is None:
        text, note, tone = "No candidate could be scored.", "See the failures below.", "bad"
    elif final is None or final.gain is None:
        text = f"Candidate {best} is the incumbent, on the search items."
        note = (
            "It has no held-out scores; its search scores are biased upward by selection. "
            + ("The search is not finished." if findings.status["state"] != "finished" else "")
        ).strip()
        tone = "open"
    elif not final.gain.has_interval:
        text = _claim(final, final.gain)
        note = (
            f"Held-out items, not used in the search ({final.score.items} responses). An objective has one value per "
            "model, so the difference has no standard error and no interval."
        )
        tone = "open"
    else:
        text = _claim(final, final.gain)
        note = (
            f"Paired comparison on {final.score.items} held-out items, not used in the search, "
            f"{final.gain.level:.0%} interval [{points(final.gain.low, final.in_points)}, "
            f"{points(final.gain.high, final.in_points)}]{' points' if final.in_points else ''}, mean over "
            f"{_what(final, findings)}. The best parent was selected on the same items, which favours the parent."
        )
        tone = "good" if final.gain.low > 0 else "bad" if final.gain.high < 0 else "open"
    claim = element("p", {"class": f"claim {tone}"}, text)
    return joined([claim, element("p", {"class": "basis"}, note), _tiles(findings)])


def _claim(final: Final, gain: Difference) -> str:
    parent, unit = final.against.removeprefix("parent "), " points" if final.in_points else ""
    shown = points(abs(gain.value), final.in_points)
    who = final.name[0].upper() + final.name[1:]
    if not gain.has_interval:
        way = "above" if gain.value > 0 else "below"
        return f"{who} scores {shown}{unit} {way} the best parent, {parent}; no interval is available."
    if not gain.distinguishable:
        sign = "+" if gain.value >= 0 else "−"
        return f"{who} is not distinguishable from the best parent, {parent} ({sign}{shown}{unit})."
    return f"{who} is {'better' if gain.value > 0 else 'worse'} than the best parent, {parent}, by {shown}{unit}."


def _what(final: Final, findings: Findings) -> str:
    whole = len(final.averaged) == len(findings.objectives)
    return "the objectives" if whole else " and ".join(final.averaged)


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
        text = "No held-out scores: the search has not finished, or no items were held out."
        return element("p", {}, text)
    gains = [final.gain for final in findings.finals if final.gain is not None]
    gains += [final.joint for final in findings.finals if final.joint is not None]  # the wider intervals set the scale
    ends = [abs(end) for gain in gains for end in (gain.low, gain.high, gain.value)]
    reach = max(filter(math.isfinite, ends), default=1.0) or 1.0  # all intervals on one scale, with 0 in the middle
    rows = [_row(final, reach, findings) for final in findings.finals]
    names = [objective.name for objective in findings.objectives]
    head = ("model", *(["mean"] if findings.in_points else []), "gain over the best parent", "in words", *names)
    words = "Scores ± one standard error" + (" in points of 100" if findings.in_points else "")
    caption = (
        f"{words}, on held-out items. The best candidate by search items was selected beforehand; its own 95% interval "
        "(thick) is valid. A choice among finalists by held-out scores is a selection; then the simultaneous interval "
        "over all finalists (thin, and in words) is valid."
    )
    numeric = [i for i, title in enumerate(head) if title in ("mean", *names)]  # right-aligned columns
    shown = scrolling(table(head, rows, caption=caption, numeric=numeric), "Finalists and parents on held-out items")
    return joined([shown, element("div", {"class": "pair"}, _held(findings), _by_item(findings))])


def _row(final: Final, reach: float, findings: Findings) -> list[object]:
    scores = [with_error(final.scores[o.name], o.kind == "task") for o in findings.objectives]
    mean = with_error(final.score, True)
    gain, own = final.gain, final.number == findings.best
    mark = " (best by search items)" if own else ""
    drawn = "" if gain is None or not gain.has_interval else _interval(gain, final.joint, reach, final)
    # the winner was chosen beforehand: its own interval is valid
    said = "" if gain is None else element("span", {"class": "said"}, verdict(final, None if own else final.joint))
    return [f"{final.name}{mark}", *([mean] if findings.in_points else []), drawn, said, *scores]


def _interval(gain: Difference, joint: Difference | None, reach: float, final: Final) -> Html:
    """Return a gain with its own interval, thick, and the one that holds for all finalists together, thin."""
    x = Scale(-reach * 1.08, reach * 1.08, 4, BAR - 4)
    middle = BAR_HEIGHT / 2
    wider = joint or gain  # colours follow the wider interval, which holds for every finalist
    tone = "good" if wider.low > 0 else "bad" if wider.high < 0 else "open"
    zero = element("line", {"x1": x(0.0), "x2": x(0.0), "y1": 0, "y2": BAR_HEIGHT, "class": "zero"})
    ends = {"x1": x(wider.low), "x2": x(wider.high), "y1": middle, "y2": middle}
    thin = element("line", {**ends, "class": f"reach thin {tone}"})
    line = element(
        "line", {"x1": x(gain.low), "x2": x(gain.high), "y1": middle, "y2": middle, "class": f"reach {tone}"}
    )
    dot = element("circle", {"cx": x(gain.value), "cy": middle, "r": 4.5, "class": f"dot {tone}"})
    shown = [points(value, final.in_points) for value in (gain.value, gain.low, gain.high, wider.low, wider.high)]
    label = f"{shown[0]}, from {shown[1]} to {shown[2]}; for all finalists together from {shown[3]} to {shown[4]}"
    size = {"viewBox": f"0 0 {BAR} {BAR_HEIGHT}", "width": BAR, "height": BAR_HEIGHT}
    return element("svg", {**size, "role": "img", "aria-label": label, "class": "interval"}, zero, thin, line, dot)


def _by_item(findings: Findings) -> Html | None:
    """Return the winner against the best parent, objective by objective, item by item."""
    final = findings.winner
    if final is None or not final.against:
        return None
    # the best parent on held-out items
    parent = next(other.number for other in findings.finals if other.number < 0 and other.name == final.against)
    found = findings.run.compare(final.number, parent, split="holdout")
    rows = []
    for row in found.table().itertuples(index=False):
        gain = found.differences[row.objective]
        unit = row.objective in found.fractions
        interval = points(gain.value, unit)
        interval += f" [{points(gain.low, unit)}, {points(gain.high, unit)}]" if gain.has_interval else ", no interval"
        rows.append((row.objective, _outcome_bar(row.a_better, row.equal, row.b_better), interval))
    caption = f"{found.a} against {found.b} on the same held-out items. Orange: {found.a} better; grey: equal; "
    caption += "blue: parent better. Difference with its 95% interval" + (", points." if findings.in_points else ".")
    shown = table(("objective", "items", "difference"), rows, caption=caption, numeric=[2])
    title = "Paired comparison by item"
    return element("div", {}, element("h3", {}, title), scrolling(shown, title))


def _outcome_bar(better: int, equal: int, worse: int) -> Html:
    total = max(1, better + equal + worse)
    x, parts = 0.0, []
    for count, kind in ((better, "front"), (equal, "alike"), (worse, "parent")):
        width = BAR * count / total
        parts.append(element("rect", {"x": x, "y": 4, "width": max(0.0, width - 1), "height": 18, "class": kind}))
        if width > 24:  # a narrower part has no room for its count
            position = {"x": x + width / 2, "y": 17, "text-anchor": "middle", "class": f"on-{kind}"}
            parts.append(element("text", position, str(count)))
        x += width
    label = f"better on {better}, equal on {equal}, worse on {worse}"
    size = {"viewBox": f"0 0 {BAR} {BAR_HEIGHT}", "width": BAR, "height": BAR_HEIGHT, "class": "interval"}
    return element("svg", {**size, "role": "img", "aria-label": label}, *parts)


def _held(findings: Findings) -> Html | None:
    """Return search scores against held-out scores; below the diagonal, search scores are biased upward."""
    found = findings.generalisation
    # a mean needs a common unit
    wanted = MEAN if (found["objective"] == MEAN).any() else Objectives(findings.objectives).scores()[0].name
    rows = found[found["objective"] == wanted]
    if not len(rows):
        return None
    values = [float(v) for side in ("search", "holdout") for v in rows[side]]
    ends = scale_of(values, 0, 1, 0.12)  # one range for both axes: the diagonal means agreement
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
        # whiskers show the held-out error: the search score is biased anyway
        upright = {"x1": x, "x2": x, "y1": plot.y(row.holdout - reach), "y2": plot.y(row.holdout + reach)}
        marks.append(element("line", {**upright, "class": f"whisker {kind}"}))
        title = element("title", {}, row.name)
        if kind == "parent":
            marks.append(element("path", {"d": diamond(x, y), "class": kind}, title))
        else:
            marks.append(element("circle", {"cx": x, "cy": y, "r": 5.0, "class": kind}, title))
    parents = rows[rows["kind"] == "parent"]  # only they are labelled: candidates have their number in the tooltip
    heights = spread([plot.y(value) + 4 for value in parents["holdout"]], 14)
    for row, y in zip(parents.itertuples(), heights, strict=True):
        position = {"x": plot.x(row.search) + 10, "y": y, "class": "name"}
        marks.append(element("text", position, row.name.removeprefix("parent ")))
    candidates = rows[rows["kind"] == "candidate"]
    # above 0: selection bias
    drop = float((candidates["search"] - candidates["holdout"]).mean()) if len(candidates) else 0.0
    change = f"{points(abs(drop), findings.in_points)}{' points' if findings.in_points else ''}"
    note = (
        f"Finalists score {change} {'lower' if drop >= 0 else 'higher'} on held-out items than on search "
        "items. Below the line, search scores are biased upward by selection. Whiskers: 95% intervals."
    )
    label = f"Search scores against held-out scores of {number(float(len(rows)))} models"
    drawn = plot.drawn(
        label, f"search items, {wanted}", f"held-out items, {wanted}", *marks, percent=findings.in_points, both=True
    )
    return figure("Search against held-out scores", drawn, note, label)
