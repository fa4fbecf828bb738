"""Asynchronous observation: no worker idles, staleness is bounded and recorded, and a resume repeats the order."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.candidate import Job
from evomerge.loop import Rules
from evomerge.loop._tell_queue import TellOrder
from evomerge.scoring._synthetic import SyntheticSpec
from tests.loop.test_kills import run_in_fresh_process
from tests.loop.world import OPTIMA, PARENTS, World, trace
from tests.workers.fakes import ShuffledPool

ASYNCHRONOUS = Rules(asynchronous=True)


def told(folder: Path) -> list[tuple[int, list[float] | None, int | None]]:
    with Archive.open(folder) as archive:
        return [
            (e.candidate or 0, e.payload["fitness"], e.payload.get("staleness")) for e in archive.events("observed")
        ]


def shuffled(workers: int, seed: int = 0) -> Callable[[SyntheticSpec], ShuffledPool]:
    return lambda given: ShuffledPool(given, workers, seed)


def test_the_order_is_that_of_numbers_or_of_arrival() -> None:
    for asynchronous, expected in [(False, [0, 1, 2]), (True, [2, 0, 1])]:
        order = TellOrder(asynchronous=asynchronous)
        observed: list[int] = []
        for number in (2, 0, 1):
            order.finish(number)
            while (due := order.next()) is not None:
                observed.append(due)
        assert observed == expected
        assert (order.observed, order.first_unobserved, order.ready) == (3, 3, False)


def test_the_order_knows_what_is_unobserved_after_a_restore() -> None:
    order = TellOrder(asynchronous=True)
    order.restore([0, 3, 1])
    assert order.unobserved(range(6)) == [2, 4, 5]
    assert (order.observed, order.first_unobserved) == (3, 2)


def size_of(controller: str) -> str:
    """Return the option for how many candidates a controller proposes at once."""
    return "population" if controller in {"cma-es", "nsga-ii", "nsga-iii"} else "batch_size"


@pytest.mark.parametrize("controller", ["cma-es", "tpe", "nsga-ii", "sobol"])
def test_no_worker_waits_for_another(folder: Path, controller: str) -> None:
    """At every look but those at the end, all seven workers have a job; generations of 6 would leave them idle."""
    idle: list[int] = []

    class Watched(ShuffledPool):
        newest = 0

        def submit(self, job: Job) -> None:
            self.newest = max(self.newest, job.candidate.number)
            super().submit(job)

        def collect(self, timeout: float | None = None) -> list[Any]:
            if (
                self.newest < 32
            ):  # beyond, the budget may have been handed out: the last ones may repeat earlier recipes
                idle.append(self.room())
            return super().collect(timeout)

    options = {} if controller == "sobol" else {size_of(controller): 6}
    world = World(folder, controller, 40, options=options, rules=ASYNCHRONOUS, pool=lambda given: Watched(given, 7))
    assert world.run().name == "candidates"
    assert set(idle) == {0}
    assert sorted(number for number, _, _ in told(folder)) == list(range(40))


@pytest.mark.parametrize("bound", [1, 2, 5])
@pytest.mark.parametrize("controller", ["cma-es", "tpe"])
def test_staleness_is_recorded_and_bounded(folder: Path, controller: str, bound: int) -> None:
    world = World(folder, controller, 60, options={size_of(controller): 4}, rules=ASYNCHRONOUS, staleness=bound)
    replace(world, pool=shuffled(9)).run()
    found = [staleness for _, _, staleness in told(folder)]
    assert all(staleness is not None and 0 <= staleness <= bound for staleness in found)
    assert max(found) == bound  # with nine workers it is reached: the bound is what holds it


def test_staleness_without_a_bound_counts_the_results_between(folder: Path) -> None:
    """TPE learns from every result, so one that nine others overtook is nine updates old."""
    World(folder, "tpe", 30, rules=ASYNCHRONOUS, pool=shuffled(9)).run()
    with Archive.open(folder) as archive:
        asked_at: dict[int, int] = {}
        heard = 0
        for event in archive.events("asked", "observed"):
            if event.kind == "asked":
                asked_at[event.payload["first"]] = heard
                continue
            assert event.candidate is not None
            assert event.payload["staleness"] == heard - asked_at[event.candidate]
            heard += 1


@pytest.mark.parametrize("controller", ["cma-es", "nsga-ii", "tpe"])
def test_a_resume_repeats_the_order_of_arrival(folder: Path, controller: str) -> None:
    """Cut in the middle and gone on with by other workers: the first half stays, and the controller repeats itself."""
    world = World(folder, controller, 20, options={size_of(controller): 5}, rules=ASYNCHRONOUS, pool=shuffled(5, 1))
    world.run()
    before = told(folder)
    assert [number for number, _, _ in before] != sorted(number for number, _, _ in before)
    assert replace(world, candidates=45, pool=shuffled(3, 2)).run().name == "candidates"
    after = told(folder)
    assert after[:20] == before
    assert sorted(number for number, _, _ in after) == list(range(45))


def test_killed_at_random_moments_the_archive_stays_replayable(folder: Path) -> None:
    """Each session is killed; what was told stays told, once, and the last session ends the search."""
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, troubles={5: "candidate"})
    world = World(folder, "cma-es", 24, options={"population": 4}, rules=ASYNCHRONOUS, spec=spec, pool=shuffled(4))
    chance, before = random.Random(3), list[Any]()
    kills = 0
    while run_in_fresh_process(world, moment=chance.randint(15, 45)) == -signal.SIGKILL:
        now = told(folder)
        assert now[: len(before)] == before
        before = now
        kills += 1
        assert kills < 60
    assert kills >= 3
    assert sorted(number for number, _, _ in told(folder)) == list(range(24))
    assert [number for number, fitness, _ in told(folder) if fitness is None] == [5]


def test_one_worker_gives_one_trace(folder: Path) -> None:
    """With one worker the order of arrival is that of asking, so killed and resumed equals uninterrupted."""
    world = World(folder / "whole", "cma-es", 16, options={"population": 4}, rules=ASYNCHRONOUS, pool=shuffled(1))
    world.run()
    killed = replace(world, folder=folder / "killed")
    for moment in (12, 21, 33, 48):
        run_in_fresh_process(killed, moment=moment)
    killed.run()
    assert trace(killed.folder) == trace(world.folder)


def test_a_failed_candidate_on_arrival_is_told_as_none(folder: Path) -> None:
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, troubles={number: "candidate" for number in range(0, 40, 3)})
    World(folder, "cma-es", 40, options={"population": 4}, rules=ASYNCHRONOUS, spec=spec, pool=shuffled(5)).run()
    assert sorted(n for n, fitness, _ in told(folder) if fitness is None) == list(range(0, 40, 3))


def test_cma_es_still_climbs(folder: Path) -> None:
    """Graded answers have no noise: with eight workers in disorder, the last ten are better than the first ten."""
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, graded=True)
    World(folder, "cma-es", 150, options={"population": 6}, rules=ASYNCHRONOUS, spec=spec, pool=shuffled(8)).run()
    overall = [float(np.mean(fitness)) for _, fitness, _ in told(folder) if fitness is not None]
    assert np.mean(overall[-10:]) > np.mean(overall[:10]) + 0.05
