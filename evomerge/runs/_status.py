"""What is running, the best so far, and what failed: the form of `status --json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.objectives import Objectives
from evomerge.runs._estimates import estimates_frame, estimates_summary
from evomerge.runs._evaluations import best_number, front_numbers
from evomerge.runs._fronts import front_volume
from evomerge.runs._run_data import RunData

if TYPE_CHECKING:
    import pandas as pd

SHOWN_FAILURES = 3


def status_of(run: RunData) -> dict[str, Any]:
    """Return state, counts, best, front size, hypervolume, seconds and the last failures of a run."""
    outcomes = run.outcomes()
    numbers = front_numbers(run.feasible(), run.objectives)
    last = [outcome for outcome in outcomes if outcome.failure][-SHOWN_FAILURES:]  # the newest are the ones to act on
    searched = [outcome for outcome in outcomes if outcome.number >= 0]  # without parents
    return {
        "state": run.state,
        "candidates": run.count(),
        "budget": run.budget(),
        "done": sum(outcome.done for outcome in searched),
        "failed": sum(not outcome.done for outcome in searched),
        "best": _best(run),
        **({"constraints": list(texts), "infeasible": run.infeasible()} if (texts := _constraints(run)) else {}),
        **({"estimates": estimates_summary(_estimates(run))} if run.estimated else {}),
        "front_size": len(numbers),
        "hypervolume": front_volume(run),
        "seconds": run.seconds(),
        "busy_seconds": sum(outcome.seconds for outcome in searched),
        **run.usage(),
        "workers": sorted({outcome.worker for outcome in outcomes if outcome.worker}),
        "last_failures": [
            {"candidate": o.number, "kind": o.failure.kind, "message": o.failure.message} for o in last if o.failure
        ],
    }


def _estimates(run: RunData) -> pd.DataFrame:
    with run.open_archive() as archive:
        return estimates_frame(archive, run.objectives, run.config.items.search)


def _constraints(run: RunData) -> tuple[str, ...]:
    return run.config.constraints


def _best(run: RunData) -> dict[str, Any] | None:
    evaluations = run.evaluations()
    best = best_number(run.selection_pool(), run.objectives)
    fitness = evaluations[best].fitness(run.objectives) if best is not None else None
    if best is None or fitness is None:
        return None
    return {
        "candidate": best,
        "overall": Objectives(run.objectives).scalarise(fitness),
        "score": {name: score.value for name, score in evaluations[best].scores.items()},
        "stderr": {name: score.stderr for name, score in evaluations[best].scores.items()},
    }
