from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.irt import (
    Bank,
    ResponseTable,
    as_json,
    bank_from_parameters,
    estimate,
    import_tiny_benchmarks,
    read_bank,
    write_bank,
)
from evomerge.irt._backtest import METHODS, calibrate
from evomerge.irt._cross_validation import ADAPTIVE_MODELS
from evomerge.irt._table_files import read_parents, write_table
from tests.irt.worlds import simulate

ITEMS = 40
World = tuple[Bank, ResponseTable]  # a bank, and the responses of models that it does not hold


def table(y: np.ndarray, prefix: str = "m") -> ResponseTable:
    return ResponseTable(y, tuple(f"{prefix}{i}" for i in range(len(y))), tuple(f"q{j}" for j in range(y.shape[1])))


@pytest.fixture(scope="module")
def world() -> World:
    y = simulate(140, ITEMS, 2, 0)[3]
    return calibrate(table(y[:80])), table(y[80:], "new")


@pytest.fixture(scope="module")
def few() -> World:
    y = simulate(40, ITEMS, 1, 1)[3]
    return calibrate(table(y[:4])), table(y[4:], "new")


@pytest.mark.parametrize("method", [m for m in METHODS if m != "mp-irt"])
def test_every_method_returns_the_contract(world: World, method: str) -> None:
    bank, answers = world
    found = estimate(bank, answers, 12, method)
    assert [e["model"] for e in found] == list(answers.models)
    for e, row in zip(found, answers.responses, strict=True):
        assert set(e) == {"model", "estimate", "stderr", "low", "high", "truth", "items", "method", "warnings"}
        assert 0.0 <= e["low"] <= e["estimate"] <= e["high"] <= 1.0
        assert e["truth"] == pytest.approx(row.mean())
        assert e["items"] == 12
    assert np.mean([abs(e["estimate"] - e["truth"]) for e in found]) < 0.12
    assert json.loads(as_json(found))[0]["model"] == "new0"


@pytest.mark.parametrize("method", [m for m in METHODS if m != "mp-irt"])
@pytest.mark.parametrize("n", [1, ITEMS])
def test_one_item_and_all_items(world: World, few: World, method: str, n: int) -> None:
    for bank, answers in (world, few):
        for e in estimate(bank, answers, n, method):
            assert np.isfinite([e["estimate"], e["stderr"], e["low"], e["high"]]).all()
            if n == ITEMS:
                assert e["estimate"] == pytest.approx(e["truth"])
                assert e["stderr"] == 0.0


def test_few_models_fall_back_and_say_so(few: World) -> None:
    bank, answers = few
    found = estimate(bank, answers, 10, "adaptive")
    assert {e["method"] for e in found} == {"p-irt"}
    assert f"needs {ADAPTIVE_MODELS} calibration models, the bank has 4" in found[0]["warnings"][0]


def test_same_seed_same_numbers_and_item_order_is_nothing(world: World) -> None:
    bank, answers = world
    order = np.random.default_rng(0).permutation(ITEMS)
    moved = ResponseTable(answers.responses[:, order], answers.models, tuple(answers.items[j] for j in order))
    assert estimate(bank, answers, 10, "p-irt", seed=3) == estimate(bank, moved, 10, "p-irt", seed=3)
    raw = [[e["estimate"] for e in estimate(bank, answers, 10, "raw", seed=s)] for s in (1, 2)]
    assert raw[0] != raw[1]


def test_level_widens(world: World) -> None:
    bank, answers = world
    wide, narrow = (estimate(bank, answers, 10, "p-irt", level=level) for level in (0.95, 0.5))
    assert all(w["high"] - w["low"] >= n["high"] - n["low"] for w, n in zip(wide, narrow, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 0}, "items must be a whole number from 1 to 40"),
        ({"items": 41}, "items must be"),
        ({"items": 2.5}, "items must be"),
        ({"items": 5, "method": "pirt"}, "unknown method 'pirt'. Near: p-irt"),
        ({"items": 5, "level": 1.0}, "level must be"),
        ({"items": 5, "level": 90}, "level must be"),
        ({"items": 5, "method": "mp-irt"}, "needs parents"),
    ],
)
def test_bad_arguments_are_refused(world: World, options: dict[str, Any], message: str) -> None:
    bank, answers = world
    with pytest.raises(InputError, match=message):
        estimate(bank, answers, **options)


def test_another_version_of_the_task_is_refused(world: World) -> None:
    bank, answers = world
    other = ResponseTable(answers.responses, answers.models, tuple(f"z{j}" for j in range(ITEMS)))
    with pytest.raises(InputError, match="another version"):
        estimate(bank, other, 5)


