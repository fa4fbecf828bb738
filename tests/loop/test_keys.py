"""What a search file says about racing, asynchronous search and budgets, and what its mistakes are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.config import SearchFile, load_search_file
from evomerge.errors import SearchFileError

FILE = """\
merge:
  merge_method: linear
  models: [{model: org/a}, {model: org/b}]
  parameters: {weight: {search: [0, 1], per: [model]}}
objectives: [{task: add}]
"""
Load = Callable[[str], SearchFile]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(rest: str) -> SearchFile:
        path = tmp_path / "file.yaml"
        path.write_text(FILE + rest)
        return load_search_file(path)

    return write_and_load


def test_every_limit_is_read(load: Load) -> None:
    budget = load(
        "budget: {candidates: 9, hours: 2, gpu_hours: 1.5, deadline: 2030-06-01T18:00:00+02:00, cost: 50, price: 2.5}"
    ).budget
    assert (budget.candidates, budget.hours, budget.gpu_hours) == (9, 2.0, 1.5)
    assert (budget.deadline, budget.cost, budget.price) == ("2030-06-01T18:00:00+02:00", 50.0, 2.5)


@pytest.mark.parametrize("limit", ["gpu_hours: 2", "deadline: 2030-06-01T16:00:00Z", "{cost: 5, price: 1}", "hours: 1"])
def test_one_limit_is_enough(load: Load, limit: str) -> None:
    load(f"budget: {limit}" if limit.startswith("{") else f"budget: {{{limit}}}")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("budget: {}", "one of candidates, hours, gpu_hours, deadline, cost is needed"),
        ("budget: {cost: 5}", "cost needs price beside it"),
        ("budget: {hours: 1, price: 5}", "price needs cost beside it"),
        ("budget: {deadline: 2030-06-01}", "must say its offset from UTC, as in .* got '2030-06-01'"),
        ("budget: {deadline: soon}", "must be a date and time, as in .* got 'soon'"),
        ("budget: {gpu_hours: 0}", "must be a number above 0, got 0"),
        ("budget: {hour: 1}", "unknown key. Near: hours"),
        ("budget: {hours: 1}\nscoring: {racing: {min_items: 1}}", "must be a whole number of at least 2, got 1"),
        ("budget: {hours: 1}\nscoring: {racing: {alpha: 0.7}}", "above 0 and of at most 0.5, got 0.7"),
        ("budget: {hours: 1}\nscoring: {racing: {against: bests}}", "unknown reference 'bests'. Near: best"),
        ("budget: {hours: 1}\ncontroller: {asynchronous: often}", "must be true or false, got 'often'"),
        ("budget: {hours: 1}\ncontroller: {staleness: 0}", "must be a whole number of at least 1, got 0"),
    ],
)
def test_mistakes_have_a_place_and_a_message(load: Load, rest: str, message: str) -> None:
    with pytest.raises(SearchFileError, match=message):
        load(rest)


def test_racing_has_defaults_and_is_off_by_default(load: Load) -> None:
    assert load("budget: {hours: 1}").scoring.racing is None
    found = load("budget: {hours: 1}\nscoring: {racing: {}}").scoring.racing
    assert found is not None
    assert (found.min_items, found.alpha, found.against) == (20, 0.05, None)


@pytest.mark.parametrize("name", ["cma-es", "sobol", "tpe"])
def test_every_controller_can_be_told_on_arrival(load: Load, name: str) -> None:
    found: Any = load(
        f"budget: {{hours: 1}}\ncontroller: {{name: {name}, asynchronous: true, staleness: 3}}"
    ).controller
    assert (found.asynchronous, found.staleness) == (True, 3)
    assert not {"asynchronous", "staleness"} & set(found.options)
