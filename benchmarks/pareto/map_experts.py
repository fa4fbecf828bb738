"""The same comparison as `map_front` on the shipped experts: real merges, real lm-eval tasks, some items of each.

All candidates answer the same items, so that the fronts are compared on what was measured, not on luck with items.

    python -m benchmarks.pareto.map_experts --large 2000 --seeds 3 --out benchmarks/pareto
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np

from benchmarks.pareto.map_front import EVALUATIONS, searched
from evomerge.candidate import Answers, Candidate, Job, Response
from evomerge.commands._prepare import prepare
from evomerge.config import load_search_file
from evomerge.controllers._quadratic_front import fits_to
from evomerge.pareto import hypervolume
from evomerge.runs import evaluation_of
from evomerge.surrogates import check_front, predicted_front
from evomerge.surrogates._predicted_front import describe

FILE = Path(__file__).with_name("map_experts.yaml")
OTHERS = ("sobol", "nsga-ii", "tpe", "cma-es")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=2000, help="candidates of NSGA-II")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--front", type=int, default=150, help="predicted points that are evaluated")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    preparation = prepare(load_search_file(FILE))
    worker, space, objectives = preparation.spec.build(), preparation.space, preparation.objectives
    m = len(objectives)
    items = len(next(iter(preparation.plan.search.values())))
    known: dict[str, list[float]] = {}

    def scores(points: np.ndarray) -> np.ndarray:
        table = []
        for point in points:
            recipe = space.decode(np.asarray(point))
            if recipe.digest not in known:
                responses: list[Response] = []
                for result in worker.evaluate(Job(Candidate(0, recipe), "search", preparation.plan.search)):
                    if isinstance(result, Answers):
                        responses += result.responses
                values = evaluation_of(0, responses, objectives).fitness(objectives)
                assert values is not None
                known[recipe.digest] = list(values)
            table.append(known[recipe.digest])
        return np.array(table)

    reference = scores(np.vstack([np.zeros(m), np.eye(m)])).min(axis=0)
    rows = []
    for seed in range(arguments.seeds):
        points, values = searched("quadratic", scores, m, m, EVALUATIONS, seed, items)
        fits = fits_to(points, values, (items,) * m)
        front = predicted_front(fits, np.random.default_rng(seed), size=arguments.front, start=points)
        real = scores(front.c)
        check = check_front(describe(fits, front.c), real)
        row = {"seed": seed, "measured": hypervolume(values, reference), "predicted": hypervolume(real, reference)}
        row |= {"both": hypervolume(np.vstack([values, real]), reference), "coverage": float(check.coverage.mean())}
        row |= {"loo_r2": [float(fit.diagnostics.loo_r2) for fit in fits], "bias": float(check.bias.mean())}
        for other in OTHERS:
            row[other] = hypervolume(searched(other, scores, m, m, EVALUATIONS, seed, items)[1], reference)
        rows.append(row)
        print(json.dumps(row), flush=True)
    started = time.process_time()
    _, large = searched("nsga-ii", scores, m, m, arguments.large, 0, items)
    whole = hypervolume(large, reference)
    history = [hypervolume(large[:n], reference) / whole for n in (40, 100, 300, 1000) if n <= len(large)]
    print(
        f"NSGA-II {arguments.large}: {whole:.4f}, {time.process_time() - started:.0f} s of CPU, {history}", flush=True
    )
    columns = ["measured", "predicted", "both", *OTHERS]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"Commit {commit}. Shares of the hypervolume of {arguments.large} candidates of NSGA-II ({whole:.4f}; its "
        f"first 40, 100, 300, 1,000 candidates: {', '.join(f'{share:.3f}' for share in history)}); predicted: "
        f"{arguments.front} points, evaluated. {items} items per task, the same for all.",
        "",
        "| seed | " + " | ".join(columns) + " | coverage | left-out R2 |",
        "|---|" + "---:|" * (len(columns) + 2),
    ]
    for row in rows:
        cells = [f"{row[column] / whole:.3f}" for column in columns]
        r2 = ", ".join(f"{value:.2f}" for value in row["loo_r2"])
        lines.append(f"| {row['seed']} | {' | '.join(cells)} | {row['coverage']:.2f} | {r2} |")
    print("\n".join(lines))
    if arguments.out is not None:
        (arguments.out / "map_experts.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
