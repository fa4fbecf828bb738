"""Search scores beside held-out scores: how much of what was found was luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evomerge.candidate import Evaluation, Objective, Score
from evomerge.results.evaluations import comparable
from evomerge.results.finals import Final, mean_score

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("candidate", "name", "kind", "objective", "search", "search_stderr", "holdout", "holdout_stderr")
MEAN = "mean"


def generalisation_frame(
    finals: Sequence[Final], searched: Mapping[int, Evaluation], objectives: Sequence[Objective]
) -> pd.DataFrame:
    """Return one row per finalist or parent and objective, then one for the mean over objectives.

    Args:
        finals: scores on held-out items.
        searched: number -> evaluation on search items, parents included.
        objectives: what is wanted. The mean is of fitness (higher is better), and missing where units differ.
    """
    import pandas as pd

    rows = []
    for final in finals:
        before = searched.get(final.number)
        if before is None or before.failure is not None:
            continue
        kind = "parent" if final.number < 0 else "candidate"
        for objective in objectives:
            pair = (before.scores[objective.name], final.scores[objective.name])
            rows.append((final.number, final.name, kind, objective.name, *_cells(pair)))
        if len(comparable(objectives)) > 1 and final.in_points:
            pair = (mean_score(before.scores, comparable(objectives)), final.score)
            rows.append((final.number, final.name, kind, MEAN, *_cells(pair)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _cells(pair: tuple[Score, Score]) -> tuple[float, float, float, float]:
    return pair[0].value, pair[0].stderr, pair[1].value, pair[1].stderr
