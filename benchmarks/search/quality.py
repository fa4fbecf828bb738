"""Search quality at equal budgets: hypervolume and held-out score after 100 and 300 candidates, against peers.

    python benchmarks/search/quality.py [--problems ...] [--methods ...] [--seeds 10]     goes on where it stopped
    python benchmarks/search/quality.py --table                                           writes quality.md and .svg

Every method sees the same pinned items and the same number of candidates. What counts: the hypervolume of the measured
front; the hypervolume of that front's true scores, on items held out; and the true score of the candidate that it would
call the best. Curves are kept every 10 candidates in `quality.jsonl`, one line per search; live problems are judged at
`JUDGED` only, since a held-out answer costs as much as any other.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evomerge.controllers import SearchProblem, choose
from evomerge.pareto import hypervolume, non_dominated

sys.path.insert(0, str(Path(__file__).parent))
import methods
import problems

HERE = Path(__file__).parent
RESULTS = HERE / "quality.jsonl"
BUDGET = 300
STEP = 10
SHOWN = (100, 300)
COLUMNS = {"measured": "hypervolume", "held_out": "held-out hypervolume", "best": "best held-out"}
JUDGED = (50, 100, 200, 300)  # candidates after which a live problem's front is judged by held-out answers


def search(problem: problems.Problem, name: str, seed: int) -> dict[str, Any]:
    """Run one search and return its curves, each with BUDGET / STEP values."""
    points: list[np.ndarray] = []
    fitness: list[np.ndarray] = []

    def evaluate(genotype: np.ndarray) -> np.ndarray:
        points.append(np.array(genotype, dtype=float))
        fitness.append(problem.measured(points[-1]))
        return fitness[-1]

    started = time.process_time()
    of_problem = (problem.genes, len(problem.reference), BUDGET, seed)
    methods.method(name, (problem.items,) * len(problem.reference))(evaluate, *of_problem)
    seconds = time.process_time() - started
    measured = np.array(fitness)
    ends = [min(end, len(points)) for end in range(STEP, BUDGET + 1, STEP)]  # a method may stop before its budget
    judged = [end if problem.quick or place * STEP in JUDGED else None for place, end in enumerate(ends, 1)]
    truths = _truths(problem, points, measured, [end for end in judged if end is not None])
    return {
        "problem": problem.name,
        "method": name,
        "seed": seed,
        "candidates": len(points),
        "cpu_seconds": round(seconds, 3),
        "measured": [round(hypervolume(measured[:end], problem.reference), 5) for end in ends],
        "held_out": [end and round(_held_out_volume(measured[:end], truths[:end], problem), 5) for end in judged],
        "best": [end and round(float(truths[_best(measured[:end])].mean()), 5) for end in judged],
    }


def _truths(problem: problems.Problem, points: list[np.ndarray], measured: np.ndarray, ends: list[int]) -> np.ndarray:
    """Return the true scores (n, m) of the points that some end calls its front or its best; NaN for all others."""
    wanted = {int(row) for end in ends for row in np.flatnonzero(non_dominated(measured[:end]))}
    wanted |= {_best(measured[:end]) for end in ends}
    truths = np.full(measured.shape, np.nan)
    for row in sorted(wanted):
        truths[row] = problem.truth(points[row])
    return truths


def _held_out_volume(measured: np.ndarray, truths: np.ndarray, problem: problems.Problem) -> float:
    """Return the hypervolume, as a share of the best possible, of the truths of the measured front."""
    return hypervolume(truths[non_dominated(measured)], problem.reference) / problem.ceiling


def _best(measured: np.ndarray) -> int:
    return int(np.argmax(measured.mean(axis=1)))


def run(names: list[str], which: list[str], seeds: int, results: Path) -> None:
    """Run what is not in the results yet, seed by seed, so that comparisons stay paired whenever it is stopped."""
    done = {(row["problem"], row["method"], row["seed"]) for row in stored(results)}
    for seed in range(seeds):
        for problem_name in which:
            if all((problem_name, name, seed) in done for name in names):
                continue
            problem = problems.problem(problem_name, seed)
            for name in names:
                if (problem_name, name, seed) in done:
                    continue
                row = search(problem, name, seed)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{problem_name}  seed {seed}  {name}: {row['held_out'][-1]:.3f}", flush=True)


def stored(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the comparison as Markdown: a table per problem, each method paired by seed with what `auto` chooses."""
    parts = []
    for name in (name for name in problems.NAMES if any(row["problem"] == name for row in rows)):
        runs: dict[str, dict[int, dict[str, Any]]] = {}
        for row in rows:
            if row["problem"] == name:
                runs.setdefault(row["method"], {})[row["seed"]] = row
        parts.append(_problem_table(name, runs))
    return "\n".join(parts)


