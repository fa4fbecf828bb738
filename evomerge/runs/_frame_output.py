"""Data frames to files and to the terminal. A file named '-' is stdout."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.errors import ExtraMissing, InputError

if TYPE_CHECKING:
    import pandas as pd

SHOWN_COLUMNS = 14  # a terminal shows no more columns; files hold all


def write_csv(table: pd.DataFrame, path: str) -> None:
    """Write `table` as CSV; floats keep every digit, so reading them back gives the same numbers."""
    if path == "-":
        table.to_csv(sys.stdout, index=False)
        return
    _prepared(path)
    table.to_csv(path, index=False)


def write_parquet(table: pd.DataFrame, path: str) -> None:
    """Write `table` as Parquet; needs pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("pyarrow", "parquet") from error
    if path == "-":
        table.to_parquet(sys.stdout.buffer, index=False)
        return
    _prepared(path)
    table.to_parquet(path, index=False)


def write_json(table: pd.DataFrame) -> None:
    """Print `table` as a JSON array of one object per row; missing values are null."""
    # not DataFrame.to_json: it rounds to 15 digits, and a score read back must be the score
    rows = [{key: plain(value) for key, value in row.items()} for row in table.to_dict(orient="records")]
    print(json.dumps(rows, indent=2))


def print_table(table: pd.DataFrame) -> None:
    """Print `table` to the terminal; see `table_text`."""
    print(table_text(table))


def table_text(table: pd.DataFrame) -> str:
    """Return `table` for the terminal: short numbers, at most `SHOWN_COLUMNS` columns; a last line counts the rest."""
    shown = table.iloc[:, :SHOWN_COLUMNS]
    if table.empty:
        return "nothing yet"
    cells = [[str(column) for column in shown.columns]]
    cells += [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if hidden := table.shape[1] - shown.shape[1]:
        lines.append(f"({hidden} more columns: --csv writes them all)")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    text = "" if value is None or str(value) == "<NA>" else str(value)  # pandas' NA has no truth value to test
    return text if len(text) <= 24 else text[:21] + "..."


def plain(value: object) -> object:
    """Return a cell as JSON knows it: NaN and missing become null, NumPy scalars become Python's."""
    plain = value.item() if hasattr(value, "item") else value  # numpy scalars are no JSON
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _prepared(path: str) -> None:
    parent = Path(path).resolve().parent
    if not parent.is_dir():  # pandas' own message names neither file nor remedy
        raise InputError(f"file {path!r}: the folder {parent} does not exist; create it first")
