"""A search that stops and goes on, followed by real tools; only the model is made up."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from evomerge.archive import Archive
from evomerge.candidate import Candidate
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, Rules, evaluate, run_search
from evomerge.recipe import passthrough
from evomerge.reports import tracked
from evomerge.reports.trackers._writer import Join
from evomerge.runs import Run, evaluation_of, finalists, open_run
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.space import build_space
from evomerge.workers import LocalPool, Pool
from tests.commands.made import HELD, ITEMS, MERGE, OBJECTIVES, OPTIMA, PARENTS, config

FILE = "controller: {name: sobol}\nscoring: {items: 40}\nmerge: {parameters: {weight: {search: [0.0, 1.0]}}}\n"
FAILS = 3  # the candidate that fails


@dataclass
class Followed:
    """One run folder; each `session` searches up to a number of candidates and ends, or is interrupted."""

    folder: Path
    said: list[str] = field(default_factory=list)
    join: Join = threading.Thread.join  # waits for the end of a thread that writes

    def session(self, candidates: int, log: list[str] | None = None, *, end: bool = False) -> Run:
        """Go on up to this many candidates, told to `log`; then score held-out items where it is the end."""
        new = not Archive.exists(self.folder)
        archive = (
            Archive.create(self.folder, config(64, search_text=FILE).to_json())
            if new
            else Archive.open(self.folder, read_only=False)
        )
        with archive:
            if new:
                parents = enumerate(PARENTS)
                archive.put_parents([Candidate(-1 - i, passthrough(f"org/{n}"), (), "parent", n) for i, n in parents])
            else:
                archive.put_event("resumed", None, {})
            with tracked(archive, log, self.said.append, seconds=0.01, join=self.join):
                pool = LocalPool(SyntheticSpec(OPTIMA, parents=PARENTS, troubles={FAILS: "candidate"}))
                search(archive, pool, candidates)
                if end:
                    hold_out(archive, pool)
                    archive.put_event("ended")
                else:
                    archive.put_event("interrupted")
        return open_run(self.folder)


def search(archive: Archive, pool: Pool, candidates: int, rules: Rules | None = None) -> None:
    space = build_space(MERGE, layers=4, modules={}, mask_seed=3)
    controller = build("sobol", SearchProblem(dimensions=2, seed=3, objectives=2))
    fitness = lambda number, responses: evaluation_of(number, responses, OBJECTIVES)  # noqa: E731
    run_search(archive, space, controller, pool, OBJECTIVES, ITEMS, Budget(candidates), fitness, rules=rules)


def hold_out(archive: Archive, pool: Pool) -> None:
    done = {c.number: c for c in archive.candidates() if (o := archive.outcome(c.number)) and o.done}
    found = {n: evaluation_of(n, archive.responses("search", n), OBJECTIVES) for n in done if n >= 0}
    best = [done[n] for n in finalists(found, OBJECTIVES)]
    evaluate(archive, pool, [*(c for n, c in done.items() if n < 0), *best], "holdout", HELD)


def expected(run: Run, key: str) -> dict[int, float]:
    """Return candidate -> value of a metric, from the run's own frames."""
    kind, _, name = key.partition("/")
    if kind in ("score", "stderr"):
        table = run.trials().set_index("candidate")[f"{kind}.{name}"].dropna()
    else:
        columns = {"overall/best": "best", "front/size": "front_size", "front/hypervolume": "hypervolume"}
        table = run.tables.history().set_index("candidate")[columns[key]]
    return {int(number): float(value) for number, value in table.items()}


COMPARED = ("score/left", "stderr/right", "overall/best", "front/size", "front/hypervolume")


def agrees(found: dict[int, float], run: Run, key: str) -> bool:
    """True where a tool's values of a metric are the run's, at every scored candidate.

    What belongs to the search is written for the candidate that failed too, as it was before it.
    """
    wanted = expected(run, key)
    if not key.startswith(("score", "stderr")):
        wanted[FAILS] = wanted[FAILS - 1]
    assert sorted(found) == sorted(wanted), key
    return all(abs(found[number] - wanted[number]) <= 1e-6 * max(1.0, abs(wanted[number])) for number in wanted)
