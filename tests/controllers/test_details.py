"""What single controllers promise beyond the contract: designs, restarts, weights, start points, and kind refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from evomerge.controllers import CONTROLLERS, SearchProblem, build, controller_info
from evomerge.controllers._cma_es import AsynchronousCmaEs, CmaEs, cma_es
from evomerge.controllers._registry import CmaEsOptions
from evomerge.errors import InputError
from evomerge.option_fields import options_of
from tests.contracts.test_controllers import drive, sphere


def points(name: str, problem: SearchProblem, count: int, **options: Any) -> np.ndarray:
    return np.array(drive(build(name, problem, options), count, sphere))


@pytest.mark.parametrize("name", ["sobol", "random"])
def test_a_designs_points_do_not_depend_on_its_batches(name: str) -> None:
    problem = SearchProblem(3, seed=5)
    assert np.array_equal(points(name, problem, 100, batch_size=7), points(name, problem, 100, batch_size=64))


def test_sobol_fills_the_cube_more_evenly_than_chance() -> None:
    problem = SearchProblem(4, seed=5)
    assert qmc.discrepancy(points("sobol", problem, 128)) < 0.2 * qmc.discrepancy(points("random", problem, 128))


def test_a_latin_hypercube_spends_the_budget_on_one_point_per_stratum() -> None:
    found = points("latin", SearchProblem(5, seed=5, budget=40), 40)
    assert np.array_equal(np.sort(np.floor(found * 40), axis=0), np.tile(np.arange(40.0)[:, None], 5))


def test_cma_begins_around_the_start_point() -> None:
    """The mean of many first proposals: the start, or the centre where none is given."""
    start = (0.2, 0.7, 0.5)
    problem = SearchProblem(3, seed=5, start=start)
    assert np.allclose(points("cma-es", problem, 400, population=400, sigma=0.02).mean(axis=0), start, atol=0.005)
    spread = points("cma-es", SearchProblem(3, seed=5), 400, population=400, sigma=0.02)
    assert np.allclose(spread.mean(axis=0), 0.5, atol=0.005)
    assert np.allclose(spread.std(axis=0), 0.02, rtol=0.15)


def test_cma_weights_its_objectives() -> None:
    """Two objectives with optima at 0.2 and 0.8: the weighted sum of squares is best at the weighted mean."""

    def two(index: int, point: np.ndarray) -> list[float]:
        return [-float(((point - 0.2) ** 2).sum()), -float(((point - 0.8) ** 2).sum())]

    for weights, best in [((1.0, 1.0), 0.5), ((3.0, 1.0), 0.35), ((0.0, 1.0), 0.8), ((), 0.5)]:
        problem = SearchProblem(2, seed=5, objectives=2, weights=weights)
        found = drive(build("cma-es", problem, {"restarts": 0}), 300, two)
        assert np.allclose(found[-1], best, atol=0.02)


def test_cma_ranks_failures_last_and_ties_them() -> None:
    """Failing wherever gene 0 is below 0.5 keeps the search out of there, though the values rise towards 0."""

    def cliff(index: int, point: np.ndarray) -> list[float] | None:
        return None if point[0] < 0.5 else [-float(point.sum())]

    found = np.array(drive(build("cma-es", SearchProblem(2, seed=5)), 300, cliff))
    assert (found[-50:, 0] > 0.5).mean() > 0.4
    assert found[-1, 0] == pytest.approx(0.5, abs=0.05)
    assert found[-1, 1] == pytest.approx(0.0, abs=0.05)


def test_cma_restarts_with_twice_the_population_and_says_why_it_ends() -> None:
    controller = cma_es(SearchProblem(2, seed=5), CmaEsOptions(population=5, restarts=2))
    sizes: list[int] = []
    proposed = 0
    while not controller.stop():
        batch = controller.ask()
        sizes.append(len(batch))
        for index, point in enumerate(batch, start=proposed):
            controller.tell(index, sphere(index, point))
        proposed += len(batch)
    assert list(dict.fromkeys(sizes)) == [5, 10, 20]
    assert controller.stop() == {"tolx": "tolx reached 1e-05"}
    assert controller.ask() == []


def test_cma_is_diagonal_in_many_dimensions() -> None:
    def diagonal(controller: CmaEs | AsynchronousCmaEs) -> bool:
        return controller._distribution.diagonal

    assert not diagonal(cma_es(SearchProblem(200), CmaEsOptions()))
    assert diagonal(cma_es(SearchProblem(201), CmaEsOptions()))
    assert diagonal(cma_es(SearchProblem(3), CmaEsOptions(diagonal=True)))


def test_cma_leaves_numpys_generator_alone_in_many_dimensions() -> None:
    """There pycma's self-checks pick what they look at by the global generator."""
    np.random.seed(0)
    before = np.random.get_state()
    drive(build("cma-es", SearchProblem(300, seed=5), {"population": 10}), 200, sphere)
    after = np.random.get_state()
    assert before[2] == after[2]
    assert np.array_equal(before[1], after[1])


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga-ii", "nsga-iii"])
def test_optuna_proposes_the_start_point_first(name: str) -> None:
    start = (0.125, 0.75)
    assert tuple(points(name, SearchProblem(2, seed=5, start=start), 1)[0]) == start


