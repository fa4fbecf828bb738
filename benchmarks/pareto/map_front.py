"""How much of a front 40 evaluations find: the quadratic controller against 2,000 candidates of NSGA-II.

Worlds: merges of small NumPy networks, whose accuracies have plateaus and cliffs (K experts, one objective each), and
saturating synthetic accuracies. Per seed, hypervolumes above the worst parent of
  measured   the front among the 40 evaluated candidates,
  predicted  the 500 points that the surrogates call the front after those 40, evaluated for real,
  other controllers with the same 40 candidates (their measured fronts),
as shares of the hypervolume of all 2,000 candidates of NSGA-II. 10 seeds: other networks, other points.

    python -m benchmarks.pareto.map_front --seeds 10 --out benchmarks/pareto
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.controllers import SearchProblem, build
from evomerge.controllers._quadratic_front import fits_to
from evomerge.pareto import hypervolume
from evomerge.surrogates import check_front, predicted_front, reliability_warnings
from evomerge.surrogates._predicted_front import describe

Scores = Callable[[np.ndarray], np.ndarray]  # points (n, d) -> scores (n, m)
EVALUATIONS, LARGE, FRONT = 40, 2000, 500
OTHERS = ("sobol", "nsga-ii", "tpe", "cma-es")


def networks(experts: int, seed: int) -> tuple[Scores, np.ndarray, int]:
    """Return scores, the parents' points and the items of merges of small networks; weights in [0, 1]."""
    from tests.surrogates.tiny_merges import make

    items = 400
    world = make(experts, seed, test_items=items)
    return world.scores, np.vstack([np.zeros(experts), np.eye(experts)]), items


def saturating(experts: int, seed: int) -> tuple[Scores, np.ndarray, int]:
    """Return accuracies that rise with the own expert's weight, then break down, and suffer from the others'."""
    rng = np.random.default_rng(seed)
    best = rng.uniform(0.5, 0.9, experts)
    harm = rng.uniform(0.05, 0.5, (experts, experts))
    width = rng.uniform(0.5, 0.9, experts)

    def scores(points: np.ndarray) -> np.ndarray:
        table = np.empty((len(points), experts))
        for t in range(experts):
            others = np.delete(points, t, axis=1) @ np.delete(harm[t], t)
            gain = np.exp(-(((points[:, t] - best[t]) / width[t]) ** 2) - others**2)
            table[:, t] = np.round(400 * (0.25 + 0.7 * gain)) / 400  # a share of 400 items
        return table

    return scores, np.vstack([np.zeros(experts), np.eye(experts)]), 400


WORLDS = {"networks": networks, "saturating": saturating}


def searched(
    name: str, scores: Scores, d: int, m: int, count: int, seed: int, items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points and scores of the first `count` candidates of a controller."""
    options = (
        {"nsga-ii": {"population": 50}} if count > 100 else {"nsga-ii": {"population": 10}, "tpe": {"startup": 10}}
    )
    controller = build(name, SearchProblem(d, seed, m, budget=count, items=(items,) * m), options.get(name, {}))
    points: list[np.ndarray] = []
    table: list[np.ndarray] = []
    while len(points) < count and not controller.stop():
        batch = controller.ask()
        values = scores(np.array(batch))
        for point, row in zip(batch, values, strict=True):
            controller.tell(len(points), row.tolist())
            points.append(point)
            table.append(row)
    return np.array(points[:count]), np.array(table[:count])


def one(world: str, experts: int, seed: int) -> dict[str, Any]:
    """Return the shares of one seed."""
    scores, parents, items = WORLDS[world](experts, seed)
    reference = scores(parents).min(axis=0)
    _, large = searched("nsga-ii", scores, experts, experts, LARGE, seed, items)
    whole = hypervolume(large, reference)
    started = time.process_time()
    points, values = searched("quadratic", scores, experts, experts, EVALUATIONS, seed, items)
    seconds = time.process_time() - started
    fits = fits_to(points, values, (items,) * experts)
    front = predicted_front(fits, np.random.default_rng(seed), size=FRONT, start=points)
    real = scores(front.c)
    believed = check_front(describe(fits, front.c), real) if fits[0].link.name == "logit" else None
    row: dict[str, Any] = {
        "world": world,
        "experts": experts,
        "seed": seed,
        "measured": hypervolume(values, reference) / whole,
        "predicted": hypervolume(real, reference) / whole,
        "both": hypervolume(np.vstack([values, real]), reference) / whole,
        "coverage": None if believed is None else float(believed.coverage.mean()),
        "bias": None if believed is None else float(believed.bias.mean()),
        "loo_r2": [float(fit.diagnostics.loo_r2) for fit in fits],
        "doubts": reliability_warnings(fits, front),
        "ask_seconds": seconds,
    }
    for other in OTHERS:
        _, found = searched(other, scores, experts, experts, EVALUATIONS, seed, items)
        row[other] = hypervolume(found, reference) / whole
    return row


def table_text(rows: list[dict[str, Any]], commit: str) -> str:
    """Return the Markdown table: min / median / max over seeds."""
    columns = ["measured", "predicted", *OTHERS, "coverage"]
    lines = [
        f"Commit {commit}, {platform.machine()}, seeds 0 to {max(row['seed'] for row in rows)}.",
        "",
        "| world | experts | " + " | ".join(columns) + " |",
        "|---|---:|" + "---:|" * len(columns),
    ]
    for world, experts in sorted({(r["world"], r["experts"]) for r in rows}):
        mine = [r for r in rows if (r["world"], r["experts"]) == (world, experts)]
        cells = []
        for column in columns:
            values = [float(r[column]) for r in mine if r[column] is not None]
            shown = f"{min(values):.3f} / {np.median(values):.3f} / {max(values):.3f}" if values else ""
            cells.append(shown)
        lines.append(f"| {world} | {experts} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--experts", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for world in arguments.worlds:
        for experts in arguments.experts:
            for seed in range(arguments.seeds):
                rows.append(one(world, experts, seed))
                print(json.dumps(rows[-1]), flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    text = table_text(rows, commit)
    print(text)
    if arguments.out is not None:
        (arguments.out / "map_front.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (arguments.out / "map_front.md").write_text(text)


if __name__ == "__main__":
    main()