def champion(problem: str, runs: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Return our method that the others are compared with: what `auto` chooses, named before anything is measured.

    Where that has not been run, the one of ours with most seeds.
    """
    genes, objectives = problems.SHAPES[problem]
    chosen = f"evomerge {choose(SearchProblem(genes, objectives=objectives, budget=BUDGET)).name}"
    mine = [method for method in runs if method.startswith("evomerge")]
    return chosen if chosen in runs else max(mine, key=lambda method: len(runs[method]))


def _problem_table(name: str, runs: dict[str, dict[int, dict[str, Any]]]) -> str:
    def values(method: str, key: str, count: int) -> dict[int, float]:
        return {seed: row[key][count // STEP - 1] for seed, row in runs[method].items()}

    def median(method: str) -> float:
        return float(np.median(list(values(method, "measured", SHOWN[-1]).values())))

    ours = champion(name, runs)
    columns = [(key, count) for key in ("measured", "held_out") for count in SHOWN] + [("best", SHOWN[-1])]
    head = " | ".join(f"{COLUMNS[key]} at {count} | p" for key, count in columns)
    lines = [f"\n### {name}\n\np: {ours} is no better (paired over common seeds, one-sided Wilcoxon)\n"]
    lines += [f"| method | seeds | {head} |", "|---" * (2 + 2 * len(columns)) + "|"]
    for method in sorted(runs, key=median, reverse=True):
        cells = [f"**{method}**" if method == ours else method, str(len(runs[method]))]
        for key, count in columns:
            mine, its = values(ours, key, count), values(method, key, count)
            found = list(its.values())
            cells.append(f"{np.median(found):.3f} ({min(found):.3f} to {max(found):.3f})")
            gaps = np.array([mine[seed] - its[seed] for seed in sorted(mine.keys() & its.keys())])
            cells.append("" if method == ours else _p(gaps))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _p(gaps: np.ndarray) -> str:
    return f"{stats.wilcoxon(gaps, alternative='greater').pvalue:.3f}" if len(gaps) > 1 and gaps.any() else "-"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw medians with quartiles over seeds: a column per problem, measured above, held out below."""
    import altair as alt
    import pandas as pd

    points = pd.DataFrame(
        [
            {"problem": row["problem"], "method": row["method"], "candidates": (i + 1) * STEP, "kind": key, "y": value}
            for row in rows
            for key in ("measured", "held_out")
            for i, value in enumerate(row[key])
            if value is not None
        ]
    )
    layers = []
    for key in ("measured", "held_out"):
        base = alt.Chart(points[points["kind"] == key]).encode(x="candidates:Q", color="method:N")
        band = base.mark_errorband(extent="iqr", opacity=0.15).encode(y=alt.Y("y:Q"))
        middle = base.mark_line().encode(y=alt.Y("median(y):Q", title=COLUMNS[key]).scale(zero=False))
        layers.append((band + middle).properties(width=280, height=220).facet("problem:N"))
    chart = alt.vconcat(*(layer.resolve_scale(y="independent") for layer in layers))
    chart.save(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(problems.REPORTED), choices=problems.NAMES)
    parser.add_argument("--methods", nargs="+", default=methods.NAMES, choices=methods.NAMES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept, one line per search")
    parser.add_argument("--table", action="store_true", help="only write table and plot of what is there")
    given = parser.parse_args()
    if not given.table:
        run(given.methods, given.problems, given.seeds, given.results)
    rows = stored(given.results)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    head = (
        "# Search quality at equal budgets\n\nMedian (lowest to highest) over seeds; made by `quality.py`, commit "
        f"{commit}, {platform.machine()}. Hypervolume: of the measured front on the search items, above the worst "
        "parents. Held-out hypervolume: of that front's true scores, as a share of the best possible (experts: of a "
        "model without mistakes). Best held-out: true mean score of the candidate that measured best.\n"
    )
    (HERE / "quality.md").write_text(head + table(rows))
    plot(rows, HERE / "quality.svg")
    print(table(rows))


if __name__ == "__main__":
    main()
