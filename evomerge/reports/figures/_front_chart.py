"""The Pareto front as a picture: two objectives as a plane, more as parallel axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.reports.figures._style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, altair, shown_name, styled

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from evomerge.runs import Run

KINDS = ("front", "estimated", "dominated", "parent", "predicted")  # the legend's order
COLOURS = (ORANGE, PURPLE, GREY, BLUE, GREEN)
SHAPES = ("circle", "square", "cross", "diamond", "triangle-up")
ON_FRONT = ("front", "estimated")


def front(run: Run, *, predicted: int = 0) -> alt.Chart:
    """Return the front of `run` with dominated candidates and parents, on the search items.

    Two objectives span a plane, with bars of one standard error; three become their three planes; more become parallel
    axes, one line per candidate, each axis from its worst to its best value. Points that surrogates predict are drawn
    apart, as triangles, and so are candidates of the front whose scores are estimated from few items, as squares.
    `front_frame` is the frame behind it.

    Args:
        run: with at least one scored candidate.
        predicted: draw also this many points that surrogates predict, see `Run.front`.

    Raises:
        InputError: no candidate has scores yet.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> type(figures.front(run)).__name__
    'LayerChart'
    """
    frame = front_frame(run, predicted)
    names = [objective.name for objective in run.objectives]
    if not (frame["kind"] != "parent").any():
        raise InputError("no candidate has scores yet, so there is no front to draw")
    title = {
        "text": f"Pareto front of {run.folder.name}",
        "subtitle": _subtitle(frame, len(names)),
    }
    if len(names) == 1:
        return styled(_single(frame, names[0]).properties(title=title, width=520, height=320))
    if len(names) == 2:
        return styled(_plane(frame, names).properties(title=title, width=520, height=400))
    if len(names) == 3:
        library = altair()
        pairs = [(0, 1), (0, 2), (1, 2)]
        panels = [_plane(frame, [names[i], names[j]], steps=False).properties(width=270, height=270) for i, j in pairs]
        return styled(library.hconcat(*panels).properties(title=title))
    return styled(_parallel(frame, names).properties(title=title, width=110 * len(names), height=360))


def _subtitle(frame: pd.DataFrame, objectives: int) -> str:
    count = int(frame["kind"].isin(ON_FRONT).sum())
    if objectives == 1:
        return "scores on the search items; dashed: parents"
    how = "bars: one standard error" if objectives < 4 else "dashed: parents; up is a higher score"
    return f"{count} candidate{'s' if count != 1 else ''} on the front; {how}"


def front_frame(run: Run, predicted: int = 0) -> pd.DataFrame:
    """Return one row per scored candidate and parent: name, kind, score.*, stderr.*.

    `kind` is front, estimated (on the front by scores that are estimated from few items), dominated, parent, or
    predicted (a surrogate's point; its stderr is that of the prediction).
    """
    import pandas as pd

    trials = run.trials()
    scored = trials[trials["status"] == "done"]
    front = run.front(predicted=predicted)
    known = front[front["candidate"].notna()]  # predicted points have no candidate number
    kinds = {  # candidate -> kind; all others are dominated
        int(n): "front" if seen else "estimated" for n, seen in zip(known["candidate"], known["measured"], strict=True)
    }
    columns = [f"{kind}.{o.name}" for kind in ("score", "stderr") for o in run.objectives]
    shown = scored[columns].assign(
        name=[f"candidate {n}" for n in scored["candidate"]],
        kind=[kinds.get(n, "dominated") for n in scored["candidate"]],
    )
    predicted_points = front[front["candidate"].isna()]
    predicted_points = predicted_points[columns].assign(name="predicted", kind="predicted")
    parents = run.tables.parents()
    parents = parents[columns].assign(name=parents["name"], kind="parent")
    # pandas warns when it concatenates empty frames
    return pd.concat([frame for frame in (shown, parents, predicted_points) if len(frame)], ignore_index=True)[
        ["name", "kind", *columns]
    ]


def _looks(frame: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Return the kinds in a frame with their colours and shapes; the legend shows no others."""
    found = [kind for kind in KINDS if (frame["kind"] == kind).any()]
    indices = [KINDS.index(kind) for kind in found]
    return found, [COLOURS[index] for index in indices], [SHAPES[index] for index in indices]


def _kinds(library: Any, frame: pd.DataFrame) -> Any:
    found, colours, _ = _looks(frame)
    return library.Color("kind:N", scale=library.Scale(domain=found, range=colours), title=None)


def _plane(frame: pd.DataFrame, names: list[str], steps: bool = True) -> Any:
    library = altair()
    # Vega reads '.' in a field name as a path; the frame keeps its names, the chart gets plain ones
    x, y = names
    plain = frame.rename(columns={f"score.{x}": "x", f"score.{y}": "y"})
    for axis, name in (("x", x), ("y", y)):
        error = frame[f"stderr.{name}"]
        plain[f"{axis}_low"], plain[f"{axis}_high"] = plain[axis] - error, plain[axis] + error  # one standard error
    shown = plain[plain["kind"] != "dominated"]  # bars of all dominated points would hide the front
    zero = library.Scale(zero=False)  # scores lie close together and far from 0
    plain["label"] = [shown_name(str(name)) for name in plain["name"]]
    base = library.Chart(plain)
    points = base.mark_point(filled=True, size=70).encode(
        x=library.X("x:Q", title=x, scale=zero),
        y=library.Y("y:Q", title=y, scale=zero),
        color=_kinds(library, frame),
        shape=library.Shape("kind:N", scale=library.Scale(domain=_looks(frame)[0], range=_looks(frame)[2]), title=None),
        opacity=library.condition("datum.kind == 'dominated'", library.value(0.45), library.value(0.95)),
        tooltip=[
            "name",
            "kind",
            library.Tooltip("x:Q", title=x, format=".4f"),
            library.Tooltip("y:Q", title=y, format=".4f"),
        ],
    )
    bars = library.Chart(shown).mark_rule(opacity=0.5).encode(color=_kinds(library, frame))
    across = bars.encode(x="x_low:Q", x2="x_high:Q", y="y:Q")
    upright = bars.encode(x="x:Q", y="y_low:Q", y2="y_high:Q")
    staircase = (
        library.Chart(plain[plain["kind"].isin(ON_FRONT)].sort_values("x"))
        .mark_line(interpolate="step-before", color=ORANGE, opacity=0.5)  # the boundary of the dominated region
        .encode(x="x:Q", y="y:Q", order="x:Q")
    )
    names_of_parents = (
        library.Chart(plain[plain["kind"] == "parent"])
        .mark_text(align="left", dx=9, dy=-7, color=INK)
        .encode(x="x:Q", y="y:Q", text="label:N")
    )
    # a front of three or more objectives projects onto a plane as a cloud, not as a staircase
    return library.layer(*([staircase] if steps else []), across, upright, points, names_of_parents)


def _parallel(frame: pd.DataFrame, names: list[str]) -> Any:
    library = altair()
    long = frame.melt(
        id_vars=["name", "kind"],
        value_vars=[f"score.{name}" for name in names],
        var_name="objective",
        value_name="score",
    )
    long["objective"] = long["objective"].str.removeprefix("score.")
    # each axis has its own range: units differ
    low, high = long.groupby("objective")["score"].min(), long.groupby("objective")["score"].max()
    span = (high - low).where(high > low, 1.0)  # equal scores: the bottom, without dividing by zero
    long["height"] = (long["score"] - long["objective"].map(low)) / long["objective"].map(span)
    ends = [f"{name} ({low[name]:.2g} to {high[name]:.2g})" for name in names]
    long["axis"] = long["objective"].map(dict(zip(names, ends, strict=True)))
    encoding = {
        "x": library.X("axis:N", sort=ends, title=None, axis=library.Axis(labelAngle=-20)),
        "y": library.Y("height:Q", axis=None),
        "color": _kinds(library, frame),
        "detail": "name:N",  # one line per model
        "tooltip": ["name", "kind", "objective", library.Tooltip("score:Q", format=".4f")],
    }
    # a front of a hundred lines would hide its own shape
    faint = min(0.8, max(0.15, 10 / max(1, frame["kind"].isin(ON_FRONT).sum())))
    looks = (
        *(("dominated", 0.1, [1, 0]), ("front", faint, [1, 0]), ("estimated", faint, [4, 2])),
        *(("predicted", 0.8, [2, 3]), ("parent", 0.9, [6, 3])),
    )
    layers = [
        library.Chart(long[long["kind"] == kind])
        .mark_line(point=True, opacity=opacity, strokeDash=dash)
        .encode(**encoding)
        for kind, opacity, dash in looks  # drawn in this order: parents end on top
        if (long["kind"] == kind).any()
    ]
    return library.layer(*layers)


def _single(frame: pd.DataFrame, name: str) -> Any:
    """Return one objective over the candidates' order, parents as lines across."""
    library = altair()
    plain = frame.rename(columns={f"score.{name}": "y", f"stderr.{name}": "stderr"}).reset_index(names="order")
    candidates, parents = plain[plain["kind"] != "parent"], plain[plain["kind"] == "parent"]
    y = library.Y("y:Q", title=name, scale=library.Scale(zero=False))
    points = (
        library.Chart(candidates)
        .mark_point(filled=True, size=50)
        .encode(
            x=library.X("order:Q", title="candidate"),
            y=y,
            color=_kinds(library, candidates),
            tooltip=["name", "kind", library.Tooltip("y:Q", title=name, format=".4f")],
        )
    )
    lines = library.Chart(parents).mark_rule(color=BLUE, strokeDash=[6, 4]).encode(y=y)
    names = (
        library.Chart(parents)
        .mark_text(align="right", dy=-7, color=BLUE)
        .encode(x=library.value("width"), y=y, text="name:N")
    )
    return library.layer(points, lines, names)
