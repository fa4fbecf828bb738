"""The estimators on real leaderboards; skipped where the tables are absent. Bars are the baseline's best rows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from evomerge.irt import ResponseTable, estimate, read_table
from evomerge.irt._backtest import BacktestEstimate, calibrate
from evomerge.irt._table_files import read_parents
from tests.irt.worlds import data_folder

# Mean absolute error in points: best static and best adaptive row of the baseline, at 20 items.
BARS = {"metabench_arc": (3.77, 2.19), "metabench_truthfulqa": (3.20, 1.96)}


def take(table: ResponseTable, rows: np.ndarray) -> ResponseTable:
    return ResponseTable(table.responses[rows], tuple(table.models[i] for i in rows), table.items)


def points(found: list[BacktestEstimate]) -> float:
    return 100 * np.mean([abs(e["estimate"] - e["truth"]) for e in found])


def coverage(found: list[BacktestEstimate]) -> float:
    return np.mean([e["low"] <= e["truth"] <= e["high"] for e in found])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BARS))
def test_leaderboards_are_at_or_below_the_best_baseline_rows(name: str) -> None:
    table = read_table(data_folder() / f"{name}.npz")
    complete = ~np.isnan(table.responses).any(axis=1)
    part = np.array([int(hashlib.sha1(m.lower().encode()).hexdigest(), 16) % 5 for m in table.models])
    # Every second calibration model: the test stays quick, and the bar was set with all of them.
    bank = calibrate(take(table, np.flatnonzero(complete & (part != 0))[::3]), dims=3)
    answers = take(table, np.flatnonzero(complete & (part == 0)))
    for method, bar in zip(("gp-irt", "adaptive"), BARS[name], strict=True):
        found = estimate(bank, answers, 20, method)
        assert {e["method"] for e in found} == {method}
        assert points(found) < bar * 1.1
        assert 0.84 < coverage(found) < 0.96


@pytest.mark.slow
def test_few_models_are_never_worse_than_the_raw_mean() -> None:
    table = read_table(data_folder() / "zeroeval_crux.npz")
    rng = np.random.default_rng(0)
    gaps, covered = [], []
    for count in (3, 5, 8):
        for draw in range(4):
            order = rng.permutation(len(table.models))
            bank, answers = calibrate(take(table, order[:count])), take(table, order[count:])
            for n in (20, 50):
                auto = estimate(bank, answers, n, seed=draw)
                gaps.append(points(auto) - points(estimate(bank, answers, n, "raw", seed=draw)))
                covered.append(coverage(auto))
    assert np.mean(gaps) < 0.3
    assert 0.85 < np.mean(covered) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bar"), [("metabench_arc", 2.1), ("metabench_truthfulqa", 3.2)])
def test_merges_with_known_parents_at_ten_items(name: str, bar: float) -> None:
    table = read_table(data_folder() / f"{name}.npz")
    parents = read_parents(data_folder() / "merge_pedigree.csv")
    known = set(table.models)
    children = [c for c, p in parents.items() if {c, *p} <= known]
    family = {x for c in children for x in (c, *parents[c])}
    complete = ~np.isnan(table.responses).any(axis=1)
    unrelated = np.array([i for i, m in enumerate(table.models) if complete[i] and m not in family])
    bank = calibrate(take(table, np.random.default_rng(0).permutation(unrelated)[:800]), dims=2)
    answers = take(table, np.array([i for i, m in enumerate(table.models) if m in family]))
    found = [e for e in estimate(bank, answers, 10, "mp-irt", parents) if e["model"] in set(children)]
    assert points(found) < bar
    assert sum(e["method"] == "mp-irt" for e in found) > 0.8 * len(found)
    assert coverage(found) > 0.8


def test_preference_table_is_graded_and_complete_rows_replay() -> None:
    table = read_table(data_folder() / "alpaca_eval2.npz")
    assert table.graded
    rows = np.flatnonzero(~np.isnan(table.responses).any(axis=1))
    bank = calibrate(take(table, rows[:6]), dims=1)
    found = estimate(bank, take(table, rows[6:]), 50)
    assert points(found) < 4.0


def test_twenty_two_models_with_constant_items_replay() -> None:
    table = read_table(data_folder() / "chembench_22.npz")
    bank = calibrate(take(table, np.arange(6)), dims=1)
    assert bank.provenance["constant_items"] > 0
    found = estimate(bank, take(table, np.arange(6, 22)), 50)
    assert points(found) < points(estimate(bank, take(table, np.arange(6, 22)), 50, "raw")) + 1.0
