"""Search quality at equal budgets: hypervolume and held-out score after 100 and 300 candidates, against peers.

    python benchmarks/search/quality.py [--problems ...] [--methods ...] [--seeds 10]     goes on where it stopped
    python benchmarks/search/quality.py --table                                           writes quality.md and .svg

Every method sees the same pinned items and the same number of candidates. What counts is held out: the hypervolume of
the true scores of the front that the method measured, as a share of the best possible; and the true score of the
candidate that it would call the best. Curves are kept every 10 candidates in `quality.jsonl`, one line per search.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evomerge.pareto.dominance import non_dominated
from evomerge.pareto.hypervolume import hypervolume

sys.path.insert(0, str(Path(__file__).parent))
import methods
import problems

HERE = Path(__file__).parent
RESULTS = HERE / "quality.jsonl"
BUDGET = 300
STEP = 10
SHOWN = (100, 300)


def search(problem: problems.Problem, name: str, seed: int) -> dict[str, Any]:
    """Run one search and return its curves, each with BUDGET / STEP values."""
    points: list[np.ndarray] = []
    fitness: list[np.ndarray] = []

    def evaluate(genotype: np.ndarray) -> np.ndarray:
        points.append(np.array(genotype, dtype=float))
        fitness.append(problem.measured(points[-1]))
        return fitness[-1]

    started = time.process_time()
    methods.method(name)(evaluate, problem.genes, len(problem.reference), BUDGET, seed)
    seconds = time.process_time() - started
    truths = np.array([problem.truth(point) for point in points])
    measured = np.array(fitness)
    ends = [min(end, len(points)) for end in range(STEP, BUDGET + 1, STEP)]  # a method may stop before its budget
    return {
        "problem": problem.name,
        "method": name,
        "seed": seed,
        "candidates": len(points),
        "cpu_seconds": round(seconds, 3),
        "measured": [hypervolume(measured[:end], problem.reference) for end in ends],
        "held_out": [_held_out_volume(measured[:end], truths[:end], problem) for end in ends],
        "best": [float(truths[_best(measured[:end])].mean()) for end in ends],
    }


def _held_out_volume(measured: np.ndarray, truths: np.ndarray, problem: problems.Problem) -> float:
    """Return the hypervolume, as a share of the best possible, of the truths of the measured front."""
    return hypervolume(truths[non_dominated(measured)], problem.reference) / problem.ceiling


def _best(measured: np.ndarray) -> int:
    return int(np.argmax(measured.mean(axis=1)))


def run(names: list[str], which: list[str], seeds: int) -> None:
    """Run what is not in the results yet, seed by seed, so that comparisons stay paired whenever it is stopped."""
    done = {(row["problem"], row["method"], row["seed"]) for row in stored()}
    for seed in range(seeds):
        for problem_name in which:
            if all((problem_name, name, seed) in done for name in names):
                continue
            problem = problems.problem(problem_name, seed)
            for name in names:
                if (problem_name, name, seed) in done:
                    continue
                row = search(problem, name, seed)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{problem_name}  seed {seed}  {name}: {row['held_out'][-1]:.3f}", flush=True)


def stored() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the comparison as Markdown: one table per problem, each method paired with the best of ours."""
    parts = []
    for name in dict.fromkeys(row["problem"] for row in rows):
        runs = {
            key: _by_seed(rows, name, key) for key in dict.fromkeys(r["method"] for r in rows if r["problem"] == name)
        }
        seeds = sorted(set.intersection(*(set(of_method) for of_method in runs.values())))
        if len(seeds) < 2:
            continue
        parts.append(_problem_table(name, {key: [of[seed] for seed in seeds] for key, of in runs.items()}))
    return "\n".join(parts)


def _by_seed(rows: list[dict[str, Any]], problem: str, method: str) -> dict[int, dict[str, Any]]:
    return {row["seed"]: row for row in rows if row["problem"] == problem and row["method"] == method}


def _problem_table(name: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    def at(rows: list[dict[str, Any]], key: str, count: int) -> np.ndarray:
        return np.array([row[key][count // STEP - 1] for row in rows])

    mine = [key for key in runs if key.startswith("evomerge")]
    champion = max(mine, key=lambda key: float(np.median(at(runs[key], "held_out", SHOWN[-1]))))
    seeds = len(next(iter(runs.values())))
    head = " | ".join(f"{what} at {count}" for what in ("hypervolume", "p", "best held-out", "p") for count in SHOWN)
    lines = [f"\n### {name}, {seeds} seeds; p: {champion} is no better (paired, one-sided Wilcoxon)\n"]
    lines += [f"| method | {head} |", "|---" * 9 + "|"]
    order = sorted(runs, key=lambda key: -float(np.median(at(runs[key], "held_out", SHOWN[-1]))))
    for key in order:
        cells = []
        for what in ("held_out", "best"):
            values = [at(runs[key], what, count) for count in SHOWN]
            gaps = [at(runs[champion], what, count) - value for count, value in zip(SHOWN, values, strict=True)]
            cells += [f"{np.median(v):.3f} ({v.min():.3f} to {v.max():.3f})" for v in values]
            cells += ["" if key == champion else _p(gap) for gap in gaps]
        lines.append(
            f"| {'**' if key == champion else ''}{key}{'**' if key == champion else ''} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _p(gaps: np.ndarray) -> str:
    return f"{stats.wilcoxon(gaps, alternative='greater').pvalue:.3f}" if gaps.any() else "1"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw medians with quartiles over seeds, a panel per problem."""
    import altair as alt
    import pandas as pd

    points = [
        {"problem": row["problem"], "method": row["method"], "candidates": (i + 1) * STEP, "hypervolume": value}
        for row in rows
        for i, value in enumerate(row["held_out"])
    ]
    base = alt.Chart(pd.DataFrame(points)).encode(x="candidates:Q", color="method:N")
    band = base.mark_errorband(extent="iqr", opacity=0.15).encode(y=alt.Y("hypervolume:Q"))
    middle = base.mark_line().encode(
        y=alt.Y("median(hypervolume):Q", title="held-out hypervolume, share of the best possible").scale(zero=False)
    )
    chart = (band + middle).properties(width=300, height=260).facet("problem:N").resolve_scale(y="independent")
    chart.save(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(problems.NAMES), choices=problems.NAMES)
    parser.add_argument("--methods", nargs="+", default=methods.NAMES, choices=methods.NAMES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table", action="store_true", help="only write table and plot of what is there")
    given = parser.parse_args()
    if not given.table:
        run(given.methods, given.problems, given.seeds)
    rows = stored()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    head = (
        f"# Search quality at equal budgets\n\nMedian (lowest to highest) over seeds; made by `quality.py`, commit "
        f"{commit}, {platform.machine()}, {os.cpu_count()} cores. Hypervolume: of the true scores of the measured front, "
        "as a share of the best possible. Best held-out: true mean score of the candidate that measured best.\n"
    )
    (HERE / "quality.md").write_text(head + table(rows))
    plot(rows, HERE / "quality.svg")
    print(table(rows))


if __name__ == "__main__":
    main()
