"""How a search went: the best so far with its interval, the front and its hypervolume, candidate by candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from evomerge.candidate import Evaluation, Objective
from evomerge.pareto.dominance import non_dominated
from evomerge.pareto.hypervolume import hypervolume_history
from evomerge.results.evaluations import fitness_table, overall, overall_weights

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("candidate", "seconds", "overall", "stderr", "incumbent", "best", "best_low", "best_high"),
    *("front_size", "hypervolume"),
)


def history_frame(
    evaluations: Mapping[int, Evaluation],
    objectives: tuple[Objective, ...],
    reference: Mapping[str, float],
    finished: Mapping[int, float],
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row per scored candidate, in ascending order.

    Args:
        evaluations: on search items.
        objectives: what is wanted.
        reference: of the hypervolume, in the metrics' units.
        finished: candidate -> active seconds of the run when it was finished.
        level: of the interval around the best.
    """
    import pandas as pd

    numbers, fitness, errors = fitness_table(evaluations, objectives)
    weights = overall_weights(objectives)
    reach = NormalDist().inv_cdf(0.5 + level / 2)
    point = np.array([objective.fitness(reference[objective.name]) for objective in objectives])
    volumes = hypervolume_history(fitness, point)
    front = np.empty((0, len(objectives)))
    best, error, incumbent = -math.inf, 0.0, -1
    rows = []
    for place, number in enumerate(numbers):
        value = overall(fitness[place], objectives)
        stderr = float(np.sqrt(((weights * errors[place]) ** 2).sum()))
        if value > best:
            best, error, incumbent = value, stderr, number
        joined = np.vstack([front, fitness[place : place + 1]])
        front = joined[non_dominated(joined, duplicates=False)]
        span = (best - reach * error, best + reach * error)
        moment = finished.get(number, math.nan)
        rows.append((number, moment, value, stderr, incumbent, best, *span, len(front), float(volumes[place])))
    return pd.DataFrame(rows, columns=list(COLUMNS))
