"""The development tables with the split rules of their baseline, and the baseline's best rows."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from evomerge.irt import ResponseTable, read_table

ITEMS = (10, 20, 50, 100)
# Best static row and best adaptive (CAT) row of BASELINE.md at each number of items, mean absolute error in points.
BEST_STATIC = {
    "metabench_arc": (4.99, 3.77, 2.40, 1.51),
    "metabench_truthfulqa": (4.27, 3.20, 1.84, 0.69),
    "zeroeval_crux": (5.53, 4.76, 3.08, 2.74),
    "alpaca_eval2": (2.16, 2.72, 1.99, 1.07),
}
BEST_ADAPTIVE = {
    "metabench_arc": (3.10, 2.19, 1.47, 0.83),
    "metabench_truthfulqa": (2.99, 1.96, 0.95, 0.09),
    "zeroeval_crux": (6.31, 4.87, 3.41, 2.77),
    "alpaca_eval2": (6.00, 4.94, 3.47, 2.61),
}
TABLES = tuple(BEST_STATIC)


def data_folder() -> Path | None:
    """Return the folder of the development tables, or None where they are absent."""
    root = Path(__file__).resolve().parents[2]
    named = [Path(os.environ["EVOMERGE_DATA"])] if os.environ.get("EVOMERGE_DATA") else []
    for base in [*named, root.parent / "shared" / "data", root.parent.parent / "shared" / "data"]:
        for folder in (base / "irt", base):
            if (folder / "metabench_arc.npz").is_file():
                return folder
    return None


def take(table: ResponseTable, rows: np.ndarray) -> ResponseTable:
    """Return some rows of a table."""
    return ResponseTable(table.responses[rows], tuple(table.models[i] for i in rows), table.items)


def complete_rows(table: ResponseTable) -> ResponseTable:
    """Return the models that answered every item; the two holes of the preference table count as 0."""
    if table.graded:
        return ResponseTable(np.nan_to_num(table.responses), table.models, table.items)
    return take(table, np.flatnonzero(~np.isnan(table.responses).any(axis=1)))


def split(name: str, folder: Path) -> tuple[ResponseTable, ResponseTable]:
    """Return the calibration and the test part of a table, by the baseline's rule."""
    table = complete_rows(read_table(folder / f"{name}.npz"))
    if name.startswith("metabench"):
        digest = [int(hashlib.sha1(m.lower().encode()).hexdigest(), 16) % 5 == 0 for m in table.models]
        test = np.array(digest)
    else:
        test = np.arange(len(table.models)) % 3 == 0
    return take(table, np.flatnonzero(~test)), take(table, np.flatnonzero(test))
