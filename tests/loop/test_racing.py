"""Racing: few items first, more for who may still be worth it; decisions recorded, repeatable, and rarely wrong."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.controllers._cma_es import shrunken
from evomerge.loop import Racing, Rules
from evomerge.loop._racing import rounds
from evomerge.scoring._synthetic import SyntheticSpec
from tests.loop.test_kills import run_in_fresh_process
from tests.loop.world import OPTIMA, PARENTS, PLAN, World, trace
from tests.workers.fakes import ShuffledPool

RULES = Rules(racing=Racing(min_items=3, alpha=0.1))  # of 12 items per task: rounds of 3, 6 and 12
SPEC = SyntheticSpec(OPTIMA, parents=PARENTS, steepness=30.0)


def shuffled(workers: int, seed: int = 0) -> Callable[[SyntheticSpec], ShuffledPool]:
    return lambda given: ShuffledPool(given, workers, seed)


def raced(folder: Path) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    with Archive.open(folder) as archive:
        for event in archive.events("raced"):
            found.setdefault(event.candidate or 0, []).append(dict(event.payload))
    return found


def items_of(folder: Path) -> dict[int, int]:
    return {number: len(answers) // 2 for number, answers in trace(folder)["answers"].items()}


# -- the rounds ------------------------------------------------------------------------------------------------------


def test_rounds_are_nested_random_and_whole_at_the_end() -> None:
    plan = {"a": tuple(f"a{i}" for i in range(50)), "b": tuple("xyz"), "whole": tuple("pq")}
    found = rounds(plan, 8, {"a", "b"}, seed=3)
    assert [[len(one[task]) for task in plan] for one in found] == [[8, 3, 2], [16, 3, 2], [32, 3, 2], [50, 3, 2]]
    for earlier, later in itertools.pairwise(found):
        assert all(later[task][: len(earlier[task])] == earlier[task] for task in plan)
    assert {task: set(items) for task, items in found[-1].items()} == {task: set(items) for task, items in plan.items()}
    assert found[0]["a"] != plan["a"][:8]
    assert rounds(plan, 8, {"a", "b"}, seed=3) == found
    assert rounds(plan, 8, {"a", "b"}, seed=4)[0]["a"] != found[0]["a"]
    assert len(rounds(plan, 80, {"a", "b"}, seed=3)) == 1


# -- the race ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("controller", ["cma-es", "sobol"])
def test_workers_and_their_speed_do_not_change_the_race(folder: Path, controller: str) -> None:
    spec = replace(SPEC, troubles={4: "candidate", -1: "candidate"})
    options = {"batch_size" if controller == "sobol" else "population": 6}
    alone = World(folder / "alone", controller, 36, rules=RULES, spec=spec, options=options)
    alone.run()
    decisions = raced(alone.folder)
    assert {one["promoted"] for of_candidate in decisions.values() for one in of_candidate} == {True, False}
    for workers, seed in [(3, 1), (17, 2)]:
        many = replace(alone, folder=folder / f"many-{workers}", pool=shuffled(workers, seed))
        many.run()
        assert trace(many.folder) == trace(alone.folder)
        assert raced(many.folder) == decisions


def test_the_stopped_have_answered_less_and_the_others_all(folder: Path) -> None:
    World(folder, candidates=40, rules=RULES, spec=SPEC, pool=shuffled(4)).run()
    items, decisions = items_of(folder), raced(folder)
    for number in range(40):
        last = decisions[number][-1]
        assert items[number] == (12 if last["promoted"] else 3 * 2 ** last["round"])
        assert last["promoted"] == (last["p"] > last["level"])
    assert min(items[number] for number in range(40)) == 3
    assert items[-1] == items[-2] == 12
    with Archive.open(folder) as archive:
        told = {event.candidate: event.payload for event in archive.events("observed")}
    assert all((max(told[n]["stderr"]) == 0.0) == (items[n] == 12) for n in range(40))


def test_a_stopped_candidate_is_measured_from_its_incumbent(folder: Path) -> None:
    World(folder, candidates=40, rules=RULES, spec=SPEC).run()
    answers = trace(folder)["answers"]
    with Archive.open(folder) as archive:
        told = {event.candidate: event.payload for event in archive.events("observed")}
    number, decision = next((n, of[-1]) for n, of in raced(folder).items() if not of[-1]["promoted"])
    mine, its = answers[number], answers[decision["incumbent"]]
    for place, task in enumerate(PLAN):
        common = [key for key in mine if key[0] == task]
        better = sum(its[key] > mine[key] for key in common)
        worse = sum(its[key] < mine[key] for key in common)
        expected = np.mean([its[key] for key in its if key[0] == task]) - (better - worse) / (len(common) + 2)
        assert told[number]["fitness"][place] == pytest.approx(expected)
    assert len(its) == 24


def test_who_would_have_won_is_rarely_stopped(folder: Path) -> None:
    """Against the same candidates answering everything: the best of all is among those that answered everything."""
    World(folder / "whole", "sobol", 60, spec=SPEC).run()
    World(folder / "race", "sobol", 60, spec=SPEC, rules=RULES, options={"batch_size": 12}).run()
    whole = {number: sum(fitness) for number, fitness in trace(folder / "whole")["observed"]}
    items = items_of(folder / "race")
    winner = max(whole, key=lambda number: whole[number])
    assert items[winner] == 12
    assert sum(items[number] for number in range(60)) < 0.7 * 60 * 12  # and it was cheaper


def test_a_race_for_the_front_keeps_its_ends(folder: Path) -> None:
    """Each parent is best in one task: who is as good in one of them is not dominated, whatever the mean says."""
    rules = Rules(racing=Racing(min_items=6, alpha=0.2, against="front"))
    World(folder, "nsga-ii", 60, rules=rules, spec=SPEC, options={"population": 12}).run()
    items, found = items_of(folder), trace(folder)
    stopped = [n for n in range(60) if items[n] < 12]
    assert stopped
    for number in stopped:
        incumbents = [n for n in items if items[n] == 12]
        shares = {
            n: [np.mean([v for key, v in found["answers"][n].items() if key[0] == task]) for task in PLAN]
            for n in (number, *incumbents)
        }
        assert any(all(a >= b for a, b in zip(shares[n], shares[number], strict=True)) for n in incumbents)


def test_killed_at_every_moment_of_a_race(folder: Path) -> None:
    def small(place: Path) -> World:
        return World(
            *(place, "cma-es", 5), rules=RULES, spec=SPEC, options={"population": 3}, pool=lambda s: ShuffledPool(s, 2)
        )

    moments: list[str] = []
    small(folder / "whole").run(moments.append)
    whole, decisions = trace(folder / "whole"), raced(folder / "whole")
    assert "raced" in moments
    for moment in range(2, len(moments) + 1, 3):
        world = small(folder / f"killed-{moment}")
        assert run_in_fresh_process(world, moment) == -signal.SIGKILL
        world.run()
        assert (trace(world.folder), raced(world.folder)) == (whole, decisions), f"{moment}: {moments[moment - 1]}"


@pytest.mark.parametrize("workers", [1, 6])
def test_twins_race_on_shared_answers(folder: Path, workers: int) -> None:
    """Genes rounded to 0, 1/2, 1 give 81 recipes: a twin's answers count, and no item of a recipe is asked twice."""
    pools: list[ShuffledPool] = []

    def pool(given: SyntheticSpec) -> ShuffledPool:
        pools.append(ShuffledPool(given, workers, 1))
        return pools[-1]

    World(folder, "random", 120, levels=2, rules=RULES, spec=SPEC, pool=pool, options={"batch_size": 10}).run()
    asked: set[tuple[str, str]] = set()
    for job in pools[0].submitted:
        of_job = {(job.candidate.recipe.digest, item) for items in job.items.values() for item in items}
        assert not asked & of_job
        asked |= of_job
    found = trace(folder)
    assert len(found["observed"]) == 120
    assert len(set(found["digests"].values())) < 100