def test_nsga_finds_both_ends_of_a_front() -> None:
    def two(index: int, point: np.ndarray) -> list[float]:
        return [-float(((point - 0.2) ** 2).sum()), -float(((point - 0.8) ** 2).sum())]

    found = np.array(
        drive(build("nsga-ii", SearchProblem(2, seed=5, objectives=2), {"population": 20}), 400, two)[-100:]
    )
    assert np.abs(found - 0.2).max(axis=1).min() < 0.1
    assert np.abs(found - 0.8).max(axis=1).min() < 0.1


# -- refusals ----------------------------------------------------------------------------------------------------


def test_unknown_names_and_options_are_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"unknown controller 'cmaes'. Near: cma-es"):
        build("cmaes", SearchProblem(2))
    with pytest.raises(InputError, match=r"controller 'cma-es' has no option 'populaton'. Near: population"):
        build("cma-es", SearchProblem(2), {"populaton": 5})
    assert list(options_of(controller_info("cma-es").options)) == ["population", "sigma", "restarts", "diagonal"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cma-es", {"population": 1}, "population of controller 'cma-es' must be a whole number of at least 2, got 1"),
        ("cma-es", {"sigma": 0.0}, "must be a number above 0 and of at most 1, got 0.0"),
        ("cma-es", {"restarts": -1}, "restarts of controller 'cma-es' must be a whole number of at least 0, got -1"),
        ("sobol", {"batch_size": 0}, "must be a whole number of at least 1, got 0"),
        ("tpe", {"batch_size": 0}, "must be a whole number of at least 1, got 0"),
        ("nsga-ii", {"population": 1}, "must be a whole number of at least 2, got 1"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(name, SearchProblem(2), options)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_space_without_genes_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no gene"):
        build(name, SearchProblem(0))


def test_more_dimensions_than_sobol_has() -> None:
    with pytest.raises(InputError, match="21201 dimensions at most, got 21202; use random"):
        build("sobol", SearchProblem(21_202))


def test_weights_must_fit_the_objectives() -> None:
    with pytest.raises(InputError, match=r"one value per objective \(2\), got 3"):
        build("random", SearchProblem(2, objectives=2, weights=(1.0, 1.0, 1.0)))
    for weights in [(0.0, 0.0), (1.0, -1.0), (1.0, float("nan"))]:
        with pytest.raises(InputError, match="weights must be 0 or more, one of them above 0"):
            build("random", SearchProblem(2, objectives=2, weights=weights))


def test_designs_need_no_outside_library() -> None:
    """A driver with Sobol points imports neither cma nor optuna nor torch."""
    code = (
        "import sys; from evomerge.controllers import build\n"
        "from evomerge.controllers import SearchProblem\n"
        "[build(name, SearchProblem(2)).ask() for name in ('random', 'sobol', 'latin')]\n"
        "print(sorted({'cma', 'optuna', 'torch', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
