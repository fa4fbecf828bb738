"""Figures of responses by item, and of search scores against held-out scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.candidate import Split
from evomerge.errors import InputError
from evomerge.reports.figures._style import BLUE, INK, ORANGE, REACH, altair, styled, titled
from evomerge.scoring import metric_key

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from evomerge.runs import Run

SHOWN_MODELS = 40
SHOWN_ITEMS = 1200


def item_matrix(run: Run, objective: str | None = None, *, split: Split = "search") -> alt.Chart:
    """Return the matrix of responses: models from the best down, items from the easiest on.

    `item_matrix_frame` is the frame behind it.

    Args:
        run: whose answers.
        objective: its name; None: the first.
        split: search or holdout items.

    Raises:
        InputError: an unknown objective, or no model answered.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> chart = figures.item_matrix(run, "left")
    """
    library, frame = altair(), item_matrix_frame(run, objective, split=split)
    name = objective or run.objectives[0].name
    models = list(dict.fromkeys(frame.sort_values("rank")["model"]))
    # perplexities and lengths have their own range
    ends = [0.0, 1.0] if frame["value"].between(0, 1).all() else [frame["value"].min(), frame["value"].max()]
    colours = library.Scale(domain=ends, range=["#F4F4F4", BLUE])
    cells = (
        library.Chart(frame)
        .mark_rect()
        .encode(
            x=library.X("position:O", title=f"{frame['item'].nunique()} items, the easiest first", axis=None),
            y=library.Y("model:N", sort=models, title=None, axis=library.Axis(labelFontSize=10)),
            color=library.Color(
                "value:Q",
                scale=colours,
                title="score on the item",
            ),
            tooltip=["model", "item", library.Tooltip("value:Q", format=".3g")],
        )
    )
    subtitle = "dark: solved. Items that only some models solve are the potential gain of a merge"
    return titled(cells, f"Item matrix: {name}", subtitle, 640, 13 * len(models))


def item_matrix_frame(run: Run, objective: str | None = None, *, split: Split = "search") -> pd.DataFrame:
    """Return one row per model and item: model, kind (front, candidate, parent), item, value, position, rank.

    `position` counts items from the easiest (0), `rank` models from the best (0). Parents and the front come first;
    other candidates fill up to `SHOWN_MODELS`, evenly over their order.
    """
    import pandas as pd

    wanted = [o for o in run.objectives if objective in (None, o.name)]
    if not wanted:
        raise InputError(f"no objective {objective!r}; known: {', '.join(o.name for o in run.objectives)}")
    one = wanted[0]
    task = run.config.items.stands_in.get(one.task, one.task) if split == "holdout" else one.task
    shown = _shown_models(run, split)
    key = metric_key(one.metric, one.filter)
    rows = [
        (name, kind, r.item, r.value)
        for (name, kind), answers in zip(shown.values(), run.data.answers_of(shown, split).values(), strict=True)
        for r in answers
        if r.task == task and r.metric == key
    ]
    if not rows:
        raise InputError(f"no model has answered {split} items of {one.name!r} yet")
    frame = pd.DataFrame(rows, columns=["model", "kind", "item", "value"])
    solved = one.fitness(1.0) * frame.groupby("item")["value"].mean()  # the sign makes higher better
    ability = one.fitness(1.0) * frame.groupby("model")["value"].mean()  # mean score: no IRT ability
    items = {
        item: position
        for position, item in enumerate(solved.sort_values(ascending=False, kind="stable").index[:SHOWN_ITEMS])
    }
    models = {name: rank for rank, name in enumerate(ability.sort_values(ascending=False, kind="stable").index)}
    frame = frame[frame["item"].isin(items)]  # the hardest are dropped where there are too many
    return frame.assign(position=frame["item"].map(items), rank=frame["model"].map(models)).reset_index(drop=True)


def _shown_models(run: Run, split: Split) -> dict[int, tuple[str, str]]:
    """Return number -> (name, kind) of the models whose answers are shown."""
    if split == "holdout":
        return {f.number: (f.name, "parent" if f.number < 0 else "candidate") for f in run.finals()}
    found = {p.number: (f"parent {p.name}", "parent") for p in run.data.candidates("parent")}
    front = [int(number) for number in run.front()["candidate"]]  # best overall first
    done = [n for n, evaluation in run.data.evaluations().items() if evaluation.failure is None and n not in set(front)]
    room = max(0, SHOWN_MODELS - len(found) - len(front))  # rows left for dominated candidates
    step = max(1, -(-len(done) // room)) if room else len(done) + 1  # ceiling division: evenly over the search
    for number in front[:SHOWN_MODELS]:
        found[number] = (f"candidate {number} (front)", "front")
    for number in done[::step][:room]:
        found[number] = (f"candidate {number}", "candidate")
    return found


def held_out(run: Run) -> alt.Chart:
    """Return search scores against held-out scores of finalists and parents; below the line: selection bias.

    The frame behind it is `run.tables.generalisation()`.

    Args:
        run: a finished one, with held-out items.

    Raises:
        InputError: no model has answered held-out items.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> chart = figures.held_out(run)
    """
    library, frame = altair(), run.tables.generalisation()
    if not len(frame):
        raise InputError("no held-out responses yet; they are scored at the end of a search")
    for side in ("search", "holdout"):
        frame[f"{side}_low"] = frame[side] - REACH * frame[f"{side}_stderr"]
        frame[f"{side}_high"] = frame[side] + REACH * frame[f"{side}_stderr"]
    panels = [_panel(library, part, str(name)) for name, part in frame.groupby("objective", sort=False)]
    title = {
        "text": f"Search against held-out scores: {run.folder.name}",
        "subtitle": "below the line: search score biased upward by selection. Bars: 95% intervals",
    }
    return styled(library.concat(*panels, columns=3).properties(title=title))


def _panel(library: Any, part: pd.DataFrame, name: str) -> Any:
    import pandas as pd

    low, high = part[["search_low", "holdout_low"]].min().min(), part[["search_high", "holdout_high"]].max().max()
    scale = library.Scale(domain=[low, high], nice=False)  # the same on both axes: the diagonal means agreement
    colours = library.Scale(domain=["candidate", "parent"], range=[ORANGE, BLUE])
    shapes = library.Scale(domain=["candidate", "parent"], range=["circle", "diamond"])
    chart, ends = library.Chart(part), library.Chart(pd.DataFrame({"v": [low, high]}))
    colour = library.Color("kind:N", scale=colours, title=None)

    def across(field: str) -> Any:
        return library.X(f"{field}:Q", scale=scale, title="search items")

    def up(field: str) -> Any:
        return library.Y(f"{field}:Q", scale=scale, title="held-out items")

    return library.layer(
        ends.mark_line(color=INK, strokeDash=[4, 4], opacity=0.5).encode(x=across("v"), y=up("v")),
        chart.mark_rule(opacity=0.4).encode(x=across("search"), y=up("holdout_low"), y2="holdout_high:Q", color=colour),
        chart.mark_rule(opacity=0.4).encode(y=up("holdout"), x=across("search_low"), x2="search_high:Q", color=colour),
        chart.mark_point(filled=True, size=70, opacity=1).encode(
            x=across("search"),
            y=up("holdout"),
            color=colour,
            shape=library.Shape("kind:N", scale=shapes, title=None),
            tooltip=["name", "search", "holdout"],
        ),
    ).properties(width=230, height=230, title=name)
