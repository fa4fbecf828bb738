"""What every controller promises in asynchronous searches, run over all of them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from evomerge.controllers import AUTO, CONTROLLERS, Controller, CountsUpdates, SearchProblem, build, tell
from evomerge.controllers._protocol import NoiseAware
from evomerge.errors import InputError
from tests.contracts.test_controllers import OPTIONS, SOUPS, sphere

NAMES = sorted(set(CONTROLLERS) - SOUPS - {AUTO})  # what ends by itself has no asynchronous form
NEVER_WAIT = sorted({"cma-es", "tpe", "gp", "nsga-ii", "nsga-iii", "random", "sobol", "latin"} & set(CONTROLLERS))


def eager(name: str, staleness: int | None = None) -> Controller:
    return build(name, SearchProblem(3, 11, asynchronous=True, staleness=staleness), OPTIONS.get(name))


def drive(controller: Controller, count: int, workers: int = 5, seed: int = 0) -> list[list[float]]:
    """Keep `workers` proposals under way; they are observed in random order. Returns the proposals."""
    chance, points, running = random.Random(seed), list[np.ndarray](), list[int]()
    while len(points) < count:
        while len(running) < workers and (batch := controller.ask()):
            running += range(len(points), len(points) + len(batch))
            points += batch
        assert running, "nothing is under way, and nothing is proposed"
        index = running.pop(chance.randrange(len(running)))
        controller.tell(index, None if index % 7 == 3 else sphere(index, points[index]))
    return [point.tolist() for point in points[:count]]


def length(name: str) -> int:
    return 10 if name == "gp" else 40


@pytest.mark.parametrize("name", NAMES)
def test_in_the_cube_and_repeatable(name: str) -> None:
    points = drive(eager(name), length(name))
    assert points == drive(eager(name), length(name))
    assert np.min(points) >= 0.0
    assert np.max(points) <= 1.0


@pytest.mark.parametrize("name", NEVER_WAIT)
def test_proposes_while_everything_is_under_way(name: str) -> None:
    controller = eager(name)
    assert sum(len(controller.ask()) for _ in range(9)) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_wrong_tells_are_refused(name: str) -> None:
    controller = eager(name)
    (first, *_) = controller.ask()
    controller.tell(0, sphere(0, first))
    with pytest.raises(InputError, match="observed before"):
        controller.tell(0, sphere(0, first))
    with pytest.raises(InputError, match="never made"):
        controller.tell(10_000, [0.0])


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(eager(n), CountsUpdates)])
@pytest.mark.parametrize("bound", [1, 3])
def test_staleness_keeps_its_bound(name: str, bound: int) -> None:
    controller = eager(name, bound)
    assert isinstance(controller, CountsUpdates)
    chance, asked_at, running, worst = random.Random(1), list[int](), list[int](), 0
    for _ in range(length(name)):
        while len(running) < 8:
            running.append(len(asked_at))
            (point,) = controller.ask()
            asked_at.append(controller.updates)
        index = running.pop(chance.randrange(8))
        worst = max(worst, controller.updates - asked_at[index])
        controller.tell(index, sphere(index, point))
    assert worst <= bound
    assert controller.updates > 0


def test_a_fitness_told_with_errors_reaches_who_can_use_it() -> None:
    class Plain:
        heard = ()

        def tell(self, index: int, fitness: object) -> None:
            self.heard = (index, fitness)

    class Careful(Plain):
        def tell_noisy(self, index: int, fitness: object, stderr: object) -> None:
            self.heard = (index, fitness, stderr)

    plain, careful = Plain(), Careful()
    assert not isinstance(plain, NoiseAware)
    for controller in (plain, careful):
        tell(controller, 3, (0.5,), (0.1,))  # type: ignore[arg-type]
    assert (plain.heard, careful.heard) == ((3, (0.5,)), (3, (0.5,), (0.1,)))
    tell(careful, 4, None, (0.1,))  # type: ignore[arg-type]
    assert careful.heard == (4, None)
