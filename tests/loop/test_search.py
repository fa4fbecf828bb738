"""The loop: what it asks, whom it tells, when it stops, and that the number of workers changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.candidate import Answers, Outcome
from evomerge.commands._search_progress import line_of
from evomerge.controllers import SearchProblem, build
from evomerge.errors import RunError
from evomerge.loop import Progress, evaluate
from evomerge.loop._replay import replay
from evomerge.loop._search_loop import MOST_MACHINE_FAILURES
from evomerge.pareto import non_dominated
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers import LocalPool
from tests.clock import Clock
from tests.loop.world import GENES, OBJECTIVES, OPTIMA, PARENTS, PLAN, World, trace
from tests.workers.fakes import ShuffledPool


def spec(**changes: Any) -> SyntheticSpec:
    return replace(SyntheticSpec(OPTIMA, parents=PARENTS), **changes)


def shuffled(workers: int, seed: int) -> Callable[[SyntheticSpec], ShuffledPool]:
    return lambda given: ShuffledPool(given, workers, seed)


@pytest.mark.parametrize("controller", ["cma-es", "sobol", "nsga-ii"])
def test_workers_and_their_speed_do_not_change_the_trace(folder: Path, controller: str) -> None:
    troubles = {2: "candidate", 9: "nan", 10: "infrastructure"}
    alone = World(folder / "alone", controller, spec=spec(troubles=troubles))
    alone.run()
    assert len(trace(alone.folder)["observed"]) == 30
    for workers, seed in [(1, 0), (3, 1), (7, 2), (64, 3)]:
        many = replace(alone, folder=folder / f"many-{workers}", pool=shuffled(workers, seed))
        many.run()
        assert trace(many.folder) == trace(alone.folder)


def test_candidates_are_told_once_in_order_and_failures_as_none(folder: Path) -> None:
    world = World(folder, pool=shuffled(5, 0), spec=spec(troubles={0: "candidate", 7: "bug", 11: "infrastructure"}))
    assert world.run().name == "candidates"
    told = trace(folder)["observed"]
    assert [number for number, _ in told] == list(range(30))
    assert [number for number, fitness in told if fitness is None] == [0, 7, 11]


def test_fitness_is_the_mean_of_the_stored_answers(folder: Path) -> None:
    World(folder).run()
    found = trace(folder)
    for number, fitness in found["observed"]:
        by_task = {task: [found["answers"][number][task, item, "acc"] for item in PLAN[task]] for task in PLAN}
        assert fitness == [np.mean(by_task["add"]), np.mean(by_task["sort"])]


def test_decisions_are_recorded_before_they_take_effect(folder: Path) -> None:
    """At each submission the candidate is in the archive as asked; at each tell its outcome and fitness are."""
    seen: list[str] = []

    class Witness(LocalPool):
        def submit(self, job) -> None:  # type: ignore[no-untyped-def]
            with Archive.open(folder) as archive:
                stored = {c.number: c for c in archive.candidates()}
                assert stored[job.candidate.number] == job.candidate
                assert [e.candidate for e in archive.events("submitted")].count(job.candidate.number) == 1
            seen.append("submit")
            super().submit(job)

    def tell_with_witness(index: int, fitness: Any) -> None:
        with Archive.open(folder) as archive:
            last = [event for event in archive.events("observed")][-1]
            assert last.candidate >= index  # type: ignore[operator]
            assert archive.outcome(index) is not None
        seen.append("tell")
        original(index, fitness)

    world = World(folder, "random", candidates=5, pool=Witness)
    controller = build("random", SearchProblem(GENES, world.seed, len(OBJECTIVES)), {"batch_size": 2})
    original = controller.tell
    controller.tell = tell_with_witness  # type: ignore[method-assign]
    world.run_with(controller)
    assert (seen.count("submit"), seen.count("tell")) == (7, 5)


def test_parents_are_scored_first_and_told_to_nobody(folder: Path) -> None:
    world = World(folder, candidates=4)
    world.run()
    with Archive.open(folder) as archive:
        submitted = [event.candidate for event in archive.events("submitted")]
        assert set(submitted[:2]) == {-1, -2}
        assert archive.count("parent") == 2
        assert all(len(archive.responses("search", number)) == 24 for number in (-1, -2))
        assert [event.candidate for event in archive.events("observed")] == [0, 1, 2, 3]


def test_a_failing_parent_does_not_end_the_search(folder: Path) -> None:
    assert World(folder, candidates=4, spec=spec(troubles={-1: "candidate"})).run().name == "candidates"


# -- budgets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("controller", ["cma-es", "sobol", "latin", "tpe"])
@pytest.mark.parametrize("candidates", [0, 1, 13])
def test_the_budget_of_candidates_is_strict(folder: Path, controller: str, candidates: int) -> None:
    reason = World(folder, controller, candidates, pool=shuffled(4, 0)).run()
    assert (reason.name, reason.finished) == ("candidates", True)
    assert len(trace(folder)["observed"]) == candidates
    with Archive.open(folder) as archive:
        assert archive.count() == candidates


@pytest.mark.parametrize("controller", ["cma-es", "sobol"])
def test_raising_the_budget_goes_on_as_if_it_had_always_been_so(folder: Path, controller: str) -> None:
    """17 and 18 end inside a batch, 18 again inside the same one."""
    whole = World(folder / "whole", controller, candidates=40)
    whole.run()
    world = World(folder / "steps", controller)
    for candidates in (0, 17, 18, 40):
        replace(world, candidates=candidates).run()
    assert trace(world.folder) == trace(whole.folder)


def test_the_budget_of_seconds_counts_all_sessions_and_drops_what_is_under_way(folder: Path, clock: Clock) -> None:
    slow = spec(seconds=0.05)
    world = World(folder / "run", candidates=200, seconds=0.42, spec=slow)
    reason = world.run()
    assert (reason.name, reason.finished) == ("seconds", True)
    told = len(trace(world.folder)["observed"])
    assert 0 < told <= 8
    assert world.run().name == "seconds"  # used up: nothing more happens
    assert len(trace(world.folder)["observed"]) == told
    replace(world, candidates=12, seconds=None).run()
    whole = World(folder / "whole", candidates=12, spec=slow)
    whole.run()
    assert trace(world.folder)["observed"] == trace(whole.folder)["observed"]


def test_the_controllers_own_end(folder: Path) -> None:
    world = World(folder, "cma-es", candidates=5000, options={"restarts": 0, "sigma": 1e-4, "population": 4})
    reason = world.run()
    assert reason.name == "controller"
    assert "tolx" in reason.message or "tolflatfitness" in reason.message
    told = len(trace(folder)["observed"])
    assert told < 1000
    assert world.run().name == "controller"  # a resume finds the same end
    assert len(trace(folder)["observed"]) == told


# -- failures ----------------------------------------------------------------------------------------------------


def test_a_configuration_failure_ends_the_search_and_is_tried_again_on_resume(folder: Path) -> None:
    World(folder / "whole", candidates=20).run()
    world = World(folder / "run", candidates=20, spec=spec(troubles={6: "configuration"}))
    reason = world.run()
    assert (reason.name, reason.finished) == ("configuration", False)
    assert reason.message == "the set-up is wrong (synthetic)"
    assert len(trace(world.folder)["observed"]) == 6
    replace(world, spec=spec()).run()  # the user has repaired it
    assert trace(world.folder)["observed"] == trace(folder / "whole")["observed"]


def test_a_dead_machine_does_not_burn_the_budget(folder: Path) -> None:
    troubles = {number: "infrastructure" for number in range(5, 300)}
    world = World(folder, candidates=300, spec=spec(troubles=troubles))
    reason = world.run()
    assert (reason.name, reason.finished) == ("infrastructure", False)
    assert "evaluations in a row failed for reasons of the machine" in reason.message
    assert len(trace(folder)["observed"]) < 5 + MOST_MACHINE_FAILURES
    assert replace(world, candidates=20, spec=spec()).run().name == "candidates"


def test_all_candidates_may_fail(folder: Path) -> None:
    world = World(folder, candidates=20, spec=spec(troubles={number: "candidate" for number in range(20)}))
    assert world.run().name == "candidates"
    assert [fitness for _, fitness in trace(folder)["observed"]] == [None] * 20


# -- twins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 6])
def test_a_recipe_is_evaluated_once(folder: Path, workers: int) -> None:
    """Genes rounded to 0, 1/2, 1 give 81 recipes; of 120 candidates many share one."""
    pools: list[ShuffledPool] = []

    def pool(given: SyntheticSpec) -> ShuffledPool:
        pools.append(ShuffledPool(given, workers, 1))
        return pools[-1]

    World(folder, "random", candidates=120, levels=2, pool=pool).run()
    found = trace(folder)
    evaluated = [job.candidate.recipe.digest for job in pools[0].submitted]
    assert len(evaluated) == len(set(evaluated))
    assert len(evaluated) < 100
    by_digest: dict[str, set[str]] = {}
    for number, fitness in found["observed"]:
        by_digest.setdefault(found["digests"][number], set()).add(str(fitness))
    assert all(len(told) == 1 for told in by_digest.values())
    with Archive.open(folder) as archive:
        assert sum(1 for _ in archive.events("duplicate")) == 120 - (len(evaluated) - len(PARENTS))


def test_twins_of_failed_candidates(folder: Path) -> None:
    """With two levels per gene candidate 0 has twins: a bad candidate's share its failure, a bad machine's do not."""
    for trouble in ("candidate", "infrastructure"):
        world = World(folder / trouble, "random", 60, levels=1, spec=spec(troubles={0: trouble}), pool=shuffled(4, 0))
        world.run()
        found = trace(world.folder)
        twins = [number for number, digest in found["digests"].items() if number > 0 and digest == found["digests"][0]]
        assert twins
        told = dict(found["observed"])
        assert told[0] is None
        assert [told[number] is None for number in twins] == [trouble == "candidate"] * len(twins)


# -- resuming ----------------------------------------------------------------------------------------------------


def test_finished_items_of_a_half_done_candidate_are_kept(folder: Path) -> None:
    class Dies(LocalPool):
        def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
            arrived = super().collect(timeout)
            cut = [r for r in arrived if isinstance(r, Answers) and r.number == 3 and r.task == "add"]
            if cut:
                raise_after.append(cut[0])
                return [r for r in arrived if r.number < 3] + cut
            if raise_after:
                raise KeyboardInterrupt
            return arrived

    raise_after: list[Answers] = []
    World(folder / "whole", candidates=8).run()
    world = World(folder / "cut", candidates=8, pool=Dies)
    assert world.run().name == "interrupted"
    pools: list[ShuffledPool] = []

    def pool(given: SyntheticSpec) -> ShuffledPool:
        pools.append(ShuffledPool(given, 1))
        return pools[-1]

    replace(world, pool=pool).run()
    again = {job.candidate.number: set(job.items) for job in pools[0].submitted}
    assert again[3] == {"sort"}
    assert trace(world.folder) == trace(folder / "whole")


@pytest.mark.parametrize("change", [{"seed": 8}, {"options": {"population": 5}}, {"options": {"sigma": 0.3}}])
def test_a_controller_that_proposes_otherwise_is_refused(folder: Path, change: dict[str, Any]) -> None:
    world = World(folder, candidates=12)
    world.run()
    with pytest.raises(RunError, match=r"does not repeat its proposals .*seed: 7, versions: \{'test': 1\}"):
        replace(world, candidates=20, **change).run()
    before = trace(folder)
    assert len(before["observed"]) == 12
    assert replace(world, candidates=20).run().name == "candidates"


def test_rounding_on_another_processor_is_noted_and_survived(folder: Path) -> None:
    world = World(folder, "sobol", candidates=10)
    world.run()
    controller = build("sobol", SearchProblem(GENES, world.seed, len(OBJECTIVES)))
    original = controller.ask
    controller.ask = lambda: [np.nextafter(point, 1.0) for point in original()]  # type: ignore[method-assign]
    with Archive.open(folder, read_only=False) as archive:
        replay(archive, controller)
        (note,) = archive.events("note")
    assert "differ by 1.1e-16 in the last digits" in note.payload["text"]


def test_an_interrupt_closes_the_pool_and_a_second_one_is_raised(folder: Path) -> None:
    class Interrupted(LocalPool):
        closed = 0

        def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
            raise KeyboardInterrupt

        def close(self) -> None:
            Interrupted.closed += 1
            if Interrupted.closed == second_at:
                raise KeyboardInterrupt

    second_at = -1
    world = World(folder, candidates=5, pool=Interrupted)
    reason = world.run()
    assert (reason.name, reason.finished) == ("interrupted", False)
    assert f"evomerge resume {folder}" in reason.message
    assert Interrupted.closed >= 1
    second_at = Interrupted.closed + 1
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert replace(world, pool=LocalPool).run().name == "candidates"


def test_a_second_driver_is_refused(folder: Path) -> None:
    world = World(folder, candidates=5)
    world.run()
    with Archive.open(folder, read_only=False), pytest.raises(RunError, match="in use by process"):
        world.run()


# -- the final scoring, and what people see ----------------------------------------------------------------------


def test_held_out_items_are_answered_once(folder: Path) -> None:
    World(folder, candidates=6).run()
    held_out = {task: tuple(f"{task}-held-{i}" for i in range(5)) for task in PLAN}
    with Archive.open(folder, read_only=False) as archive:
        chosen = [c for c in archive.candidates() if c.number in (-2, -1, 4)]
        for expected in (3, 0):  # the second time there is nothing left to do
            pool = ShuffledPool(spec(), 2)
            assert evaluate(archive, pool, chosen, "holdout", held_out).name == "done"
            assert len(pool.submitted) == expected
        assert all(len(archive.responses("holdout", c.number)) == 10 for c in chosen)
        assert archive.responses("holdout", 3) == ()
        assert len(archive.responses("search", 4)) == 24


def test_progress_says_what_was_measured(folder: Path) -> None:
    reports: list[Progress] = []
    World(folder, candidates=20, spec=spec(troubles={3: "candidate"})).run(progress=reports.append)
    last = reports[-1]
    told = [fitness for _, fitness in trace(folder)["observed"] if fitness is not None]
    assert (last.candidates, last.budget, last.failures, last.running) == (20, 20, 1, 0)
    assert last.best == {"add": max(f[0] for f in told), "sort": max(f[1] for f in told)}
    assert last.front == int(non_dominated(np.array(told)).sum())
    assert 0.0 <= last.busy <= 1.0
    assert [report.parents for report in reports] == sorted((report.parents for report in reports), reverse=True)
    assert last.parents == 0


def test_the_line_of_progress_names_the_parents_before_and_the_front_after() -> None:
    first = Progress(0, 30, {}, 0, 4, 0, 4, 0.5, 12.0, None)
    assert line_of(first) == "4 parents to score first  0/30 candidates  busy 50%  12s"
    later = Progress(10, 30, {"add": 0.5, "sort": 0.25}, 3, 0, 1, 4, 0.98, 75.0, 61.0)
    assert line_of(later) == (
        "10/30 candidates  best add 0.500 sort 0.250  front 3  1 failed  busy 98%  1m15s  1m01s left"
    )


def test_events_tell_the_story(folder: Path) -> None:
    world = World(folder, "sobol", candidates=2, options={"batch_size": 2})
    world.run()
    world.run()
    with Archive.open(folder) as archive:
        kinds = [event.kind for event in archive.events()]
    assert kinds.count("asked") == 1
    assert [kinds.count(kind) for kind in ("submitted", "answered", "finished", "observed")] == [4, 8, 4, 2]
    assert kinds[-2:] == ["stopped", "stopped"]


@pytest.mark.ray
def test_ray_gives_the_trace_of_one_process(folder: Path, tmp_path: Path) -> None:
    """Two real workers, one of which is killed in the middle of a job."""
    from evomerge.workers import start_ray_pool

    alone = World(folder / "alone", candidates=16, spec=spec(troubles={3: "candidate"}))
    alone.run()
    troubled = spec(troubles={3: "candidate", 6: "die once"}, seconds=0.01, spread=1.0, scratch=str(tmp_path))
    cluster = replace(alone, folder=folder / "ray", spec=troubled, pool=lambda given: start_ray_pool(given, 2))
    assert cluster.run().name == "candidates"
    assert trace(cluster.folder) == trace(alone.folder)
    with Archive.open(cluster.folder) as archive:
        assert [event.candidate for event in archive.events("retry")] == [6]


def test_a_clock_that_jumps_changes_nothing(folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    World(folder / "calm", candidates=12, seconds=3600).run()
    calendar = iter(range(10**9, 0, -86_400))  # a day back at every look
    monkeypatch.setattr("time.time", lambda: float(next(calendar)))
    world = World(folder / "jumping", candidates=12, seconds=3600)
    assert world.run().name == "candidates"
    assert trace(world.folder) == trace(folder / "calm")
    with Archive.open(world.folder) as archive:
        events = list(archive.events())
    assert events[-1].time < events[0].time
    assert 0.0 <= events[0].seconds <= events[-1].seconds < 600.0


def test_a_disk_that_fills_up_during_the_search(small_disk: Path, folder: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"0" * (shutil.disk_usage(small_disk).total - 600_000))
    world = World(small_disk / "run", candidates=60)
    with pytest.raises(RunError, match=r"cannot grow.*evomerge resume"):
        world.run()
    told = len(trace(world.folder)["observed"])
    assert 0 < told < 60
    ballast.unlink()
    assert world.run().name == "candidates"
    whole = World(folder, candidates=60)
    whole.run()
    assert trace(world.folder) == trace(whole.folder)
