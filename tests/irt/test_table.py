from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evomerge.errors import InputError
from evomerge.irt import ResponseTable, item_id, read_lm_eval_samples, read_table
from evomerge.irt._table_files import read_parents, write_table

BINARY = ResponseTable(np.array([[1.0, 0.0, np.nan], [0.0, 1.0, 1.0]]), ("org/one", "007"), ("q1", "q2", "3"))
GRADED = ResponseTable(np.array([[0.25, 1.0], [np.nan, 0.1]]), ("x", "y"), ("a", "b"))


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
@pytest.mark.parametrize("table", [BINARY, GRADED], ids=["binary", "graded"])
def test_tables_come_back_as_written(tmp_path: Path, table: ResponseTable, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"t{suffix}"
    write_table(table, path)
    back = read_table(path)
    np.testing.assert_array_equal(back.responses, table.responses)
    assert (back.models, back.items) == (table.models, table.items)
    with pytest.raises(InputError, match="exists already"):
        write_table(table, path)


def test_npz_of_the_contract(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "t.npz", responses=np.array([[1, -1]], np.int8), models=np.array(["m"]), items=np.array(["a", "b"])
    )
    np.testing.assert_array_equal(read_table(tmp_path / "t.npz").responses, [[1.0, np.nan]])


def test_csv_of_the_contract(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,a,b\nNone,1,\nm,0,0.5\n")
    table = read_table(tmp_path / "t.csv")
    assert table.models == ("None", "m")
    np.testing.assert_array_equal(table.responses, [[1.0, np.nan], [0.0, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,a\nm,1\n", "first column must be called 'model'"),
        ("model,a\nm,yes\n", "'yes' is not a number"),
        ("model,a\nm,75\n", r"must be in \[0, 1\].*'m'.*'a' is 75"),
        ("model,a\nm,-1\n", "must be in"),
        ("model,a,a\nm,1,0\n", "item names must be unique.*a"),
        ("model,a\nm,1\nm,0\n", "model names must be unique.*m"),
        ("model,a\n", "at least one model"),
        ("model\nm\n", "at least one"),
    ],
)
def test_bad_csv_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    for name, message in (("t.txt", "must end in"), ("none.csv", "no response table")):
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not a readable"):
        read_table(tmp_path / "broken.npz")
    np.savez(tmp_path / "part.npz", models=np.array(["m"]))
    with pytest.raises(InputError, match="needs arrays"):
        read_table(tmp_path / "part.npz")
    np.savez(tmp_path / "pickled.npz", responses=np.array([[None]], object), models=np.array(["m"]))
    with pytest.raises(InputError, match="pickle"):
        read_table(tmp_path / "pickled.npz")


def test_items_are_matched_by_id_never_by_place() -> None:
    moved = BINARY.for_items(("3", "q1"))
    np.testing.assert_array_equal(moved.responses, [[np.nan, 1.0], [1.0, 0.0]])
    with pytest.raises(InputError, match="another version"):
        BINARY.for_items(("q1", "q9"))


def test_rows_by_name() -> None:
    np.testing.assert_array_equal(BINARY.row("007"), [0.0, 1.0, 1.0])
    with pytest.raises(InputError, match="Near: org/one"):
        BINARY.row("org/on")


def test_item_ids_see_the_text_and_not_its_spacing() -> None:
    assert item_id("What is  2+2?\n") == item_id(" What is 2+2?")
    assert item_id("What is 2+2?") != item_id("What is 2+3?")


def test_parents_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    pd.DataFrame({"child": ["c"], "parent_1": ["a"], "parent_2": ["b"], "note": ["x"]}).to_csv(path, index=False)
    assert read_parents(path) == {"c": ("a", "b")}
    for text, message in (("kid,parent_1\n", "needs columns"), ("child,parent_1\nc,a\nc,b\n", "each child once")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_parents(path)


def test_lm_eval_logs_are_matched_by_document(tmp_path: Path) -> None:
    def log(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return path

    one = log("a.jsonl", [{"doc_hash": "h1", "acc": 1.0}, {"doc_hash": "h2", "acc": 0.0}])
    two = log("b.jsonl", [{"doc_hash": "h2", "acc": 1.0}, {"doc": {"q": "new"}, "acc": 0.5}])
    table = read_lm_eval_samples({"A": one, "B": two}, "acc")
    assert table.items[:2] == ("h1", "h2")
    np.testing.assert_array_equal(table.responses, [[1.0, 0.0, np.nan], [np.nan, 1.0, 0.5]])
    with pytest.raises(InputError, match="no metric 'f1'"):
        read_lm_eval_samples({"A": one}, "f1")
    with pytest.raises(InputError, match="occurs twice"):
        read_lm_eval_samples({"A": log("c.jsonl", [{"doc_hash": "h", "acc": 1}] * 2)}, "acc")