def test_a_model_with_holes_is_replayed_on_what_it_has(world: World) -> None:
    bank, answers = world
    y = answers.responses[:3].copy()
    y[0, 20:] = np.nan
    y[1, 3:] = np.nan
    found = estimate(bank, table(y, "new"), 8)
    assert [e["items"] for e in found] == [8, 3, 8]
    assert found[0]["truth"] == pytest.approx(y[0, :20].mean())
    assert found[1]["estimate"] == found[1]["truth"]
    y[2] = np.nan
    with pytest.raises(InputError, match="at least one answer"):
        estimate(bank, table(y, "new"), 8)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong(world: World, few: World, value: float) -> None:
    for bank, _ in (world, few):
        for method in ("gp-irt", "raw"):
            e = estimate(bank, table(np.full((1, ITEMS), value), "x"), 20, method)[0]
            assert abs(e["estimate"] - value) < 0.2
            assert e["high"] > e["low"]


@pytest.mark.parametrize(
    "y",
    [
        np.ones((1, 1)),
        np.array([[1.0, 0.0, 1.0]]),
        np.array([[1.0], [0.0], [1.0]]),
        np.ones((12, 6)),
        np.tile([[1.0, 0.0, 1.0, 0.0]], (30, 1)),
        np.random.default_rng(0).random((15, 8)),
    ],
    ids=["one answer", "one model", "one item", "all right", "clones", "graded"],
)
def test_odd_calibration_tables(y: np.ndarray) -> None:
    bank = calibrate(table(y))
    answers = table(np.random.default_rng(1).integers(0, 2, (5, y.shape[1])).astype(float), "new")
    for n in {1, y.shape[1]}:
        for method in ("auto", "anchor"):
            for e in estimate(bank, answers, n, method):
                assert np.isfinite([e["estimate"], e["stderr"]]).all()
                assert 0.0 <= e["low"] <= e["high"] <= 1.0


@pytest.mark.parametrize("dims", [0, -1, 41, "two", 1.5, "2.0"])
def test_bad_dims_are_refused(dims: Any) -> None:
    with pytest.raises(InputError, match="dims must be"):
        calibrate(table(np.eye(ITEMS)), dims)


