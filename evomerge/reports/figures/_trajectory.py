"""Figures of a search's progress: incumbent, hypervolume of the front, and utilisation of the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.objectives import Objectives
from evomerge.reports.figures._style import BLUE, GREEN, GREY, INK, ORANGE, altair, titled

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from evomerge.runs import Run


def progress(run: Run) -> alt.Chart:
    """Return the incumbent with its 95% interval over the candidates, beside the best parent.

    The frame behind it is `run.tables.history()`. Scores are on the search items, biased upward by selection;
    `held_out` shows by how much.

    Args:
        run: with at least one scored candidate.

    Raises:
        InputError: no candidate has scores yet.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> figures.save(figures.progress(run), "progress.html")
    """
    library, history = altair(), _history(run)
    zero = library.Scale(zero=False)
    base = library.Chart(history).encode(x=library.X("order:Q", title="candidates scored"))
    dots = base.mark_circle(color=GREY, size=16, opacity=0.6).encode(
        y=library.Y("overall:Q", scale=zero, title="overall fitness (weighted mean)"),
        tooltip=["candidate", library.Tooltip("overall:Q", format=".4f"), library.Tooltip("stderr:Q", format=".2g")],
    )
    # the incumbent holds until the next one
    around = base.mark_area(color=ORANGE, opacity=0.18, interpolate="step-after").encode(
        y="best_low:Q", y2="best_high:Q"
    )
    line = base.mark_line(color=ORANGE, strokeWidth=2.4, interpolate="step-after").encode(
        y="best:Q", tooltip=["incumbent", library.Tooltip("best:Q", format=".4f")]
    )
    layers = [around, dots, line, *_parent(library, run)]
    subtitle = "line: incumbent, with its 95% interval; dots: candidates; dashed: the best parent (search items)"
    return titled(library.layer(*layers), f"Progress of {run.folder.name}", subtitle, 560, 320)


def hypervolume(run: Run) -> alt.Chart:
    """Return how the volume that the front dominates grew, above the worst parent.

    The frame behind it is `run.tables.history()`.

    Args:
        run: with at least one scored candidate.

    Raises:
        InputError: no candidate has scores yet.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> chart = figures.hypervolume(run)
    """
    library, history = altair(), _history(run).dropna(subset=["hypervolume"])  # rows without a volume
    line = (
        library.Chart(history)
        .mark_line(color=BLUE, strokeWidth=2.4, interpolate="step-after")
        .encode(
            x=library.X("order:Q", title="candidates scored"),
            y=library.Y("hypervolume:Q", title="hypervolume above the worst parent"),
            tooltip=["candidate", library.Tooltip("hypervolume:Q", format=".5g"), "front_size"],
        )
    )
    size = int(history["front_size"].iloc[-1])
    return titled(line, f"Hypervolume of {run.folder.name}", f"{size} candidates on the front at the end", 560, 280)


def utilisation(run: Run) -> alt.Chart:
    """Return when each worker was busy, a row per worker, in seconds of the run's active time.

    The frame behind it is `run.tables.work()`; where the time went by stage is in `run.tables.utilisation()`.

    Args:
        run: with at least one finished evaluation.

    Raises:
        InputError: no evaluation is finished yet.
    """
    library, frame = altair(), utilisation_frame(run)
    if not len(frame):
        raise InputError("no evaluation is finished yet, so there is nothing to draw")
    # fixed colours: the same in every run's figure
    colours = library.Scale(domain=["search items", "held-out items", "failed"], range=[BLUE, GREEN, ORANGE])
    bars = (
        library.Chart(frame)
        .mark_bar(height={"band": 0.8})  # gaps between rows keep workers apart
        .encode(
            x=library.X("start:Q", title="seconds of active time", scale=library.Scale(nice=False)),
            x2="end:Q",
            y=library.Y("worker:N", title=None),
            color=library.Color("kind:N", scale=colours, title=None),
            tooltip=["candidate", "worker", "kind", library.Tooltip("seconds:Q", format=".3g")],
        )
    )
    fraction = run.status()["busy_share"]
    subtitle = "gaps are idle time" + (
        f"; workers busy {100 * fraction:.0f}% of the time" if fraction is not None else ""
    )
    height = max(60, 24 * frame["worker"].nunique())
    return titled(bars, f"Utilisation of {run.folder.name}", subtitle, 620, height)


def utilisation_frame(run: Run) -> pd.DataFrame:
    """Return `run.tables.work()` with two columns more: seconds (of each evaluation) and kind (as in the legend)."""
    work = run.tables.work()
    kinds = work["split"].map({"search": "search items", "holdout": "held-out items"}).fillna(work["split"])
    return work.assign(seconds=work["end"] - work["start"], kind=kinds.where(~work["failed"].astype(bool), "failed"))


def _history(run: Run) -> pd.DataFrame:
    history = run.tables.history()
    if not len(history):
        raise InputError("no candidate has scores yet, so there is no progress to draw")
    # not by number: predicted points that were measured after the search have numbers from a million on
    return history.assign(order=range(1, len(history) + 1))


def _parent(library: Any, run: Run) -> list[Any]:
    """Return the line of the best parent's overall fitness, with its name."""
    import pandas as pd

    from evomerge.runs import best_number

    parents = run.data.evaluations(kind="parent")
    number = best_number(parents, run.objectives)
    fitness = parents[number].fitness(run.objectives) if number is not None else None
    if number is None or fitness is None:
        return []
    name = run.data.candidate(number).name
    chart = library.Chart(
        pd.DataFrame({"y": [Objectives(run.objectives).scalarise(fitness)], "name": [f"parent {name}"]})
    )
    rule = chart.mark_rule(color=INK, strokeDash=[6, 4]).encode(y="y:Q")
    text = chart.mark_text(align="right", dy=-7, color=INK).encode(x=library.value("width"), y="y:Q", text="name:N")
    return [rule, text]
