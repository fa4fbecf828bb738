"""What every controller promises, run over all of them: one behaviour, written once."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from evomerge.controllers import AUTO, CONTROLLERS, Controller, SearchProblem, build
from evomerge.controllers._model_weights import ModelWeights
from evomerge.errors import InputError

NAMES = sorted(CONTROLLERS)
DESIGNS = {"random", "sobol", "latin"}
# These build from the models and draw no lots: they end by themselves, and a seed changes nothing.
SOUPS = {"greedy-soup", "kinship"}
CHANCY = [name for name in NAMES if name not in SOUPS]
LEARNERS = [name for name in CHANCY if name not in DESIGNS]
# small batches, so that a few dozen proposals pass through every phase: start-up, modelled, further generations
OPTIONS = {"tpe": {"startup": 8, "batch_size": 4}, "gp": {"startup": 4, "batch_size": 4}}
OPTIONS |= {name: {"population": 6} for name in ("cma-es", "nsga-ii", "nsga-iii", "evolution")}
OPTIONS |= {AUTO: {"batch_size": 6}}
OPTIONS |= {"quadratic": {"startup": 10}, "nehvi": {"startup": 8}}


def length(name: str) -> int:
    """How many proposals show every phase of a controller; those of a Gaussian process take long."""
    return {"gp": 12, "quadratic": 24, "nehvi": 24, "greedy-soup": 5, "kinship": 6}.get(name, 36)


Observed = Callable[[int, np.ndarray], Sequence[float] | None]


def sphere(index: int, point: np.ndarray) -> list[float]:
    """One objective, best (0) at 0.7 in every gene."""
    return [-float(((point - 0.7) ** 2).sum())]


def two_spheres(index: int, point: np.ndarray) -> list[float]:
    return [-float(((point - 0.3) ** 2).sum()), -float(((point - 0.8) ** 2).sum())]


def some_fail(index: int, point: np.ndarray) -> list[float] | None:
    return None if index % 3 == 0 else sphere(index, point)


def fresh(name: str, d: int = 3, m: int = 1, seed: int = 11, **problem: object) -> Controller:
    problem = {"model_weights": model_weights(d), **problem} if name in SOUPS else problem
    return build(name, SearchProblem(d, seed, m, **problem), OPTIONS.get(name))  # type: ignore[arg-type]


def model_weights(d: int) -> ModelWeights:
    """As many models as genes, each gene the weight of one; their task vectors overlap a little."""
    names = tuple(f"model{i}" for i in range(d))
    products = tuple(tuple(1.0 if i == j else 0.1 for j in range(d)) for i in range(d))
    return ModelWeights(names, tuple(range(d)), (0.0,) * d, (1.0,) * d, (0.5,) * d, products)


def drive(
    controller: Controller, count: int, observed: Observed, disturb: Callable[[], None] | None = None
) -> list[np.ndarray]:
    """Ask and tell, in order, until `count` proposals have been made."""
    points: list[np.ndarray] = []
    while len(points) < count and not controller.stop():
        batch = controller.ask()
        for point in batch:
            if disturb is not None:
                disturb()
            controller.tell(len(points), observed(len(points), point))
            points.append(point)
    return points[:count]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d", [1, 2, 7])
def test_proposals_are_points_of_the_cube(name: str, d: int) -> None:
    points = drive(fresh(name, d), length(name), sphere)
    assert len(points) == length(name) or (name in SOUPS and 1 <= len(points) <= length(name))
    for point in points:
        assert point.shape == (d,)
        assert point.dtype == np.float64
        assert (point >= 0.0).all()
        assert (point <= 1.0).all()


@pytest.mark.parametrize("name", NAMES)
def test_proposals_cannot_be_changed_from_outside(name: str) -> None:
    def vandal(index: int, point: np.ndarray) -> list[float]:
        fitness = sphere(index, point)
        point[:] = np.nan
        return fitness

    kept = [point.tolist() for point in drive(fresh(name), length(name), sphere)]
    controller = fresh(name)
    seen: list[list[float]] = []
    drive(controller, length(name), lambda index, point: seen.append(point.tolist()) or vandal(index, point))
    assert seen[: length(name)] == kept


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_tells_within_a_batch_does_not_matter(name: str) -> None:
    straight = drive(fresh(name), length(name), sphere)
    controller, points = fresh(name), []
    chance = random.Random(0)
    while len(points) < length(name):
        batch = list(enumerate(controller.ask(), start=len(points)))
        points += [point for _, point in batch]
        for index, point in chance.sample(batch, len(batch)):
            controller.tell(index, sphere(index, point))
    assert np.array_equal(points[: length(name)], straight)


@pytest.mark.parametrize("name", NAMES)
def test_partial_tells(name: str) -> None:
    """With one of a batch untold, ask gives [] (and changes nothing) or goes on; the last tell is always accepted."""
    straight = drive(fresh(name), length(name), sphere)
    controller = fresh(name)
    batch = controller.ask()
    for index, point in enumerate(batch[:-1]):
        controller.tell(index, sphere(index, point))
    if name in DESIGNS:
        more = controller.ask()
        assert np.array_equal([*batch, *more][:36], straight)
    else:
        assert [controller.ask(), controller.ask()] == [[], []]
        more = []
    last = len(batch) - 1
    controller.tell(last, sphere(last, batch[last]))
    if not more:
        assert np.array_equal([*batch, *controller.ask()][: last + 2], straight[: last + 2])


@pytest.mark.parametrize("name", NAMES)
def test_failures_are_survived_and_never_taken_for_numbers(name: str) -> None:
    points = drive(fresh(name), length(name), some_fail)
    assert len(points) == length(name) or name in SOUPS
    if name in ("cma-es", "nsga-ii"):  # what failed repels: the same search with good values there goes elsewhere
        assert not np.array_equal(points, drive(fresh(name), length(name), sphere))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_tells_are_refused_and_change_nothing(name: str) -> None:
    straight = drive(fresh(name), length(name), sphere)
    controller = fresh(name)
    batch = controller.ask()
    controller.tell(0, sphere(0, batch[0]))
    with pytest.raises(InputError, match="observed before"):
        controller.tell(0, sphere(0, batch[0]))
    for index in (-1, 10_000):
        with pytest.raises(InputError, match="never made"):
            controller.tell(index, [0.0])
    with pytest.raises(InputError, match="must have 1 values, got 2"):
        controller.tell(1, [0.0, 1.0])
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="finite"):
            controller.tell(1, [bad])
    points = list(batch)
    for index, point in enumerate(batch[1:], start=1):
        controller.tell(index, sphere(index, point))
    while len(points) < length(name):
        batch = controller.ask()
        for index, point in enumerate(batch, start=len(points)):
            controller.tell(index, sphere(index, point))
        points += batch
    assert np.array_equal(points[: length(name)], straight)


@functools.cache
def proposals_of_a_fresh_process() -> dict[str, list[list[float]]]:
    """All controllers' proposals, as another Python process makes them; repr keeps every bit."""
    code = (
        "import json, tests.contracts.test_controllers as t\n"
        "print(json.dumps({n: [p.tolist() for p in t.drive(t.fresh(n), t.length(n), t.some_fail)] for n in t.NAMES}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result: dict[str, list[list[float]]] = json.loads(out.stdout)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_replay_in_a_fresh_process_gives_the_same_bits(name: str) -> None:
    here = [point.tolist() for point in drive(fresh(name), length(name), some_fail)]
    assert proposals_of_a_fresh_process()[name] == here


@pytest.mark.parametrize("name", CHANCY)
def test_other_seeds_propose_otherwise(name: str) -> None:
    assert not np.array_equal(drive(fresh(name, seed=1), 12, sphere), drive(fresh(name, seed=2), 12, sphere))


@pytest.mark.parametrize("name", NAMES)
def test_randomness_is_private(name: str) -> None:
    """An objective that reseeds every global generator, as lm-eval does, changes nothing; and none of them is used."""
    import torch

    def reseed() -> None:
        np.random.seed(0)
        random.seed(0)
        torch.manual_seed(0)

    calm = drive(fresh(name), length(name), some_fail)
    assert np.array_equal(drive(fresh(name), length(name), some_fail, reseed), calm)
    reseed()
    before = np.random.get_state()[1:3], random.getstate(), torch.get_rng_state()
    drive(fresh(name), length(name), some_fail)
    after = np.random.get_state()[1:3], random.getstate(), torch.get_rng_state()
    assert np.array_equal(before[0][0], after[0][0])
    assert before[0][1] == after[0][1]
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("name", LEARNERS)
def test_learning_beats_random_on_a_sphere(name: str) -> None:
    """Median over seeds of the best of 60 points in 5 dimensions (of 16 for the slow one, with as many by chance)."""
    count = {"gp": 16, "quadratic": 30}.get(name, 60)

    def best(which: str, seed: int) -> float:
        points = drive(fresh(which, 5, seed=seed), count, sphere)
        return max(sphere(0, point)[0] for point in points)

    seeds = range({"gp": 2, "quadratic": 3}.get(name, 7))
    learned = np.median([best(name, seed) for seed in seeds])
    by_chance = np.median([best("random", seed) for seed in range(7)])
    assert learned > 0.8 * by_chance  # both are negative: nearer to the optimum


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(lambda index, point: [0.5], id="all equal"),
        pytest.param(lambda index, point: None, id="all failed"),
        pytest.param(lambda index, point: [1e300 if index % 2 else -1e300], id="huge"),
        pytest.param(lambda index, point: [5e-324 * (index % 2)], id="denormal"),
    ],
)
def test_degenerate_fitness(name: str, observed: Observed) -> None:
    controller = fresh(name, 2)
    points = drive(controller, length(name), observed)
    assert len(points) == length(name) or (name in SOUPS and controller.stop())
    assert all(((point >= 0) & (point <= 1)).all() for point in points)


@pytest.mark.parametrize("name", NAMES)
def test_several_objectives(name: str) -> None:
    points = drive(fresh(name, 3, m=2, weights=(3.0, 1.0)), length(name), two_spheres)
    assert len(points) == length(name)
    controller = fresh(name, 3, m=2)
    controller.ask()
    with pytest.raises(InputError, match="must have 2 values, got 1"):
        controller.tell(0, [1.0])


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_of_one(name: str) -> None:
    assert len(drive(fresh(name, budget=1), 1, sphere)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_start_is_checked(name: str) -> None:
    with pytest.raises(InputError, match="genotype of 3 genes, got 2"):
        fresh(name, 3, start=(0.5, 0.5))
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        fresh(name, 2, start=(0.5, 1.5))
