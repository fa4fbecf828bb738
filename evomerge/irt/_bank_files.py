"""Reading and writing item banks: JSON or Parquet, never pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.errors import InputError
from evomerge.irt._bank import FORMAT, Bank
from evomerge.irt._calibrate import ItemParameters, ItemPrior
from evomerge.irt._curves import Array
from evomerge.irt._model_selection import IRTModelSpec
from evomerge.irt._table import ResponseTable
from evomerge.irt._table_files import _need_pyarrow

SUFFIXES = (".json", ".parquet")
# Binary answers to an item are stored as text, one character per model: short, and readable by eye.
LETTERS = {0.0: "0", 1.0: "1"}


def write_bank(bank: Bank, path: str | Path) -> None:
    """Write a bank; the suffix of `path` chooses JSON or Parquet (one row per item, the rest as metadata).

    Raises:
        InputError: unknown suffix, or the file exists already.
    """
    file = writable(path)
    head, columns = _to_columns(bank)  # one layout for both formats
    if file.suffix == ".json":
        # NaN is not JSON; a bank holds none, since missing answers are stored as text
        file.write_text(json.dumps({**head, "items": columns}, allow_nan=False), encoding="utf-8")
        return
    _need_pyarrow()  # before the import: its error names the extra to install
    import pyarrow
    import pyarrow.parquet

    frame = pyarrow.table(columns)
    pyarrow.parquet.write_table(frame.replace_schema_metadata({"evomerge": json.dumps(head, allow_nan=False)}), file)


def writable(path: str | Path) -> Path:
    """Return a path to which a bank can be written; call it before a long calibration, not after it.

    Raises:
        InputError: another ending, the file exists, or its folder does not.
    """
    file = _checked(path)
    if file.exists():
        raise InputError(f"{str(file)!r} exists already; choose another name or remove it first")
    if not file.absolute().parent.is_dir():
        raise InputError(
            f"bank {str(file)!r} cannot be written: there is no folder {str(file.parent)!r}; make it first"
        )
    return file


def read_bank(path: str | Path) -> Bank:
    """Return the bank of a file.

    Raises:
        InputError: no such file, not a bank, or of a later format.
    """
    file = _checked(path)
    if not file.is_file():
        raise InputError(f"no bank at {str(file)!r}; make one with: evomerge calibrate RESPONSES --out {file}")
    try:
        if file.suffix == ".json":
            head = json.loads(file.read_text(encoding="utf-8"))
            columns = head.pop("items")
        else:
            _need_pyarrow()
            import pyarrow.parquet

            held = pyarrow.parquet.read_table(file)
            head = json.loads((held.schema.metadata or {})[b"evomerge"])
            columns = held.to_pydict()
        if head["evomerge_bank"] != FORMAT:  # a KeyError here means: some other JSON file
            raise InputError(
                f"{file}: bank format {head['evomerge_bank']!r}, this version reads {FORMAT}; calibrate again"
            )
        return _from_columns(head, columns)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not an item bank ({type(error).__name__}: {error}); make one with evomerge calibrate"
        ) from error


def _checked(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise InputError(f"bank {str(file)!r} must end in one of {', '.join(SUFFIXES)}")
    return file


def _to_columns(bank: Bank) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    p = bank.parameters
    head = {
        "evomerge_bank": FORMAT,
        "provenance": dict(bank.provenance),
        "models": list(bank.table.models),
        "model_spec": {"d": bank.model_spec.d, "prior": asdict(bank.model_spec.prior)},
        "ability": {
            "mean": p.ability_mean.tolist(),
            "precision": p.ability_precision.tolist(),
            "theta": p.theta.tolist(),
            "theta_covariance": p.theta_covariance.tolist(),
        },
    }
    columns = {
        "item": list(bank.items),
        "weight": bank.weights.tolist(),
        "a": p.a.tolist(),
        "b": p.b.tolist(),
        "covariance": p.covariance.reshape(len(p.b), -1).tolist(),  # flat: Parquet has no matrices
        "answers": [_encode(column) for column in bank.table.responses.T],
    }
    return head, columns


def _from_columns(head: dict[str, Any], columns: dict[str, list[Any]]) -> Bank:
    d = int(head["model_spec"]["d"])
    items = len(columns["item"])
    # (models, items); reshaped for banks without any calibration model
    responses = np.array([_decode(text) for text in columns["answers"]], dtype=np.float64).T.reshape(-1, items)
    ability = {name: np.array(value, dtype=np.float64) for name, value in head["ability"].items()}
    models = len(head["models"])
    parameters = ItemParameters(
        a=np.array(columns["a"], dtype=np.float64).reshape(items, d),
        b=np.array(columns["b"], dtype=np.float64),
        covariance=np.array(columns["covariance"], dtype=np.float64).reshape(items, d + 1, d + 1),
        ability_mean=ability["mean"],
        ability_precision=ability["precision"],
        theta=ability["theta"].reshape(models, d),
        theta_covariance=ability["theta_covariance"].reshape(models, d, d),
    )
    return Bank(
        table=ResponseTable(responses, tuple(head["models"]), tuple(columns["item"])),
        weights=np.array(columns["weight"], dtype=np.float64),
        model_spec=IRTModelSpec(d, ItemPrior(**head["model_spec"]["prior"])),
        parameters=parameters,
        provenance=head["provenance"],
    )


def _encode(answers: Array) -> str:
    """Return answers of one item as text: a string of 0, 1 and `-`, or comma-separated numbers where graded."""
    if all(np.isnan(y) or y in LETTERS for y in answers):
        return "".join("-" if np.isnan(y) else LETTERS[float(y)] for y in answers)
    # repr keeps every digit, so that a bank read back estimates the same
    return "," + ",".join("-" if np.isnan(y) else repr(float(y)) for y in answers)


def _decode(text: str) -> list[float]:
    parts = text[1:].split(",") if text.startswith(",") else list(text)
    return [float("nan") if part == "-" else float(part) for part in parts]