def test_a_race_on_arrival_decides_and_resumes(folder: Path) -> None:
    rules = replace(RULES, asynchronous=True)
    world = World(folder, "cma-es", 25, rules=rules, spec=SPEC, options={"population": 5}, pool=shuffled(6, 1))
    world.run()
    before, decisions = trace(folder)["observed"], raced(folder)
    replace(world, candidates=50, pool=shuffled(3, 2)).run()
    assert trace(folder)["observed"][:25] == before
    after = raced(folder)
    assert {number: after[number] for number in decisions} == decisions
    assert len(trace(folder)["observed"]) == 50


def test_without_anything_to_compare_with_everybody_answers_everything(folder: Path) -> None:
    spec = replace(SPEC, troubles={-1: "candidate", -2: "candidate"})
    World(folder, candidates=6, rules=RULES, spec=spec, options={"population": 6}).run()
    assert all(items_of(folder)[number] == 12 for number in range(6))


# -- ranks -------------------------------------------------------------------------------------------------------


def test_shrinking_keeps_the_order_of_equal_errors_and_doubts_the_uncertain() -> None:
    values: list[float | None] = [0.9, 0.5, None, 0.1]
    same = shrunken(values, [0.01, 0.01, 0.0, 0.01])
    assert same[0] > same[1] > same[3]  # type: ignore[operator]
    assert same[2] is None
    doubted = shrunken([0.60, 0.58, 0.1, 0.2], [0.04, 0.0, 0.0, 0.0])
    assert doubted[0] < doubted[1] == pytest.approx(0.58)  # type: ignore[operator]
    between = np.var([0.60, 0.58, 0.1, 0.2], ddof=1) - 0.01
    assert doubted[0] == pytest.approx(0.37 + 0.23 * between / (between + 0.04))
    assert shrunken(values, [0.0] * 4) == values
    assert shrunken([0.5, 0.51], [1.0, 0.1]) == [0.5, 0.51]  # all of the spread may be chance
