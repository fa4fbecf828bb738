"""What the driver costs per candidate: ask, archive (durable), submit, collect, fitness, tell.

    python benchmarks/driver/overhead.py --candidates 10000 [--folder DIR] [--out FILE]

The scorer answers at once, and what it takes is measured and taken off. One worker is the local pool; more stand for a
cluster whose results arrive together. Two clocks are given: the wall's includes waiting for the disk at every commit
(and for other programs), the CPU's does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Answers, Evaluation, Job, Objective, Outcome, Response, Score
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, run_search
from evomerge.scoring._synthetic import synthetic_recipe
from evomerge.workers import LocalPool, Pool
from evomerge.workers._runner import SafeEvaluator

TASKS = ("add", "sort")
GENES = 24
SEED = 1


class InstantScorer:
    """Answers at random and at once; what that took, by both clocks, is to be taken off. Its own spec."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._chance = np.random.default_rng(0)

    def build(self) -> InstantScorer:
        return self

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        for task, items in job.items.items():
            started, cpu = time.perf_counter(), time.process_time()
            right = self._chance.random(len(items)) < 0.5
            responses = (Response(task, item, "acc", float(x)) for item, x in zip(items, right, strict=True))
            answers = Answers(job.candidate.number, job.split, task, tuple(responses))
            self.seconds += time.perf_counter() - started
            self.cpu_seconds += time.process_time() - cpu
            yield answers
        yield Outcome(job.candidate.number, job.split, None, "none/0", 0.1, {"score": 0.1})


class ManyWorkers:
    """A pool of `workers` that are all done whenever it is asked."""

    def __init__(self, spec: InstantScorer, workers: int) -> None:
        self.workers = workers
        self._edge = SafeEvaluator(spec, "none/0")
        self._jobs: deque[Job] = deque()

    def room(self) -> int:
        return self.workers - len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def collect(self, timeout: float | None = None) -> list[Answers | Outcome]:
        jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
        return [result for job in jobs for result in self._edge.evaluate(job)]

    def status(self) -> list[dict[str, Any]]:
        return []

    def close(self) -> None:
        self._jobs.clear()


class Space:
    def decode(self, genotype: np.ndarray) -> Any:
        return synthetic_recipe(genotype)


def mean_fitness(number: int, responses: Sequence[Response]) -> Evaluation:
    values: dict[str, list[float]] = {}
    for response in responses:
        values.setdefault(response.task, []).append(response.value)
    return Evaluation(number, {task: Score(statistics.fmean(v), 0.0, len(v)) for task, v in values.items()})


def measure(folder: Path, controller: str, candidates: int, workers: int, items: int) -> dict[str, Any]:
    plan = {task: tuple(f"{task}-{i}" for i in range(items // len(TASKS))) for task in TASKS}
    objectives = tuple(Objective(task, task, "acc") for task in TASKS)
    scorer = InstantScorer()
    pool: Pool = LocalPool(scorer) if workers == 1 else ManyWorkers(scorer, workers)
    commits = 0

    def count(moment: str) -> None:
        nonlocal commits
        commits += moment == "commit"

    with Archive.create(folder, {"seed": SEED}, watch=count) as archive:
        asks = build(controller, SearchProblem(GENES, SEED, len(TASKS)), {})
        wall, cpu = time.perf_counter(), time.process_time()
        reason = run_search(archive, Space(), asks, pool, objectives, plan, Budget(candidates), mean_fitness)
        wall, cpu = time.perf_counter() - wall - scorer.seconds, time.process_time() - cpu - scorer.cpu_seconds
        assert reason.name == "candidates", reason
        journal = archive._connection.execute("PRAGMA journal_mode").fetchone()[0]
    return {
        "controller": controller,
        "candidates": candidates,
        "workers": workers,
        "items": items,
        "wall_ms": 1e3 * wall / candidates,
        "cpu_ms": 1e3 * cpu / candidates,
        "commits": commits,
        "journal": journal,
        "file_kib_per_candidate": (folder / "archive.sqlite").stat().st_size / 1024 / candidates,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def seconds_per_commit(folder: Path, count: int = 100) -> float:
    """The disk's own price: a commit of one short row, durable."""
    connection = sqlite3.connect(folder / "commits.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (x)")
    started = time.perf_counter()
    for i in range(count):
        connection.execute("INSERT INTO rows VALUES (?)", (i,))
    connection.close()
    return (time.perf_counter() - started) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--controllers", nargs="+", default=["sobol", "cma-es"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--items", type=int, default=100, help="per candidate, over all tasks")
    parser.add_argument("--folder", type=Path, help="where the archives are written; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON with the rows and where they come from")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        commit = seconds_per_commit(Path(scratch))
        print(f"one durable commit: {1e3 * commit:.2f} ms; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(
            "| controller | workers | items | wall ms | CPU ms | commits per candidate | KiB per candidate | peak MiB |"
        )
        print("|---|---|---|---|---|---|---|---|")
        rows = []
        for controller in given.controllers:
            for workers in given.workers:
                folder = Path(scratch) / f"{controller}-{workers}"
                row = measure(folder, controller, given.candidates, workers, given.items)
                rows.append(row)
                print(
                    f"| {controller} | {workers} | {given.items} | {row['wall_ms']:.2f} | {row['cpu_ms']:.2f} "
                    f"| {row['commits'] / given.candidates:.2f} | {row['file_kib_per_candidate']:.1f} "
                    f"| {row['peak_mib']:.0f} |",
                    flush=True,
                )
    if given.out:
        origin = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "numpy": np.__version__}
        origin |= {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "seed": SEED}
        given.out.write_text(json.dumps({"commit_ms": 1e3 * commit, "origin": origin, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
