"""A search on 10, 100, 1,000 ... simulated workers: driver time, memory, lost work, and where the workers' time went.

    python -m benchmarks.scale.simulate --workers 10 100 1000 [--controllers sobol cma-es:100] [--kill] [--asynchronous]

Everything but the machines is real: loop, controller, dispatcher, scheduler, archive (SQLite, in a local folder).
Every row is a process of its own. With --asynchronous results are told as they arrive. With --kill the driver is killed
half-way, and another one resumes. What is true at the end is checked: every candidate has exactly one end, and every
answer of one that did not fail is there once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale.cluster import Killed, SimulatedCluster
from benchmarks.scale.world import Shares, World
from evomerge.archive import Archive
from evomerge.candidate import Evaluation, Job, Objective, Response, Score
from evomerge.controllers import Controller, SearchProblem, build, controller_info
from evomerge.loop import Budget, Rules, run_search
from evomerge.loop._replay import replay
from evomerge.recipe import Recipe
from evomerge.scoring._synthetic import synthetic_recipe
from evomerge.workers import Arrival, PoolEvent, Retry
from evomerge.workers._cluster import Resources
from evomerge.workers._scheduler import Scheduler
from evomerge.workers._worker_set import PoolSize

TASKS = ("add", "sort", "reverse", "spell")
ITEMS = 25  # per task
GENES = 24
PLAN = {task: tuple(f"{task}-{i}" for i in range(ITEMS)) for task in TASKS}
LOADED = 200.0  # seconds after which (nearly) every worker of the default world has loaded its models
OBJECTIVES = tuple(Objective(task, task, "acc") for task in TASKS)


class Space:
    def decode(self, genotype: np.ndarray) -> Recipe:
        return synthetic_recipe(genotype)


class Watched:
    """A pool that counts what passes through another one, and notes the account when work is plenty."""

    def __init__(self, pool: Scheduler, cluster: SimulatedCluster, last: int) -> None:
        self.pool, self.cluster, self.last = pool, cluster, last
        self.retries = 0
        self.notices: dict[str, int] = {}
        self.wasted = 0.0  # seconds of answers that came twice; the second ones are dropped
        self.begin: Shares | None = None  # when the models are loaded
        self.end: Shares | None = None  # when the last candidate has been handed out

    def room(self) -> int:
        return self.pool.room()

    def submit(self, job: Job) -> None:
        self.pool.submit(job)
        if job.candidate.number == self.last and self.begin is not None:
            self.end = self.cluster.account()

    def collect(self, timeout: float | None = None) -> list[Arrival]:
        arrived = self.pool.collect(timeout)
        if self.begin is None and self.cluster.now() > LOADED:
            self.begin = self.cluster.account()
        for one in arrived:
            if isinstance(one, Retry):
                self.retries += 1
            elif isinstance(one, PoolEvent):
                self.notices[one.what] = self.notices.get(one.what, 0) + 1
                self.wasted += one.facts["seconds"] if one.what == "wasted" else 0.0
        return arrived

    def steady(self) -> float | None:
        """Return the busy share while there was work for everybody; None where there never was."""
        if self.begin is None or self.end is None:
            return None
        self.end.add(self.begin, -1)
        return self.end.useful / self.end.paid

    def status(self) -> list[dict[str, Any]]:
        return self.pool.status()

    def close(self) -> None:
        self.pool.close()


def mean_fitness(number: int, responses: Sequence[Response]) -> Evaluation:
    values: dict[str, list[float]] = {}
    for response in responses:
        values.setdefault(response.task, []).append(response.value)
    return Evaluation(number, {task: Score(statistics.fmean(v), 0.0, len(v)) for task, v in values.items()})


def simulate(
    world: World,
    controller: str,
    population: int | None,
    candidates: int,
    folder: Path,
    kill: bool = False,
    asynchronous: bool = False,
) -> dict[str, Any]:
    """Run one search, with one killed driver in the middle or without; return its row."""
    world = replace(world, per_node=math.gcd(world.workers, world.per_node))  # every place of a node has a worker
    key = controller_info(controller).batch_option
    options = {} if population is None or key is None else {key: population}
    weights = (1.0,) * len(TASKS)
    problem = SearchProblem(GENES, world.seed, len(TASKS), weights, budget=candidates, asynchronous=asynchronous)
    rules = Rules(asynchronous=asynchronous)
    shares, clock, resume_seconds = Shares(), 0.0, 0.0
    totals: Counter[str] = Counter()
    kill_at = world.load + world.job * (0.5 * candidates / world.workers + 1.0) if kill else math.inf
    while True:
        cluster = SimulatedCluster(world, clock, kill_at)
        with _archive(folder, world, cluster) as archive:
            pool = Watched(
                Scheduler(cluster, PoolSize(world.workers, Resources(1, 1), may_grow=True)), cluster, candidates - 1
            )
            asks = build(controller, problem, options)
            try:
                budget = Budget(candidates)
                reason = run_search(archive, Space(), asks, pool, OBJECTIVES, PLAN, budget, mean_fitness, rules=rules)
                killed = False
                assert reason.name == "candidates", reason
            except Killed:
                killed, kill_at = True, math.inf
            clock = cluster.now()
            pool.close()
        shares.add(cluster.shares)
        totals.update(cluster.troubles)
        totals.update({f"notice: {name}": count for name, count in pool.notices.items()})
        totals.update(driver=cluster.driver_seconds, wasted=pool.wasted)  # type: ignore[call-arg]
        totals.update(retries=pool.retries, messages=cluster.messages, commits=cluster.commits)
        if not killed:
            break
        resume_seconds = _resume_seconds(folder, build(controller, problem, options))
    shares.useful -= totals["wasted"]
    return {
        **{"workers": world.workers, "controller": controller, "population": population, "candidates": candidates},
        "asynchronous": asynchronous,
        "virtual_seconds": clock,
        "driver_ms": 1e3 * totals.pop("driver") / candidates,
        "commit_load": totals["commits"] * world.commit / clock,
        "steady": pool.steady(),
        **{name: getattr(shares, name) / shares.paid for name in ("useful", "lost", "loading", "idle")},
        "twice": totals.pop("wasted") / shares.paid,
        "resume_seconds": resume_seconds,
        "archive_mib": (folder / "archive.sqlite").stat().st_size / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "counts": dict(totals),
        **checked(folder, candidates, in_order=not asynchronous),
    }


def _archive(folder: Path, world: World, cluster: SimulatedCluster) -> Archive:
    def watch(moment: str) -> None:
        if moment == "commit":
            cluster.committed()

    if Archive.exists(folder):
        return Archive.open(folder, read_only=False, watch=watch)
    return Archive.create(folder, {"seed": world.seed}, watch=watch)


def _resume_seconds(folder: Path, controller: Controller) -> float:
    """Return the processor time that it takes to bring a fresh controller to where the archive ends."""
    begun = time.process_time()
    with Archive.open(folder, read_only=False) as archive:
        replay(archive, controller)
    return time.process_time() - begun


def checked(folder: Path, candidates: int, in_order: bool) -> dict[str, Any]:
    """Return the counts that say whether anything was lost or kept twice; raise where something was."""
    with Archive.open(folder) as archive:
        ends: dict[int, int] = {}
        failed = set()
        for outcome in archive.outcomes():
            ends[outcome.number] = ends.get(outcome.number, 0) + 1
            if outcome.failure is not None:
                failed.add(outcome.number)
        short = [
            number
            for number in range(candidates)
            if number not in failed and len(archive.responses("search", number)) != ITEMS * len(TASKS)
        ]
        told = [event.candidate for event in archive.events("observed")]
    assert sorted(ends) == list(range(candidates)), "a candidate has no end"
    assert set(ends.values()) == {1}, "a candidate has two ends"
    assert not short, f"answers of {short[:5]} are missing"
    assert sorted(told) == list(range(candidates)), "told twice, or not at all"  # type: ignore[type-var]
    assert told == list(range(candidates)) or not in_order, "told out of order"
    return {"failed": len(failed)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ["workers", "controller", "candidates", "hours", "busy while there is work", "useful", "twice", "lost"]
    heads += ["loading", "idle", "driver ms per candidate", "driver's core busy", "waits for disk", "peak MiB"]
    lines = [f"| {' | '.join([*heads, 'retries', 'resume s'])} |", "|" + "---|" * (len(heads) + 2)]
    for row in rows:
        name = row["controller"] + (f", {row['population']} at a time" if row["population"] else "")
        shares = " | ".join(f"{100 * row[key]:.1f}%" for key in ("useful", "twice", "lost", "loading", "idle"))
        name += ", on arrival" if row["asynchronous"] else ""
        steady = "" if row["steady"] is None or row["resume_seconds"] else f"{100 * row['steady']:.1f}%"
        driver = row["driver_ms"] * row["candidates"] / 1e3 / row["virtual_seconds"]
        lines.append(
            f"| {row['workers']:,} | {name} | {row['candidates']:,} | {row['virtual_seconds'] / 3600:.2f} | {steady} "
            f"| {shares} | {row['driver_ms']:.2f} | {100 * driver:.1f}% | {100 * row['commit_load']:.1f}% "
            f"| {row['peak_mib']:.0f} | {row['counts']['retries']} | {row['resume_seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument(
        "--controllers", nargs="+", default=["sobol"], help="with :N for a population, as in cma-es:100"
    )
    parser.add_argument("--rounds", type=float, default=20.0, help="candidates per worker")
    parser.add_argument("--kill", action="store_true", help="kill the driver half-way, and resume")
    parser.add_argument("--asynchronous", action="store_true", help="tell results as they arrive")
    parser.add_argument("--folder", type=Path, help="where archives are written; default: a temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the world, see world.py")
    parser.add_argument("--json", type=Path, help="append the rows here, one per line")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    world = replace(World(0, seed=given.seed), **{k: float(v) for k, v in (pair.split("=") for pair in given.set)})
    if given.one:
        workers, controller, population, candidates, kill = json.loads(given.one)
        with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
            run = Path(scratch) / "run"
            place = replace(world, workers=workers)
            row = simulate(place, controller, population, candidates, run, kill, given.asynchronous)
        print(json.dumps(row))
        return
    rows = []
    for name in given.controllers:
        controller, _, population = name.partition(":")
        for workers in given.workers:
            candidates = int(given.rounds * workers)
            one = json.dumps([workers, controller, int(population) if population else None, candidates, given.kill])
            again = [sys.executable, "-m", "benchmarks.scale.simulate", *sys.argv[1:], "--one", one]
            done = subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            if given.json:
                with given.json.open("a") as file:
                    file.write(done.stdout)
    print(table(rows))
    print(json.dumps({"python": platform.python_version(), "cores": os.cpu_count(), "world": asdict(world)}))


if __name__ == "__main__":
    main()
