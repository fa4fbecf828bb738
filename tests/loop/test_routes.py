"""Searches of routes on the synthetic scorer: every controller, duplicates, and going on after an end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Job, Objective
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, run_search
from evomerge.recipe import passthrough
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.space import SearchSpace, build_space
from evomerge.workers import LocalPool
from tests.loop.world import mean_fitness

MERGE = {"merge_method": "passthrough", "models": [{"model": "org/a"}, {"model": "org/b"}]}
SLOTS = 2 * 2 * 3  # two models of three layers, twice
BEST = (0.75, 0.75, 0.25, 0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 0.25, 0.25, 0.75)
OBJECTIVES = (Objective("add", "add", "acc"),)
PLAN = {"add": tuple(str(i) for i in range(8))}


def space(**route: object) -> SearchSpace:
    return build_space(MERGE, layers=3, modules={}, route={"sources": ["org/a", "org/b"], "repeats": 2, **route})


class Counting(LocalPool):
    """Notes the recipes that it was given to evaluate."""

    def __init__(self, spec: SyntheticSpec) -> None:
        super().__init__(spec)
        self.digests: list[str] = []

    def submit(self, job: Job) -> None:
        self.digests.append(job.candidate.recipe.digest)
        super().submit(job)


def run(folder: Path, controller: str, candidates: int, routes: SearchSpace, **options: object) -> Counting:
    """Search, or go on with the search in `folder`; the first model is the parent."""
    optimum = (*BEST, *(0.5,) * (routes.dimension - SLOTS))
    spec = SyntheticSpec({"add": optimum}, graded=True, parents={"a": tuple(routes.start())})
    start = tuple(float(x) for x in routes.start())
    problem = SearchProblem(
        routes.dimension, 7, 1, start=start, budget=candidates, choices=routes.choices, switches=routes.switches
    )
    exists = Archive.exists(folder)
    with Archive.open(folder, read_only=False) if exists else Archive.create(folder, {"seed": 7}) as archive:
        if not exists:
            archive.put_parents([Candidate(-1, passthrough("org/a"), (), "parent", "a")])
        pool = Counting(spec)
        proposing = build(controller, problem, options)
        run_search(archive, routes, proposing, pool, OBJECTIVES, PLAN, Budget(candidates), mean_fitness)
    return pool


CONTROLLERS = [
    ("cma-es", {"population": 8, "sigma": 0.2}),
    ("tpe", {"batch_size": 8}),
    ("evolution", {"population": 8}),
]


@pytest.mark.parametrize(("controller", "options"), CONTROLLERS)
def test_no_route_is_evaluated_twice(tmp_path: Path, controller: str, options: dict[str, object]) -> None:
    """The start is the parent itself; it and every repeated route get stored answers, recorded as such."""
    routes = space(max_layers=6)
    pool = run(tmp_path, controller, 48, routes, **options)
    assert len(pool.digests) == len(set(pool.digests))
    with Archive.open(tmp_path) as archive:
        candidates = list(archive.candidates("search"))
        reused = {event.candidate: event.payload["of"] for event in archive.events("duplicate")}
        found = {candidate.number: candidate.recipe.digest for candidate in archive.candidates()}
    assert len(candidates) == 48
    assert len(pool.digests) + len(reused) == 48 + 1
    assert all(found[number] == found[twin] for number, twin in reused.items())
    if controller != "cma-es":  # which proposes around the start, and not the start itself
        assert reused[0] == -1
    for candidate in candidates:
        hops = candidate.recipe.route
        assert hops is None or 1 <= len(hops) <= 6


@pytest.mark.parametrize(("controller", "options"), CONTROLLERS)
def test_an_interrupted_search_of_routes_goes_on_as_if_it_had_not_been(
    tmp_path: Path, controller: str, options: dict[str, object]
) -> None:
    routes = space(scales=[0.5, 1.5], keep_first=0)
    run(tmp_path / "whole", controller, 24, routes, **options)
    for candidates in (5, 16, 24):
        run(tmp_path / "parts", controller, candidates, routes, **options)
    traces = []
    for name in ("whole", "parts"):
        with Archive.open(tmp_path / name) as archive:
            traces.append([(c.number, c.genotype, c.recipe.digest) for c in archive.candidates("search")])
    assert traces[0] == traces[1]


def best_of(controller: str, seed: int, count: int, **options: object) -> float:
    """The best of `count` points on the squared distance of switched slots, where the start is far from the best."""
    routes = space()
    problem = SearchProblem(
        SLOTS, seed, 1, start=tuple(routes.start()), budget=count, choices=routes.choices, switches=routes.switches
    )
    controlling = build(controller, problem, options)
    best, told = -np.inf, 0
    while told < count:
        for point in controlling.ask():
            fitness = -float(np.sum((point >= 0.5) != (np.array(BEST) >= 0.5)))
            controlling.tell(told, [fitness])
            best, told = max(best, fitness), told + 1
    return best


def test_moves_of_routes_find_the_best_slots_sooner_than_chance() -> None:
    """One of 4096 slot patterns is best; the start differs in 6 of 12 slots."""
    learned = [best_of("evolution", seed, 120, population=12) for seed in range(5)]
    by_chance = [best_of("random", seed, 120) for seed in range(5)]
    assert np.median(learned) == 0.0
    assert np.median(by_chance) < -1.0


def test_evolution_proposes_the_start_first_and_few_points_twice() -> None:
    routes = space()
    problem = SearchProblem(SLOTS, 3, 1, start=tuple(routes.start()), choices=routes.choices, switches=routes.switches)
    controller = build("evolution", problem, {"population": 10})
    points: list[np.ndarray] = []
    while len(points) < 100:
        for point in controller.ask():
            controller.tell(len(points), [-float(np.abs(point - BEST).sum())])
            points.append(point)
    assert points[0].tolist() == routes.start().tolist()
    assert len({point.tobytes() for point in points}) >= 98
    assert set(np.unique(points)) == {0.25, 0.75}


def test_the_moves_of_evolution() -> None:
    """Each move alone: layers a0 a1 a2 b0 b1 b2 a0 a1 a2 b0 b1 b2, of which a0 a1 a2 run first."""
    routes = space()
    problem = SearchProblem(SLOTS, 3, 1, start=tuple(routes.start()), switches=routes.switches)
    controller = build("evolution", problem, {"population": 4})

    def after(move: str, seed: int) -> str:
        controller._random = np.random.default_rng(seed)
        point = np.array(routes.start())
        getattr(controller, f"_{move}")(point)
        route = routes.decode(point).route or [("org/a", layer, 1.0) for layer in range(3)]
        return " ".join(f"{source[-1]}{layer}" for source, layer, _ in route)

    seen = {move: {after(move, seed) for seed in range(60)} for move in ("insert", "delete", "swap", "repeat")}
    assert seen["delete"] == {"a1 a2", "a0 a2", "a0 a1"}
    assert {len(route.split()) for route in seen["insert"]} == {4}
    assert len(seen["insert"]) == 6  # nine slots, of which three hold a layer that another one holds too
    assert {len(route.split()) for route in seen["swap"]} == {3}
    assert seen["repeat"] == {
        "a0 a1 a2 a0", "a0 a1 a2 a1", "a0 a1 a2 a2", "a0 a1 a2 a0 a1", "a0 a1 a2 a1 a2", "a0 a1 a2 a0 a1 a2",
    }  # fmt: skip


def test_optuna_sees_indicators_as_categories() -> None:
    routes = space(scales=[0.5, 1.5])
    start = tuple(routes.start())
    problem = SearchProblem(routes.dimension, 3, 1, start=start, choices=routes.choices, switches=routes.switches)
    for name, option in (("tpe", "batch_size"), ("nsga-ii", "population")):
        points = build(name, problem, {option: 6}).ask()
        assert points[0] == pytest.approx(np.array(start), abs=1e-12)
        assert {float(x) for point in points for x in point[:SLOTS]} == {0.25, 0.75}
        assert len({float(x) for point in points for x in point[SLOTS:]}) > 12
