"""A small synthetic search that tests run, kill and resume, in this process or in others.

As a program:  python -m tests.loop.world FOLDER KEY=VALUE ...   starts the search, or resumes it where there is one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evomerge.archive import Archive
from evomerge.archive._event_kinds import PAYLOADS
from evomerge.candidate import Candidate, Evaluation, Objective, Response, Score
from evomerge.controllers import Controller, SearchProblem, build
from evomerge.loop import Budget, Progress, Rules, StopReason, run_search
from evomerge.recipe import Recipe, passthrough
from evomerge.scoring._synthetic import Lasting, SyntheticSpec, synthetic_recipe
from evomerge.workers import LocalPool, Pool

GENES = 4
TASKS = ("add", "sort")
ITEMS = 12
OPTIMA = {"add": (0.2, 0.8, 0.5, 0.5), "sort": (0.8, 0.2, 0.5, 0.5)}
OBJECTIVES = tuple(Objective(task, task, "acc") for task in TASKS)
PLAN = {task: tuple(f"{task}-{i}" for i in range(ITEMS)) for task in TASKS}
PARENTS = {"adder": (0.2, 0.8, 0.5, 0.5), "sorter": (0.8, 0.2, 0.5, 0.5)}


class SyntheticSpace:
    """Decodes a genotype to the recipe whose weights are its genes, coarsened to `levels` steps where given."""

    def __init__(self, levels: int | None = None) -> None:
        self.levels = levels

    def decode(self, genotype: np.ndarray) -> Recipe:
        genes = genotype if self.levels is None else np.round(genotype * self.levels) / self.levels
        return synthetic_recipe(genes)


def mean_fitness(number: int, responses: Sequence[Response]) -> Evaluation:
    values: dict[str, list[float]] = {}
    for response in responses:
        values.setdefault(response.task, []).append(response.value)
    scores = {task: Score(float(np.mean(of_task)), 0.0, len(of_task)) for task, of_task in values.items()}
    return Evaluation(number, scores)


@dataclass
class World:
    """One search over the synthetic landscape; the same fields give the same trace."""

    folder: Path
    controller: str = "cma-es"
    candidates: int = 30
    seed: int = 7
    options: dict[str, Any] = field(default_factory=dict)
    levels: int | None = None
    seconds: float | None = None
    limits: dict[str, Any] = field(default_factory=dict)  # of the budget, beside candidates and seconds
    rules: Rules = field(default_factory=Rules)
    staleness: int | None = None
    spec: SyntheticSpec = field(default_factory=lambda: SyntheticSpec(OPTIMA, parents=PARENTS))
    pool: Callable[[SyntheticSpec], Pool] = LocalPool

    def archive(self, watch: Callable[[str], None] | None = None) -> Archive:
        if Archive.exists(self.folder):
            return Archive.open(self.folder, read_only=False, watch=watch)
        return Archive.create(self.folder, {"seed": self.seed, "versions": {"test": 1}}, watch=watch)

    def run(
        self, watch: Callable[[str], None] | None = None, progress: Callable[[Progress], None] | None = None
    ) -> StopReason:
        return self.run_with(self.fresh_controller(), watch, progress)

    def fresh_controller(self) -> Controller:
        problem = SearchProblem(
            *(GENES, self.seed, len(OBJECTIVES), (1.0, 1.0)),
            budget=self.candidates,
            asynchronous=self.rules.asynchronous,
            staleness=self.staleness,
        )
        return build(self.controller, problem, self.options)

    def run_with(
        self,
        controller: Controller,
        watch: Callable[[str], None] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> StopReason:
        with self.archive(watch) as archive:
            if not archive.count("parent"):
                names = enumerate(PARENTS, start=1)
                archive.put_parents([Candidate(-i, passthrough(name), (), "parent", name) for i, name in names])
            pool = self.pool(self.spec)
            space, budget = SyntheticSpace(self.levels), Budget(self.candidates, self.seconds, **self.limits)
            try:
                return run_search(
                    *(archive, space, controller, pool, OBJECTIVES, PLAN, budget, mean_fitness, progress, self.rules)
                )
            finally:
                pool.close()


def check_payloads(archive: Archive) -> None:
    """Compare every event with the table of payloads: mypy cannot tie a kind to its payload."""
    for event in archive.events():
        form = PAYLOADS[event.kind]
        required, keys = form.__required_keys__, event.payload.keys()  # type: ignore[attr-defined]
        assert required <= keys <= form.__annotations__.keys(), event


def trace(folder: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on interruptions or workers: genes, recipes, answers, what was told."""
    with Archive.open(folder) as archive:
        candidates = list(archive.candidates())
        check_payloads(archive)
        return {
            "genes": {c.number: c.genotype for c in candidates},
            "digests": {c.number: c.recipe.digest for c in candidates},
            "answers": {
                c.number: {(r.task, r.item, r.metric): r.value for r in archive.responses("search", c.number)}
                for c in candidates
            },
            "observed": [(event.candidate, event.payload["fitness"]) for event in archive.events("observed")],
            "failures": {o.number: o.failure.kind for o in archive.outcomes() if o.failure is not None},
        }


def kill_at(moment: int) -> Callable[[str], None]:
    """Return a watcher that ends this process by SIGKILL at the `moment`-th event or commit."""
    seen = 0

    def watch(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def main(arguments: Sequence[str]) -> int:
    folder, *pairs = arguments
    given = dict(pair.split("=", 1) for pair in pairs)
    troubles: dict[int, Lasting | Literal["hang once"]] = {int(given["hangs"]): "hang once"} if "hangs" in given else {}
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, troubles=troubles, scratch=str(Path(folder).parent))
    world = World(Path(folder), given.get("controller", "cma-es"), int(given.get("candidates", 30)), spec=spec)
    moment = int(given.get("kill_at", 0))
    print("started", flush=True)
    reason = world.run(kill_at(moment) if moment else None)
    print(reason.name, flush=True)
    return 0 if reason.finished else 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
