"""Asynchronous against generational search: how busy the workers are, and how good the result is at equal budgets.

    python benchmarks/search/asynchronous.py [--seeds 20] [--candidates 300] [--out benchmarks/search/asynchronous.json]

Workers in virtual time whose jobs vary four-fold, the real loop, archive and CMA-ES. The landscape is synthetic, in
ten genes with two conflicting tasks of 40 right-or-wrong items each; the score is the best candidate's true ability,
so luck on items does not count. Every seed is run in both modes, with the same durations: the comparison is paired.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Evaluation, Objective, Response
from evomerge.controllers import SearchProblem, build
from evomerge.loop import Budget, Rules, run_search
from evomerge.scoring import estimate
from evomerge.scoring._synthetic import SyntheticEvaluator, SyntheticSpec, synthetic_recipe

sys.path.insert(0, str(Path(__file__).parent))
from virtual import VirtualPool, four_fold

GENES = 10
TASKS = ("left", "right")
OBJECTIVES = tuple(Objective(task, task, "acc") for task in TASKS)
PLAN = {task: tuple(f"{task}-{i}" for i in range(40)) for task in TASKS}


class Space:
    def decode(self, genotype: np.ndarray) -> Any:
        return synthetic_recipe(genotype)


def landscape(seed: int) -> SyntheticSpec:
    """Two optima at random places of the inner cube; at the centre of the cube half of the answers are right."""
    places = np.random.default_rng([seed, 1]).uniform(0.15, 0.85, (len(TASKS), GENES))
    return SyntheticSpec({task: tuple(place) for task, place in zip(TASKS, places, strict=True)}, steepness=40.0)


def mean_fitness(number: int, responses: tuple[Response, ...]) -> Evaluation:
    return Evaluation(number, {objective.name: estimate(responses, objective) for objective in OBJECTIVES})


def run(seed: int, workers: int, candidates: int, staleness: int | None, population: int | None) -> dict[str, float]:
    """Return busy share, virtual seconds and the true ability (logits, mean of the tasks) of the best by its items.

    Args:
        seed: of landscape, controller and durations.
        workers: how many.
        candidates: the budget.
        staleness: bound in asynchronous mode; None: generational.
        population: of CMA-ES; None: its default.
    """
    spec = landscape(seed)
    pool = VirtualPool(spec, workers, four_fold(seed))
    asynchronous = staleness is not None
    problem = SearchProblem(GENES, seed, len(TASKS), budget=candidates, asynchronous=asynchronous, staleness=staleness)
    controller = build("cma-es", problem, {"population": population} if population else {})
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of commits
    with (
        tempfile.TemporaryDirectory(dir=memory) as scratch,
        Archive.create(Path(scratch) / "run", {"seed": seed}) as archive,
    ):
        rules = Rules(asynchronous=asynchronous)
        run_search(
            *(archive, Space(), controller, pool, OBJECTIVES, PLAN, Budget(candidates), mean_fitness, None, rules)
        )
        told = {e.candidate: sum(e.payload["fitness"]) for e in archive.events("observed")}
        best = max(told, key=lambda number: (told[number], -number))
        late = [c for c in archive.candidates("search") if c.number >= candidates - 50]
        ages = [e.payload.get("staleness", 0) for e in archive.events("observed")]
        chosen = archive.candidate(best)
    evaluator = SyntheticEvaluator(spec)

    def ability(candidate: Candidate) -> float:
        return statistics.fmean(evaluator.ability(candidate, task) for task in TASKS)

    return {
        "busy": pool.busy_share(),
        "seconds": pool.now,
        "best": ability(chosen),
        "late": statistics.fmean(ability(one) for one in late),
        "staleness": statistics.fmean(ages),
        "most_stale": max(ages),
    }


def compare(workers: int, candidates: int, seeds: int, staleness: int, population: int | None) -> dict[str, Any]:
    """Return a row: medians and range of both modes, and a paired test of the difference in true ability."""
    modes = {
        name: [run(seed, workers, candidates, bound, population) for seed in range(seeds)]
        for name, bound in (("generational", None), ("asynchronous", staleness))
    }
    gaps = np.array([b["best"] - a["best"] for a, b in zip(modes["generational"], modes["asynchronous"], strict=True)])
    reach = stats.t.ppf(0.975, seeds - 1) * gaps.std(ddof=1) / np.sqrt(seeds)
    row: dict[str, Any] = {"workers": workers, "population": population, "staleness": staleness, "seeds": seeds}
    for name, runs in modes.items():
        for key in runs[0]:
            values = sorted(one[key] for one in runs)
            row[f"{name}.{key}"] = [values[0], statistics.median(values), values[-1]]
    row["gap"], row["gap_low"], row["gap_high"] = (
        float(gaps.mean()),
        float(gaps.mean() - reach),
        float(gaps.mean() + reach),
    )
    row["p_worse"] = float(stats.wilcoxon(gaps, alternative="less").pvalue) if gaps.any() else 1.0
    return row


def line(row: dict[str, Any]) -> str:
    def shown(key: str, scale: float = 1.0, digits: int = 2) -> str:
        low, middle, high = (scale * value for value in row[key])
        return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    faster = row["generational.seconds"][1] / row["asynchronous.seconds"][1]
    return (
        f"| {row['workers']} | {row['population'] or 'default'} | {row['staleness']} "
        f"| {shown('generational.busy', 100, 1)} | {shown('asynchronous.busy', 100, 1)} | {faster:.2f} "
        f"| {shown('generational.best')} | {shown('asynchronous.best')} "
        f"| {row['gap']:+.3f} [{row['gap_low']:+.3f}, {row['gap_high']:+.3f}] | {row['p_worse']:.2f} "
        f"| {row['asynchronous.staleness'][1]:.1f}, {row['asynchronous.most_stale'][2]:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--staleness", type=int, nargs="+", default=[8])
    parser.add_argument("--populations", type=int, nargs="+", default=[0], help="0: the default")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    print(
        "| workers | population | bound | busy %, generational | busy %, asynchronous | times faster "
        "| best, generational | best, asynchronous | paired gap, 95% | p (worse) | staleness: mean, most |"
    )
    print("|---" * 11 + "|")
    rows = []
    for workers in given.workers:
        for population in given.populations:
            for staleness in given.staleness:
                rows.append(compare(workers, given.candidates, given.seeds, staleness, population or None))
                print(line(rows[-1]), flush=True)
    if given.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        origin = {"commit": commit, "candidates": given.candidates, "genes": GENES}
        given.out.write_text(json.dumps({"origin": origin, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