def test_silent_items_and_models_are_refused() -> None:
    y = simulate(6, 5, 1, 2)[3]
    y[:, 3] = np.nan
    with pytest.raises(InputError, match=r"every item.*q3"):
        calibrate(table(y))
    y[:, 3], y[2] = 1.0, np.nan
    with pytest.raises(InputError, match=r"every model.*m2"):
        calibrate(table(y))


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_banks_come_back_as_written(tmp_path: Path, world: World, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    bank, answers = world
    path = tmp_path / f"bank{suffix}"
    write_bank(bank, path)
    assert estimate(path, answers, 9, "p-irt") == estimate(bank, answers, 9, "p-irt")
    assert read_bank(path).provenance["dims"] == bank.model_spec.d
    with pytest.raises(InputError, match="exists already"):
        write_bank(bank, path)


def test_holes_and_grades_survive_in_a_bank(tmp_path: Path) -> None:
    y = np.random.default_rng(0).random((6, 5))
    y[0, 0], y[1, 1] = np.nan, 1.0
    calibrate(table(y), out=tmp_path / "b.json")
    np.testing.assert_array_equal(read_bank(tmp_path / "b.json").table.responses, y)


def test_bad_banks_are_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("none.json", None, "no bank"),
        ("bank.pkl", "", "must end in"),
        ("empty.json", "", "not an item bank"),
        ("list.json", "[]", "not an item bank"),
        ("other.json", '{"items": {}}', "not an item bank"),
        ("later.json", '{"items": {}, "evomerge_bank": 9}', "bank format 9"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_bank(tmp_path / name)


def test_from_files_to_files(tmp_path: Path) -> None:
    y = simulate(50, ITEMS, 1, 3)[3]
    y[40] = np.where(np.random.default_rng(0).random(ITEMS) < 0.5, y[1], y[43])  # a merge of m1 and new3
    y[42] = 1.0 - y[1]  # answers the opposite of its parent m1
    write_table(table(y[:40]), tmp_path / "train.csv")
    write_table(table(y[40:], "new"), tmp_path / "test.npz")
    bank = calibrate(tmp_path / "train.csv", dims=1, out=tmp_path / "bank.json")
    assert bank.provenance["source"] == "train.csv"
    pedigree = "new0,m1,new3\nnew1,m2,missing\nnew2,m1,m1\nelsewhere,m1,m2\n"
    (tmp_path / "p.csv").write_text(f"child,parent_1,parent_2\n{pedigree}")
    found = estimate(tmp_path / "bank.json", tmp_path / "test.npz", 10, "mp-irt", tmp_path / "p.csv")
    assert [entry["method"] for entry in found[:3]] == ["mp-irt", "p-irt", "p-irt"]
    assert "missing" in found[1]["warnings"][-1]


def test_replaying_a_calibration_model_is_flagged(world: World) -> None:
    bank, _ = world
    found = estimate(bank, ResponseTable(bank.table.responses[:1], bank.table.models[:1], bank.items), 10)
    assert "biased downward" in found[0]["warnings"][0]


def test_tiny_benchmarks_parameters_carry_the_factor_d() -> None:
    rng = np.random.default_rng(0)
    big_a, big_b = rng.normal(1, 0.5, (1, 3, 20)), rng.normal(0, 1, (1, 1, 20))
    theta = rng.normal(0, 1, 3)
    theirs = 1 / (1 + np.exp(-(big_a[0].T * theta - big_b[0].T).sum(axis=1)))  # b subtracted once per dimension
    names = tuple(f"h{j}" for j in range(20))
    ours, ids = import_tiny_benchmarks(big_a, big_b, names, wanted=names[::-1])
    np.testing.assert_allclose(1 / (1 + np.exp(-(ours.a @ theta - ours.b))), theirs[::-1])
    assert ids == names[::-1]
    bank = bank_from_parameters(ours, ids, np.random.default_rng(1))
    y = (rng.random((30, 20)) < 0.6).astype(float)
    found = estimate(bank, ResponseTable(y, tuple(f"m{i}" for i in range(30)), ids), 8, "p-irt")
    assert np.isfinite([e["estimate"] for e in found]).all()
    with pytest.raises(InputError, match="hash of their text"):
        import_tiny_benchmarks(big_a, big_b, names, wanted=("h1", "unknown"))
    with pytest.raises(InputError, match="A must be"):
        import_tiny_benchmarks(big_a, big_b, names[:5])


def test_models_that_all_answered_alike_do_not_lend_certainty(world: World) -> None:
    _, answers = world
    constant = np.repeat([[1.0, 0.0]], answers.responses.shape[1] // 2, axis=0).reshape(-1)
    clones = ResponseTable(
        np.tile(constant, (30, 1)), tuple(f"c{k}" for k in range(30)), answers.items[: len(constant)]
    )
    bank, asked = calibrate(clones), answers.for_items(clones.items)
    for method in ("auto", "p-irt", "linear"):
        found = estimate(bank, asked, 10, method)
        assert {entry["method"] for entry in found} == {"raw"}
        assert min(entry["stderr"] for entry in found) > 0.05
        assert np.mean([entry["low"] <= entry["truth"] <= entry["high"] for entry in found]) > 0.7
        assert all(
            "all 30 models of the bank gave identical responses" in entry["warnings"][0]
            for entry in found
            if method != "raw"
        )


def test_one_answer_per_item_is_not_the_same_as_equal_answers() -> None:
    sparse = np.full((4, 4), np.nan)
    np.fill_diagonal(sparse, [1.0, 0.0, 1.0, 0.0])
    assert not ResponseTable(sparse, tuple("abcd"), tuple("wxyz")).alike
    assert ResponseTable(np.ones((2, 4)), tuple("ab"), tuple("wxyz")).alike
    assert not ResponseTable(np.ones((1, 4)), ("a",), tuple("wxyz")).alike


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("n0,n0,m1", "no model can be its own parent; these are: n0"),
        ("n0,,", "every child needs a parent; none for n0"),
        ("n0,m0,m1\nn0,m1,m2", "each child once; these repeat: n0"),
    ],
)
def test_pedigrees_that_cannot_be_used(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "pedigree.csv").write_text(f"child,parent_1,parent_2\n{rows}\n")
    with pytest.raises(InputError, match=message):
        read_parents(tmp_path / "pedigree.csv")


def test_only_the_parents_without_answers_are_named(world: World) -> None:
    bank, answers = world
    first, known = answers.models[0], bank.table.models[0]
    found = estimate(bank, answers, 10, parents={first: (known, "missing")})
    assert found[0]["warnings"] == [f"{first}: no answers of its parents missing: estimated without them"]


def test_a_seed_or_a_folder_that_cannot_be(tmp_path: Path, world: World) -> None:
    bank, answers = world
    with pytest.raises(InputError, match="seed must be a whole number of at least 0, got -1"):
        estimate(bank, answers, 10, seed=-1)
    with pytest.raises(InputError, match="seed must be"):
        calibrate(answers, seed=-1)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere'; make it first"):
        write_bank(bank, tmp_path / "nowhere" / "bank.json")
