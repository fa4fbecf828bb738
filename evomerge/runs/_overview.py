"""A run in a notebook: state, parents and best candidates, and the held-out comparison. No script, all escaped."""

from __future__ import annotations

from evomerge._markup import element, joined, table
from evomerge.runs._fronts import front_frame
from evomerge.runs._holdout import finals_of
from evomerge.runs._run_data import RunData
from evomerge.runs._status import status_of
from evomerge.runs._summaries import clock, verdict
from evomerge.runs._tables import RunTables


def overview(run: RunData) -> str:
    """Return a run as HTML: a line of facts, then parents and best on the search items, then the verdict."""
    status = status_of(run)
    budget = status["budget"].get("candidates")
    facts = [
        status["state"],
        f"{status['done']} candidates scored" + (f" of {budget}" if budget else ""),
        f"{status['failed']} failed",
        f"front of {status['front_size']}",
        clock(status["seconds"]),
    ]
    title = element("p", {}, element("b", {}, str(run.folder)), ": ", " · ".join(facts))
    return element("div", {}, title, _scores(run), _verdict(run))


def _scores(run: RunData) -> str:
    names = [objective.name for objective in run.objectives]
    parents = RunTables(run).parents()
    rows = [
        (f"parent {row['name']}", *(f"{row[f'score.{n}']:.4g} ± {row[f'stderr.{n}']:.2g}" for n in names))
        for _, row in parents.iterrows()
    ]
    front = front_frame(run)
    # only outstanding points: a front may have hundreds
    for number, marks in front.marks().items() if len(front) else ():
        row = front[front["candidate"] == number].iloc[0]
        cells = (f"{row[f'score.{n}']:.4g} ± {row[f'stderr.{n}']:.2g}" for n in names)
        rows.append((f"candidate {number} ({', '.join(marks)})", *cells))
    caption = "search items; score ± standard error"
    return table(("", *names), rows, caption=caption, numeric=range(1, 1 + len(names)))


def _verdict(run: RunData) -> str:
    finals = [final for final in finals_of(run) if final.gain is not None]  # parents have no gain over themselves
    if not finals:
        return joined([])
    return element("ul", {}, *(element("li", {}, f"held-out items: {f.name} is {verdict(f)}") for f in finals))
