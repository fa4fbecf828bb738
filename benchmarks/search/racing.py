"""Racing against answering everything: items asked, and the true ability of the best, at equal numbers of candidates.

    python benchmarks/search/racing.py [--seeds 10] [--candidates 150] [--first 10]

CMA-ES on the synthetic landscape of `asynchronous.py`, through the real loop and archive. Every seed is run both ways.
'Stopped wrongly' is what the error rate is about: of the candidates that would have scored, on all items, at least what
their incumbent scored, the share that was stopped. The scorer is asked afterwards what they would have answered.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evomerge.archive import Archive
from evomerge.candidate import Answers, Candidate, Job
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, Racing, Rules, run_search
from evomerge.recipe import passthrough
from evomerge.scoring._synthetic import SyntheticEvaluator

sys.path.insert(0, str(Path(__file__).parent))
from asynchronous import GENES, OBJECTIVES, TASKS, Space, landscape, mean_fitness
from virtual import VirtualPool, four_fold

ITEMS = 100  # per task
PLAN = {task: tuple(f"{task}-{i}" for i in range(ITEMS)) for task in TASKS}


def run(seed: int, candidates: int, racing: Racing | None) -> dict[str, float]:
    """Return items asked per candidate and task, the best's true ability, and the share that was stopped wrongly."""
    spec = landscape(seed)
    evaluator = SyntheticEvaluator(spec)

    def ability(candidate: Candidate) -> float:
        return statistics.fmean(evaluator.ability(candidate, task) for task in TASKS)

    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as scratch,
        Archive.create(Path(scratch) / "run", {"seed": seed}) as archive,
    ):
        archive.put_parents([Candidate(-1, passthrough("parent"), (), "parent", "parent")])
        pool = VirtualPool(spec, 8, four_fold(seed))
        controller = build("cma-es", SearchProblem(GENES, seed, len(TASKS), budget=candidates))
        rules = Rules(racing=racing)
        run_search(
            *(archive, Space(), controller, pool, OBJECTIVES, PLAN, Budget(candidates), mean_fitness, None, rules)
        )
        asked = {n: len(archive.responses("search", n)) / len(TASKS) for n in range(candidates)}
        told = {e.candidate: sum(e.payload["fitness"]) for e in archive.events("observed")}
        whole = [number for number in told if asked[number] == ITEMS]
        best = archive.candidate(max(whole, key=lambda number: (told[number], -number)))
        verdicts = {event.candidate or 0: event.payload for event in archive.events("raced")}
        people = {one.number: one for one in archive.candidates()}
    full = {number: _full(evaluator, people[number]) for number in {*verdicts, *_incumbents(verdicts)}}
    ahead = [n for n, verdict in verdicts.items() if full[n] >= full[verdict["incumbent"]]]
    stopped = [n for n in ahead if not verdicts[n]["promoted"]]
    return {
        "items": statistics.fmean(asked.values()),
        "best": ability(best),
        "ahead": len(ahead),
        "stopped": len(stopped),
    }


def _full(evaluator: SyntheticEvaluator, candidate: Candidate) -> float:
    """Return the mean answer to all items."""
    *answers, _ = evaluator.evaluate(Job(candidate, "search", PLAN))
    return statistics.fmean(r.value for part in answers if isinstance(part, Answers) for r in part.responses)


def _incumbents(verdicts: dict[int, Mapping[str, Any]]) -> set[int]:
    return {verdict["incumbent"] for verdict in verdicts.values()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=150)
    parser.add_argument("--first", type=int, default=10)
    parser.add_argument("--error", type=float, default=0.05)
    given = parser.parse_args()
    plain = [run(seed, given.candidates, None) for seed in range(given.seeds)]
    raced = [run(seed, given.candidates, Racing(given.first, given.error)) for seed in range(given.seeds)]
    gaps = np.array([b["best"] - a["best"] for a, b in zip(plain, raced, strict=True)])
    reach = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    print(f"{given.seeds} seeds, {given.candidates} candidates, {ITEMS} items per task, first {given.first}")
    print("| | items per candidate: lowest, median, highest | best's ability, logits | stopped wrongly |")
    print("|---|---|---|---|")
    for name, runs in (("everything", plain), ("racing", raced)):
        items, best = (sorted(one[key] for one in runs) for key in ("items", "best"))
        stopped, ahead = (int(sum(one[key] for one in runs)) for key in ("stopped", "ahead"))
        print(
            f"| {name} | {items[0]:.0f}, {statistics.median(items):.0f}, {items[-1]:.0f} "
            f"| {statistics.median(best):.2f} ({best[0]:.2f} to {best[-1]:.2f}) | {stopped} of {ahead} |"
        )
    interval = f"[{gaps.mean() - reach:+.3f}, {gaps.mean() + reach:+.3f}]"
    print(f"\nracing minus everything, paired: {gaps.mean():+.3f} {interval}")


if __name__ == "__main__":
    main()
