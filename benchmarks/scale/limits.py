"""What the parts of a driver cost as the cluster grows, one by one: archive, Ray's wait, messages, controllers, replay.

    python -m benchmarks.scale.limits [--parts archive messages ray controllers] [--folder DIR]

Processor time where the part computes, wall time where it waits for the disk; lowest, median and highest of several.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.scale.simulate import GENES, ITEMS, TASKS
from evomerge.archive import Archive
from evomerge.candidate import Answers, Candidate, Outcome, Response
from evomerge.controllers import SearchProblem, build
from evomerge.scoring._synthetic import synthetic_recipe


def spread(values: list[float], unit: float = 1e3) -> str:
    return f"{unit * min(values):.3g} / {unit * statistics.median(values):.3g} / {unit * max(values):.3g}"


def answers_of(number: int) -> list[Answers]:
    return [
        Answers(number, "search", task, tuple(Response(task, f"{task}-{i}", "acc", 1.0) for i in range(ITEMS)))
        for task in TASKS
    ]


def archive(folder: Path) -> None:
    """Candidates per second that the archive takes, by how many share one wait for the disk."""
    chance = np.random.default_rng(0)
    print("| candidates per commit | wall ms per candidate (lowest / median / highest) | processor ms | per second |")
    print("|---|---|---|---|")
    for together in (1, 10, 100):
        walls, cpus = [], []
        with Archive.create(folder / f"archive{together}", {"seed": 0}) as store:
            for first in range(0, max(200, 5 * together), together):
                genes = [tuple(chance.random(GENES)) for _ in range(together)]
                candidates = [Candidate(first + i, synthetic_recipe(g), g) for i, g in enumerate(genes)]
                wall, cpu = time.perf_counter(), time.process_time()
                with store.transaction():
                    store.put_asked(candidates, together)
                    for candidate in candidates:
                        store.put_submitted(candidate.number, "search")
                        for answers in answers_of(candidate.number):
                            store.put_answers(answers)
                        store.put_outcome(
                            Outcome(candidate.number, "search", None, "w", 60.0, {"score": 60.0}, "0" * 16)
                        )
                        store.put_observed(candidate.number, (0.5,) * len(TASKS))
                walls.append((time.perf_counter() - wall) / together)
                cpus.append((time.process_time() - cpu) / together)
        rate = 1 / statistics.median(walls)
        print(f"| {together} | {spread(walls)} | {1e3 * statistics.median(cpus):.2f} | {rate:,.0f} |", flush=True)


def messages() -> None:
    """Processor time to unpickle what one candidate sends: its answers and its outcome."""
    packed = [pickle.dumps(one, protocol=5) for one in answers_of(7)]
    times = []
    for _ in range(200):
        begun = time.process_time()
        for one in packed:
            pickle.loads(one)
        times.append(time.process_time() - begun)
    print(f"messages of one candidate: {sum(map(len, packed)) / 1024:.1f} KiB, ms to unpickle: {spread(times)}")


def ray_wait() -> None:
    """Processor time of one `ray.wait` on as many unfinished results as there are workers; no worker is started."""
    import logging
    import shutil

    import ray

    folder = tempfile.mkdtemp(prefix="ev-", dir="/tmp")  # short: Ray puts sockets below it
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _temp_dir=folder,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )

    @ray.remote(resources={"never": 1.0})
    def never() -> None: ...

    print("| unfinished results | ms of one ray.wait (lowest / median / highest) |")
    print("|---|---|")
    waiting = []
    for count in (10, 100, 1000, 10000):
        waiting += [never.remote() for _ in range(count - len(waiting))]
        times = []
        for _ in range(20):
            begun = time.process_time()
            ray.wait(waiting, num_returns=len(waiting), timeout=0)
            times.append(time.process_time() - begun)
        print(f"| {count:,} | {spread(times)} |", flush=True)
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def controllers() -> None:
    """Processor time of ask and tell per candidate, by how many are proposed at once."""
    print("| controller | candidates at once | ms per candidate (lowest / median / highest of the rounds) |")
    print("|---|---|---|")
    for name, populations in (("sobol", (64,)), ("cma-es", (12, 100, 1000, 10000)), ("nsga-ii", (100,))):
        for population in populations:
            options = {"population": population} if name != "sobol" else {}
            controller = build(name, SearchProblem(GENES, 0, len(TASKS), (1.0,) * len(TASKS), budget=10**6), options)
            chance, times, number = np.random.default_rng(0), [], 0
            for _ in range(4):
                begun = time.process_time()
                asked = controller.ask()
                for _ in asked:
                    controller.tell(number, tuple(chance.random(len(TASKS))))
                    number += 1
                times.append((time.process_time() - begun) / max(1, len(asked)))
            print(f"| {name} | {population:,} | {spread(times)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["archive", "messages", "controllers", "ray"])
    parser.add_argument("--folder", type=Path, help="where archives are written; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        parts: dict[str, Callable[[], None]] = {
            "archive": lambda: archive(Path(scratch)),
            "messages": messages,
            "controllers": controllers,
            "ray": ray_wait,
        }
        for name in given.parts:
            parts[name]()
            print()


if __name__ == "__main__":
    main()
