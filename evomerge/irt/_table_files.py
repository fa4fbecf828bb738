"""Reading and writing response tables: `.npz`, `.csv`, `.parquet`."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from evomerge.errors import ExtraMissing, InputError, listed
from evomerge.irt._curves import Array
from evomerge.irt._table import ResponseTable

MISSING = -1  # integers have no NaN
SUFFIXES = (".npz", ".csv", ".parquet")


def read_table(path: str | Path) -> ResponseTable:
    """Return a response table from a file.

    `.npz` holds `responses` (integers, -1 missing) or `scores` (floats, nan missing), `models`, and `items` (or
    `item_ids`; without either the items are named by their column number). `.csv` and `.parquet` are wide: first column
    `model`, one column per item, empty where missing.

    Raises:
        InputError: unknown suffix, unreadable file, missing parts, or values that are not answers.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise InputError(f"response table {str(file)!r} must end in one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise InputError(f"no response table at {str(file)!r}")
    try:
        return _read_npz(file) if file.suffix == ".npz" else _from_frame(_read_frame(file))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def write_table(table: ResponseTable, path: str | Path) -> None:
    """Write a response table; the suffix of `path` chooses the format.

    Raises:
        InputError: unknown suffix, or the file exists already.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise InputError(f"response table {str(file)!r} must end in one of {', '.join(SUFFIXES)}")
    if file.exists():
        raise InputError(f"{str(file)!r} exists already; choose another name or remove it first")
    if file.suffix == ".npz":
        models, items = np.array(table.models), np.array(table.items)
        if table.graded:
            np.savez_compressed(file, scores=table.responses, models=models, items=items)
        else:
            # one byte per answer: leaderboard tables have a hundred million of them
            whole = np.where(np.isnan(table.responses), MISSING, table.responses).astype(np.int8)
            np.savez_compressed(file, responses=whole, models=models, items=items)
        return
    frame = pd.DataFrame(table.responses, columns=list(table.items))
    frame.insert(0, "model", list(table.models), allow_duplicates=True)  # an item may be called 'model' too
    if file.suffix == ".csv":
        frame.to_csv(file, index=False)
    else:
        _need_pyarrow()
        frame.to_parquet(file, index=False)


def read_parents(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return merge -> parents from a `.csv` with columns child, parent_1, parent_2, ...; other columns are ignored.

    Raises:
        InputError: unreadable, columns missing, a child listed twice, without a parent, or as its own parent, which
            would leak its full answers into the estimate.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)  # a model may be called 'None' or '007'
    except (OSError, ValueError) as error:
        raise InputError(f"parents file {str(path)!r} is not a readable .csv ({error})") from error
    columns = [c for c in frame.columns if c.startswith("parent_")]
    if "child" not in frame.columns or not columns:
        raise InputError(f"{path}: needs columns child, parent_1, parent_2; it has {listed(frame.columns)}")
    if frame["child"].duplicated().any():
        raise InputError(
            f"{path}: each child once; these repeat: {listed(frame['child'][frame['child'].duplicated()])}"
        )
    found = {r["child"]: tuple(r[c] for c in columns if r[c].strip()) for r in frame.to_dict("records")}
    if alone := [child for child, parents in found.items() if not parents]:
        raise InputError(f"{path}: every child needs a parent; none for {listed(alone)}; leave such rows out")
    if own := [child for child, parents in found.items() if child in parents]:
        raise InputError(f"{path}: no model can be its own parent; these are: {listed(own)}")
    return found


def _read_npz(file: Path) -> ResponseTable:
    try:
        with np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}  # read while the file is open
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        raise InputError(f"not a readable .npz without pickled objects ({error})") from error
    name = "responses" if "responses" in arrays else "scores"  # integers with -1, or floats with NaN
    if name not in arrays or "models" not in arrays:
        raise InputError(f"needs arrays 'responses' (or 'scores') and 'models'; it has {listed(arrays)}")
    values = arrays[name]
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(f"{name!r} must be a (models, items) array of numbers, got {values.shape} of {values.dtype}")
    values = values.astype(np.float64)
    if name == "responses":
        values = np.where(values == MISSING, np.nan, values)
    items = arrays.get("items", arrays.get("item_ids"))
    ids = [str(i) for i in (np.arange(values.shape[1]) if items is None else items)]
    return ResponseTable(values, tuple(str(m) for m in arrays["models"]), tuple(ids))


def _read_frame(file: Path) -> pd.DataFrame:
    try:
        if file.suffix == ".csv":
            # everything as text first, so that model names like 007 or None are kept
            return pd.read_csv(file, dtype=str, keep_default_na=False, header=None)
        _need_pyarrow()
        frame = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise InputError(f"not a readable table ({error})") from error
    head = pd.DataFrame([list(frame.columns)])
    body = frame.astype(object)  # one path for both formats: a header row, then cells
    body.columns = range(body.shape[1])
    return pd.concat([head, body], ignore_index=True)


def _from_frame(frame: pd.DataFrame) -> ResponseTable:
    """Return the table of a frame whose first row holds the column names."""
    header = [str(name) for name in frame.iloc[0]]
    if header[0] != "model":
        raise InputError(f"the first column must be called 'model', got {header[0]!r}")
    cells = frame.iloc[1:, 1:]
    # spreadsheets write missing cells as blanks, spaces or 'nan'
    blank = cells.isna() | cells.astype(str).apply(lambda column: column.str.strip()).isin(["", "nan", "NaN"])
    numbers = cells.where(~blank).apply(pd.to_numeric, errors="coerce")
    wrong = np.argwhere((numbers.isna() & ~blank).to_numpy())
    if len(wrong):
        i, j = wrong[0]
        raise InputError(
            f"column {header[j + 1]!r}, row {i + 1}: {cells.iat[i, j]!r} is not a number; leave it empty if missing"
        )
    values: Array = numbers.to_numpy(dtype=np.float64)
    return ResponseTable(values, tuple(str(m) for m in frame.iloc[1:, 0]), tuple(header[1:]))


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("pyarrow", "test") from error
