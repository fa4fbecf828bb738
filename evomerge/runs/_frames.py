"""The tables of a run as tidy pandas frames: pure functions of archive rows. `columns` documents every column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.archive import Event
from evomerge.candidate import Candidate, Evaluation, Objective, Outcome, Response
from evomerge.scoring import ANSWER_FLAGS, UNEXTRACTED, metric_key
from evomerge.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

AnswerFlags = Mapping[int, Mapping[tuple[str, str], float]]  # candidate -> (kind, objective) -> fraction of its answers
_FIELDS = {"score": "value", "stderr": "stderr", "items": "items"}  # column prefix -> field of `Score`
SCORED = ("score", "stderr", "items")


def score_columns(objectives: Sequence[Objective], kinds: Sequence[str] = SCORED) -> list[str]:
    """Return the names of the columns that hold scores, standard errors and numbers of items."""
    return [f"{kind}.{objective.name}" for kind in kinds for objective in objectives]


def score_cells(
    evaluation: Evaluation | None, objectives: Sequence[Objective], kinds: Sequence[str] = SCORED
) -> dict[str, float]:
    """Return column -> value of one evaluation; NaN, and 0 items, where there is no score."""
    scores = evaluation.scores if evaluation else {}
    return {
        f"{kind}.{o.name}": getattr(scores[o.name], _FIELDS[kind])
        if o.name in scores
        else (0 if kind == "items" else np.nan)
        for kind in kinds
        for o in objectives
    }


def trials_frame(
    candidates: Sequence[Candidate],
    outcomes: Mapping[int, Outcome],
    submitted: set[int | None],
    evaluations: Mapping[int, Evaluation],
    flags: AnswerFlags,
    space: SearchSpace,
    objectives: Sequence[Objective],
    staleness: Mapping[int | None, int | None],
) -> pd.DataFrame:
    """Return one row per candidate.

    Args:
        candidates: in order.
        outcomes: candidate -> how it ended.
        submitted: candidates that a live process handed to a worker.
        evaluations: candidate -> scores on search items.
        flags: candidate -> fractions of answers that went wrong.
        space: names the genes.
        objectives: name the scores.
        staleness: candidate -> updates of the controller between proposing and observing it, where recorded.
    """
    import pandas as pd

    rows = []
    for candidate in candidates:
        number, outcome = candidate.number, outcomes.get(candidate.number)
        waiting = "running" if number in submitted else "pending"  # no outcome yet
        row: dict[str, Any] = {
            "candidate": number,
            "status": waiting if outcome is None else "done" if outcome.done else "failed",
            "failure": outcome.failure.message if outcome and outcome.failure else None,
            "seconds": outcome.seconds if outcome else np.nan,
            "worker": outcome.worker if outcome else None,
            "digest": candidate.recipe.digest,
        }
        row.update(score_cells(evaluations.get(number), objectives))
        genes = space.phenotype(np.array(candidate.genotype))
        # None where the chosen method ignores the gene
        row.update({f"gene.{name}": genes.get(name) for name in space.names})
        row.update({f"{kind}.{name}": fraction for (kind, name), fraction in flags.get(number, {}).items()})
        rows.append(row)
    # columns only for flags that occurred: most runs have none
    seen = {key for fractions in flags.values() for key in fractions}
    columns = ["candidate", "status", "failure", "seconds", "worker", "digest", *score_columns(objectives)]
    columns += [f"gene.{name}" for name in space.names]
    columns += [f"{kind}.{o.name}" for kind in ANSWER_FLAGS for o in objectives if (kind, o.name) in seen]
    if any(age is not None for age in staleness.values()):  # synchronous controllers have no staleness
        columns.append("staleness")
        for row in rows:
            row["staleness"] = staleness.get(row["candidate"])
    return pd.DataFrame(rows, columns=columns)


def flag_metrics(objectives: Sequence[Objective]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (task, metric under which it is stored) -> (truncated or unextracted, objective)."""
    return {
        # only parsing depends on the filter
        (o.task, metric_key(kind, o.filter if kind == UNEXTRACTED else "none")): (kind, o.name)
        for kind in ANSWER_FLAGS
        for o in objectives
    }


def items_frame(rows: Iterable[tuple[int, Response]]) -> pd.DataFrame:
    """Return one row per answer."""
    import pandas as pd

    cells = [(number, r.task, r.item, r.metric, r.value, r.answer) for number, r in rows]
    return pd.DataFrame(cells, columns=["candidate", "task", "item", "metric", "value", "answer"])


def events_frame(events: Iterable[Event]) -> pd.DataFrame:
    """Return one row per event, in order."""
    import pandas as pd

    rows = [(e.seq, e.time, e.seconds, e.kind, e.candidate, e.payload) for e in events]
    table = pd.DataFrame(rows, columns=["seq", "time", "seconds", "kind", "candidate", "payload"])
    return table.assign(time=pd.to_datetime(table["time"], unit="s", utc=True))  # seconds since 1970 -> UTC


def parents_frame(
    parents: Sequence[Candidate], evaluations: Mapping[int, Evaluation], objectives: Sequence[Objective]
) -> pd.DataFrame:
    """Return one row per parent, the base first."""
    import pandas as pd

    rows = [
        {"candidate": p.number, "name": p.name, **score_cells(evaluations.get(p.number), objectives)} for p in parents
    ]
    return pd.DataFrame(rows, columns=["candidate", "name", *score_columns(objectives)])


def failures_frame(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return one row per failed evaluation."""
    import pandas as pd

    rows = [
        (o.number, o.failure.kind, o.failure.message, o.worker, o.seconds, o.failure.traceback)
        for o in outcomes
        if o.failure
    ]
    return pd.DataFrame(rows, columns=["candidate", "kind", "message", "worker", "seconds", "traceback"])
