"""The controller `nehvi`: more of a front than peers with as many candidates, priors, and points under way."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.controllers import Replayable, SearchProblem, WarmStartPoint, build
from evomerge.controllers._nehvi import design_points
from evomerge.errors import InputError
from evomerge.pareto import Bounds, hypervolume
from evomerge.surrogates import fit_process, improving
from evomerge.surrogates._acquisition import by_drawn_volume
from tests.contracts.test_controllers import drive

BEST = np.array([[0.2, 0.3, 0.8, 0.4], [0.8, 0.4, 0.3, 0.6]])  # of two objectives


def two(index: int, point: np.ndarray) -> list[float]:
    """Two accuracies that no quadratic expresses: a plateau around each best point, and a floor far from it."""
    distance = np.sqrt(((point - BEST) ** 2).sum(axis=1))
    return [float(0.1 + 0.85 / (1 + (one / 0.45) ** 4)) for one in distance]


def volume(points: list[np.ndarray]) -> float:
    return hypervolume(np.array([two(0, point) for point in points]), [0.2, 0.2])


def test_it_finds_more_of_a_front_than_peers_with_as_many_candidates() -> None:
    for seed in range(2):
        problem = SearchProblem(4, seed, 2, budget=64, items=(100, 100))
        found = volume(drive(build("nehvi", problem), 64, two))
        others = [volume(drive(build(name, problem), 64, two)) for name in ("sobol", "nsga-ii", "cma-es")]
        front = volume(list(np.linspace(BEST[0], BEST[1], 200)))
        assert found > max(others) + 0.02
        assert found > 0.85 * front


@pytest.mark.parametrize(("d", "budget", "size"), [(3, 300, 8), (12, 300, 24), (12, 40, 10), (60, None, 64), (5, 1, 1)])
def test_the_even_spread_grows_with_the_genes_and_leaves_most_of_the_budget(
    d: int, budget: int | None, size: int
) -> None:
    assert design_points(d, budget) == size


def test_results_of_another_run_replace_the_even_spread() -> None:
    points = drive(build("sobol", SearchProblem(4, 5, 2)), 20, two)
    prior = tuple(WarmStartPoint(tuple(point), tuple(two(0, point))) for point in points)
    proposed = build("nehvi", SearchProblem(4, 1, 2, budget=64, prior=prior)).ask()
    assert len(proposed) == 4  # a round at once, no design
    assert not any(np.array_equal(a, b) for a in proposed for b in points)
    assert np.mean([sum(two(0, a)) for a in proposed]) > np.mean([sum(two(0, b)) for b in points])


def test_points_under_way_are_not_proposed_again_nor_their_neighbours() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((20, 4))
    values = np.array([two(0, point) for point in points])
    fits = [fit_process(points, values[:, t], items=100) for t in range(2)]
    (first,) = improving(fits, values, points, 1, np.random.default_rng(3))
    (second,) = improving(fits, values, np.vstack([points, first]), 1, np.random.default_rng(3))
    assert np.linalg.norm(first - second) > 0.05


def test_volume_is_counted_once_and_only_where_bounds_are_met() -> None:
    """Two draws, three points: areas beyond what is known, by hand; samples count them to a few percent."""
    known = np.array([[[0.5, 0.5]]] * 2)
    pool = np.array([[[1.0, 0.5], [0.5, 1.0], [0.9, 0.5]]] * 2)
    floor, rng = np.zeros(2), np.random.default_rng(0)
    chosen, gains, volume = by_drawn_volume(pool, known, floor, 3, rng)
    assert chosen[:2] in ([0, 1], [1, 0])
    assert gains[:2] == pytest.approx([0.25, 0.25], abs=0.02)
    assert len(chosen) == 2  # the third adds nothing to the first two
    assert volume == pytest.approx(0.25, abs=0.02)
    within = Bounds((-np.inf, 0.8), (np.inf, np.inf))
    chosen, gains, volume = by_drawn_volume(pool, known, floor, 3, rng, within)
    assert chosen == [1]
    assert gains == pytest.approx([0.5 * 0.2], abs=0.02)  # above the bound; nothing known is there
    assert volume == 0.0
    beyond = Bounds((1.2, -np.inf), (np.inf, np.inf))
    assert by_drawn_volume(pool, known, floor, 2, rng, beyond)[0] == [0, 2]  # none can: the nearest first


def test_a_repeated_search_goes_on_like_the_first_without_computing_its_proposals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty candidates, stored and repeated; then both propose the same, and length scales come from the same fits."""
    problem = SearchProblem(4, 3, 2, budget=64, items=(100, 100))
    first, second = build("nehvi", problem), build("nehvi", problem)
    batches, observed = [], 0
    while observed < 30:
        batches.append(first.ask())
        for point in batches[-1]:
            first.tell(observed, None if observed % 7 == 5 else two(observed, point))
            observed += 1
    observed = 0
    with monkeypatch.context() as patch:
        patch.setattr("evomerge.controllers._nehvi.improving", None)  # to call it would be an error
        for batch in batches:
            assert isinstance(second, Replayable)
            assert second.repeat(batch)
            for point in batch:
                second.tell(observed, None if observed % 7 == 5 else two(observed, point))
                observed += 1
    assert np.array_equal(first.ask(), second.ask())
    eager = build("nehvi", SearchProblem(4, 3, 2, budget=64, asynchronous=True))
    assert isinstance(eager, Replayable)
    assert not eager.repeat(batches[0])


@pytest.mark.parametrize(("options", "what"), [({"batch_size": 0}, "batch_size"), ({"startup": 0}, "startup")])
def test_impossible_options_are_refused(options: dict[str, int], what: str) -> None:
    with pytest.raises(InputError, match=f"{what} of controller 'nehvi' must be a whole number of at least 1, got 0"):
        build("nehvi", SearchProblem(3), options)
