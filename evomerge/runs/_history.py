"""Progress of a search: incumbent with its interval, front size and hypervolume, candidate by candidate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evomerge.objectives import Objectives
from evomerge.pareto import extend_front, hypervolume_history
from evomerge.runs._evaluations import fitness_table, reference_point
from evomerge.runs._run_data import RunData
from evomerge.stats import normal_reach

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("candidate", "seconds", "overall", "stderr", "incumbent", "best", "best_low", "best_high"),
    *("front_size", "hypervolume"),
)


def history_frame(run: RunData, level: float = 0.95) -> pd.DataFrame:
    """Return one row per feasible candidate in ascending order; see `RunTables.history`.

    Args:
        run: its data.
        level: of the interval around the best.
    """
    import pandas as pd

    objectives, finished = run.objectives, finish_seconds(run)
    numbers, fitness, errors = fitness_table(run.feasible(), objectives)
    weights = Objectives(objectives).weights()
    reach = normal_reach(level)  # 1.96 at 95%
    point = _reference_fitness(run)
    volumes = hypervolume_history(fitness, point)
    front: np.ndarray | None = None
    best, error, incumbent = -math.inf, 0.0, -1  # replaced by the first row
    rows = []
    for index, number in enumerate(numbers):
        value = Objectives(objectives).scalarise(fitness[index])
        stderr = float(np.sqrt(((weights * errors[index]) ** 2).sum()))
        if value > best:  # strictly: the earlier candidate stays on a tie
            best, error, incumbent = value, stderr, number
        front = extend_front(front, fitness[index], duplicates=False)
        span = (best - reach * error, best + reach * error)  # ignores that the best of many is biased upward
        moment = finished.get(number, math.nan)
        size = 0 if front is None else len(front)
        rows.append((number, moment, value, stderr, incumbent, best, *span, size, float(volumes[index])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def hypervolume_frame(run: RunData) -> pd.DataFrame:
    """Return how the measured front grew: candidate, seconds (active time when it was finished), hypervolume.

    One row per candidate in the order of their numbers, failed ones included, which add nothing. The reference is
    the worst parent's score per objective, as in `front --json`.
    """
    import pandas as pd

    numbers, fitness, _ = fitness_table(run.feasible(), run.objectives)
    finished = finish_seconds(run)
    every = sorted(finished)
    table = np.full((len(every), len(run.objectives)), np.nan)  # (n, m) NaN rows add no volume
    row_of = {number: index for index, number in enumerate(every)}
    for number, row in zip(numbers, fitness, strict=True):
        table[row_of[number]] = row
    history = hypervolume_history(table, _reference_fitness(run))
    return pd.DataFrame({"candidate": every, "seconds": [finished[number] for number in every], "hypervolume": history})


def finish_seconds(run: RunData) -> dict[int, float]:
    """Return candidate -> active seconds of the run when it was finished on the search items."""
    with run.open_archive() as archive:
        events = [event for event in archive.events("finished") if event.payload.get("split") == "search"]
    # the last one counts where a resumed run evaluated again
    return {e.candidate: e.seconds for e in events if e.candidate is not None and e.candidate >= 0}


def _reference_fitness(run: RunData) -> np.ndarray:
    """Return the hypervolume's reference point as fitness, (m,)."""
    reference = reference_point(run.evaluations("parent"), run.objectives)
    return np.array([objective.fitness(reference[objective.name]) for objective in run.objectives])
