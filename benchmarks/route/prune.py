"""Depth pruning: the front of a search against greedy removal at as many evaluations, and against all subsets.

    python benchmarks/route/prune.py [--experts spell add sort] [--items 100] [--seeds 5] [--out FILE]

Every subset of at least `FEWEST` of a model's eight layers is scored once on search items and on held-out items; that
table gives the best possible front. Greedy removal takes away, again and again, the layer whose loss costs least on
the search items. The searches look up what they propose in the table, until they have met as many different routes as
greedy removal needed. A front's hypervolume is taken on the search items, above score 0 and nine layers, as a share of
the best possible one. For every depth the best subset met (by search items) is shown with its held-out score.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from evomerge.candidate import Answers, Candidate, Job
from evomerge.controllers import SearchProblem, build
from evomerge.pareto import hypervolume
from evomerge.scoring import TaskSet, TaskSettings, metric_key, split
from evomerge.space import SearchSpace, build_space
from evomerge.workers import WorkerSpec

ROOT = Path(__file__).resolve().parents[2]
LAYERS, FEWEST = 8, 3
Subset = tuple[int, ...]
Table = dict[Subset, tuple[float, float]]  # layers that run -> score on search items, on held-out items
CONTROLLERS = {"evolution": {"population": 6}, "nsga-ii": {"population": 6}, "random": {"batch_size": 6}}


def space_of(model: str) -> SearchSpace:
    merge = {"merge_method": "passthrough", "models": [{"model": model}]}
    route = {"sources": [model], "preset": "select", "min_layers": FEWEST}
    return build_space(merge, layers=LAYERS, modules={}, route=route)


def layers_of(space: SearchSpace, x: np.ndarray) -> Subset:
    hops = space.decode(x).route
    return tuple(range(LAYERS)) if hops is None else tuple(layer for _, layer, _ in hops)


def table_of(expert: str, items: int) -> tuple[Table, dict[str, float]]:
    """Score every subset; those with equal beginnings follow each other, so that they share activations."""
    model = str(ROOT / "examples" / "experts" / expert)
    space = space_of(model)
    settings = TaskSettings((str(ROOT / "examples" / "tasks"),), {})
    tasks = TaskSet.load([expert], settings)
    objective = tasks.objective(expert, None)
    metric = metric_key(objective.metric, objective.filter)
    plan = split({expert: tasks.documents(expert)}, items=items, holdout=0.5, seed=0)
    asked = (*plan.search[expert], *plan.holdout[expert][:items])
    worker = WorkerSpec((model,), (expert,), settings).build()
    subsets = sorted(s for n in range(FEWEST, LAYERS + 1) for s in itertools.combinations(range(LAYERS), n))
    table: Table = {}
    work = {"layers.run": 0.0, "layers.shared": 0.0}
    for number, subset in enumerate(subsets):
        x = np.array([0.75 if layer in subset else 0.25 for layer in range(LAYERS)])
        assert layers_of(space, x) == subset
        values: dict[str, float] = {}
        for result in worker.evaluate(Job(Candidate(number, space.decode(x)), "search", {expert: asked})):
            if isinstance(result, Answers):
                values |= {r.item: r.value for r in result.responses if r.metric == metric}
            else:
                work = {name: count + result.stages.get(name, 0.0) for name, count in work.items()}
        halves = [statistics.fmean(values[item] for item in part) for part in (asked[:items], asked[items:])]
        table[subset] = (halves[0], halves[1])
    return table, work


def greedy(table: Table) -> list[Subset]:
    """Return the subsets that greedy removal scores, in order: the whole stack, then every removal of one layer."""
    current = tuple(range(LAYERS))
    met = [current]
    while len(current) > FEWEST:
        rivals = [tuple(layer for layer in current if layer != gone) for gone in current]
        met += rivals
        current = max(rivals, key=lambda subset: table[subset][0])
    return met


def searched(name: str, seed: int, evaluations: int, table: Table, space: SearchSpace) -> list[Subset]:
    """Return the different subsets that a controller meets, until there are `evaluations` of them."""
    start = tuple(float(x) for x in space.start())
    problem = SearchProblem(space.dimension, seed, 2, (1.0, 1.0), start, None, space.choices, space.switches)
    if name == "random":
        problem = SearchProblem(space.dimension, seed, 2)
    controller = build(name, problem, CONTROLLERS[name])
    met: dict[Subset, None] = {}
    told = 0
    while len(met) < evaluations and told < 50 * evaluations:
        for point in controller.ask():
            subset = layers_of(space, point)
            if len(met) < evaluations:
                met[subset] = None
            controller.tell(told, [table[subset][0], -len(subset) / LAYERS])
            told += 1
    return list(met)


def volume(met: list[Subset] | Mapping[Subset, object], table: Table) -> float:
    return float(hypervolume(np.array([[table[s][0], -float(len(s))] for s in met]), np.array([0.0, -(LAYERS + 1.0)])))


def best_per_depth(met: list[Subset] | Mapping[Subset, object], table: Table) -> dict[int, Subset]:
    found: dict[int, Subset] = {}
    for subset in met:
        known = found.get(len(subset))
        if known is None or table[subset][0] > table[known][0]:
            found[len(subset)] = subset
    return found


def report(expert: str, items: int, seeds: int, say: Callable[[str], None]) -> None:
    started = time.process_time()
    table, work = table_of(expert, items)
    seconds = time.process_time() - started
    space = space_of("org/model")
    whole, by_greed = volume(table, table), greedy(table)
    count = len(set(by_greed))
    runs = {name: [searched(name, seed, count, table, space) for seed in range(seeds)] for name in CONTROLLERS}
    shared = work["layers.shared"] / max(sum(work.values()), 1.0)
    say(f"\n## `{expert}` on task `{expert}`\n")
    say(
        f"All {len(table)} subsets: {seconds:.0f} s of CPU, {100 * shared:.0f}% of layer evaluations shared. "
        f"Greedy removal and every search: {count} different routes.\n"
    )
    say("| how | share of the best possible hypervolume, min / median / max |")
    say("|---|---|")
    say(f"| greedy removal | {volume(by_greed, table) / whole:.4f} |")
    for name, mets in runs.items():
        shares = sorted(volume(met, table) / whole for met in mets)
        say(f"| {name} | {shares[0]:.4f} / {statistics.median(shares):.4f} / {shares[-1]:.4f} |")
    depths = range(LAYERS, FEWEST - 1, -1)
    say("\nHeld-out score of the best subset met by search items, in percent (searches: median over seeds):\n")
    say("| layers | " + " | ".join(str(depth) for depth in depths) + " |")
    say("|---|" + "---|" * len(depths))
    rows = {"all subsets": [best_per_depth(table, table)], "greedy removal": [best_per_depth(by_greed, table)]}
    rows |= {name: [best_per_depth(met, table) for met in mets] for name, mets in runs.items()}
    for name, found in rows.items():
        cells = []
        for depth in depths:
            scores = [100 * table[best[depth]][1] for best in found if depth in best]
            cells.append(f"{statistics.median(scores):.0f}" if 2 * len(scores) > len(found) else "none")
        say(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", nargs="+", default=["spell", "add", "sort"])
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    for expert in options.experts:
        report(expert, options.items, options.seeds, say)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
