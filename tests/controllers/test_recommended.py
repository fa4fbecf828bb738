"""What CMA-ES recommends at the end: the centre of its way, which lies nearer to the optimum than any lucky sample."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.controllers import Recommender, SearchProblem
from evomerge.controllers._cma_es import AsynchronousCmaEs, CmaEs, cma_es
from evomerge.controllers._registry import CmaEsOptions

OPTIMUM = np.array([0.35, 0.6, 0.5, 0.4, 0.55, 0.45])
GENERATIONS, POPULATION = 12, 10


def optimised(
    seed: int, noise: float, asynchronous: bool = False
) -> tuple[CmaEs | AsynchronousCmaEs, list[np.ndarray], list[float]]:
    controller = cma_es(SearchProblem(6, seed, asynchronous=asynchronous), CmaEsOptions(population=POPULATION))
    rng, points, observed = np.random.default_rng(seed), list[np.ndarray](), list[float]()
    while len(points) < GENERATIONS * POPULATION:
        for point in controller.ask():
            points.append(point)
            observed.append(-float(((point - OPTIMUM) ** 2).sum()) + noise * float(rng.standard_normal()))
            controller.tell(len(points) - 1, (observed[-1],))
    return controller, points, observed


def loss(point: np.ndarray) -> float:
    return float(((point - OPTIMUM) ** 2).sum())


def test_under_noise_the_centres_are_better_than_the_best_told() -> None:
    recommended, best = [], []
    for seed in range(20):
        controller, points, observed = optimised(seed, noise=0.3)
        recommended.append([loss(point) for point in controller.recommended()])
        best.append(loss(points[int(np.argmax(observed))]))
    last, third, two_thirds = np.mean(recommended, axis=0)
    assert two_thirds < third < last < np.mean(best)
    assert two_thirds < 0.6 * np.mean(best)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_without_noise_the_last_centre_is_where_it_converged(asynchronous: bool) -> None:
    controller, points, _ = optimised(3, noise=0.0, asynchronous=asynchronous)
    assert isinstance(controller, Recommender)
    found = controller.recommended()
    assert [point.shape for point in found] == [(6,)] * 3
    assert all(((point >= 0.0) & (point <= 1.0)).all() for point in found)
    assert loss(found[0]) < np.mean([loss(point) for point in points[-POPULATION:]])


def test_before_the_first_generation_there_is_nothing_and_after_it_one_point() -> None:
    controller = cma_es(SearchProblem(6, 0), CmaEsOptions(population=4))
    assert controller.recommended() == []
    for number, point in enumerate(controller.ask()):
        controller.tell(number, (float(point.sum()),))
    assert len(controller.recommended()) == 1
    for number in range(4, 8):
        if number == 4:
            controller.ask()
        controller.tell(number, None)
    assert len(controller.recommended()) == 1  # a generation that failed teaches nothing


def test_after_a_restart_the_longer_way_counts() -> None:
    controller, _, _ = optimised(1, noise=0.0)
    before = controller.recommended()
    controller._distribution._restart({"tolx": "reached"})
    points = controller.ask()
    for number, point in enumerate(points, start=GENERATIONS * POPULATION):
        controller.tell(number, (-loss(point),))
    assert [tuple(point) for point in controller.recommended()] == [tuple(point) for point in before]
