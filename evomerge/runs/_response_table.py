"""A run's own answers as a response table, from which an item bank can be calibrated."""

from __future__ import annotations

import numpy as np

from evomerge.candidate import Objective
from evomerge.errors import InputError
from evomerge.irt import ResponseTable
from evomerge.runs._run_data import RunData
from evomerge.scoring import values_of

# A model that answered less than this fraction of the search items, as most do where scores are estimated, is left out:
# its answers to the anchor items alone hold no information on the others.
LEAST_FRACTION = 0.5


def response_table(run: RunData, objective: Objective, prefix: str = "") -> ResponseTable:
    """Return the answers of parents and candidates to an objective's search items.

    Items are named by the hash of their text, so that other runs can match them whatever their order. Of documents
    that repeat word for word the first stands for all.

    Args:
        run: its archive is read.
        objective: of kind task.
        prefix: put before every model's name.

    Raises:
        InputError: the run is of a version that did not keep the hashes, or no model answered.
    """
    names = run.config.item_hashes.get(objective.task)
    if names is None:
        raise InputError(
            f"{run.folder} has no document hashes, so items cannot be matched with another run. Search "
            "again, or calibrate from lm-eval's sample logs"
        )
    items: dict[str, str] = {}  # hash -> item
    for item in run.config.items.search[objective.task]:
        items.setdefault(names[item][0], item)  # the first of duplicates: a bank has one row per text
    rows, models = [], []
    for candidate in [*run.candidates("parent"), *run.candidates()]:
        answers = (*run.responses(candidate.number), *run.responses(candidate.number, "search_rest"))
        values = values_of(answers, objective)
        row = [values.get(item, np.nan) for item in items.values()]  # (n_items,)
        if np.mean(np.isnan(row)) <= 1.0 - LEAST_FRACTION:
            rows.append(row)
            models.append(
                f"{prefix}parent {candidate.name}" if candidate.number < 0 else f"{prefix}candidate {candidate.number}"
            )
    if not rows:
        raise InputError(f"no model answered objective {objective.name!r} in {run.folder}")
    return ResponseTable(np.array(rows), tuple(models), tuple(items))  # (n_models, n_items), NaN where not answered
