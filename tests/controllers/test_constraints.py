"""Constraints: every controller that learns prefers what meets them, whatever it costs in the other objectives."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.controllers import SearchProblem, WarmStartPoint, build
from evomerge.controllers._proposals import MISSED, Proposals
from evomerge.pareto import Bounds
from tests.contracts.test_controllers import OPTIONS, drive

# The first objective rises with the first gene, the second falls with it; the second must be 0.8, so the gene 0.2.
BOUNDS = Bounds((-np.inf, 0.8), (np.inf, np.inf))


def opposed(index: int, point: np.ndarray) -> list[float]:
    return [float(0.9 * point[0] + 0.1 * point[1]), float(1.0 - point[0])]


@pytest.mark.parametrize("name", ["cma-es", "tpe", "nsga-ii", "nsga-iii", "quadratic", "nehvi", "evolution"])
def test_candidates_move_to_where_constraints_are_met(name: str) -> None:
    """Of the last third, more meet the bound than of the same search without it, which has no reason to."""
    problem = {"dimensions": 2, "seed": 1, "objectives": 2, "weights": (3.0, 1.0), "budget": 66}
    free = drive(build(name, SearchProblem(**problem), OPTIONS.get(name)), 66, opposed)  # type: ignore[arg-type]
    bound = drive(build(name, SearchProblem(**problem, bounds=BOUNDS), OPTIONS.get(name)), 66, opposed)  # type: ignore[arg-type]
    met = [np.mean([BOUNDS.met(opposed(0, point)) for point in points[44:]]) for points in (free, bound)]
    assert met[1] >= max(0.4, met[0] + 0.2)


@pytest.mark.parametrize("name", ["cma-es", "tpe", "nsga-ii", "quadratic", "nehvi", "evolution", "sobol", "gp"])
def test_bounds_that_nothing_meets_neither_stop_nor_break_a_search(name: str) -> None:
    never = Bounds((-np.inf, 5.0), (np.inf, np.inf))
    count = 8 if name == "gp" else 30
    points = drive(build(name, SearchProblem(2, 1, 2, bounds=never), OPTIONS.get(name)), count, opposed)
    assert len(points) == count
    if name in ("cma-es", "nehvi", "quadratic"):  # the nearest is where the second objective is highest
        assert np.mean([point[0] for point in points[-8:]]) < 0.25


@pytest.mark.parametrize("name", ["cma-es", "tpe", "nsga-ii", "quadratic", "nehvi"])
def test_results_of_another_run_are_judged_by_the_bounds_too(name: str) -> None:
    known = drive(build("sobol", SearchProblem(2, 5, 2)), 40, opposed)
    prior = tuple(WarmStartPoint(tuple(point), tuple(opposed(0, point))) for point in known)
    problem = SearchProblem(2, 1, 2, (3.0, 1.0), budget=60, prior=prior, bounds=BOUNDS)
    proposed = drive(build(name, problem, OPTIONS.get(name)), 8, opposed)
    assert np.mean([point[0] for point in proposed]) < 0.3


def test_what_misses_a_bound_ranks_below_all_that_meets_it_and_the_nearer_higher() -> None:
    proposals = Proposals(2, BOUNDS)
    proposals.hand_out(4)
    observed = [proposals.take_back(i, row) for i, row in enumerate([(0.1, 0.8), (9.0, 0.7), (9.0, 0.4), (-1e9, 0.9)])]
    assert observed[0] == (0.1, 0.8)
    assert observed[3] == (-1e9, 0.9)
    assert observed[1] == pytest.approx((MISSED * 1.125,) * 2)
    assert observed[2] == pytest.approx((MISSED * 1.5,) * 2)


def test_violations_are_shares_of_bounds_and_add_up() -> None:
    bounds = Bounds((0.5, -np.inf), (np.inf, -40.0))  # an accuracy of half at least; fitness -length of -40 at most
    rows = np.array([[0.5, -40.0], [0.4, -50.0], [0.6, -20.0], [0.25, -30.0], [np.nan, -50.0]])
    assert bounds.violation(rows)[:4] == pytest.approx([0.0, 0.2, 0.5, 0.75])
    assert np.isnan(bounds.violation(rows)[4])
    assert list(bounds.met(rows)) == [True, False, False, False, False]
    moved = bounds.scaled([0.5, -30.0], [0.1, 10.0])
    assert moved.low == pytest.approx((0.0, -np.inf))
    assert moved.high == pytest.approx((np.inf, -1.0))
