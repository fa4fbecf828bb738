"""Does a search of routes improve a task over every parent and over the best weight merge? Several seeds, all told.

    python benchmarks/route/improve.py [--task words] [--candidates 60] [--items 100] [--seeds 5] [--out FILE]

Per seed, three searches on the same search items, each of `candidates` evaluations:

- weights: task arithmetic over the four experts, a weight per expert and block of two layers (16 genes), CMA-ES;
- route: the layers of two experts, as they are, each up to twice, with scales made by a network, evolution;
- staged: the weight search stopped half way; then, with the other half, routes over its merge and the two experts.

The winner of each search is chosen by its search items and scored on held-out items, as are the parents. Differences
are paired by item, with 95% intervals; a parent is the best one on the held-out items, which favours the parents.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml

import evomerge
from evomerge.runs import Run
from evomerge.scoring import Difference, paired_difference

ROOT = Path(__file__).resolve().parents[2]
EXPERTS = ("add", "sort", "reverse", "spell")
LENDERS = ("add", "spell")


def expert(name: str) -> str:
    return str(ROOT / "examples" / "experts" / name)


def search_file(task: str, items: int, seed: int, merge: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    return {
        "merge": dict(merge),
        "objectives": [{"task": task}],
        "tasks": {"include": [str(ROOT / "examples" / "tasks")]},
        "scoring": {"items": items, "holdout": 0.5},
        "budget": {"candidates": rest.pop("candidates")},
        "seed": seed,
        **rest,
    }


def weights(candidates: int, **common: Any) -> dict[str, Any]:
    merge = {
        "merge_method": "task_arithmetic",
        "base_model": expert("base"),
        "models": [{"model": expert(name)} for name in EXPERTS],
        "parameters": {"weight": {"search": [0.0, 1.0], "per": ["model", {"blocks": 4}], "start": 0.4}},
        "dtype": "float32",
    }
    controller = {"name": "cma-es", "population": 10, "sigma": 0.2}
    return search_file(merge=merge, candidates=candidates, controller=controller, **common)


def routes(candidates: int, **common: Any) -> dict[str, Any]:
    merge = {"merge_method": "passthrough", "models": [{"model": expert(name)} for name in LENDERS]}
    route = {"repeats": 2, "max_layers": 14, "scales": [0.6, 1.6], "scale_by": "network"}
    controller = {"name": "evolution", "population": 10}
    return search_file(merge=merge, candidates=candidates, route=route, controller=controller, **common)


def staged(first: Run, half: int, candidates: int, **common: Any) -> dict[str, Any]:
    """Return the second stage: routes over the best merge of the first `half` candidates of the weight search."""
    (objective,) = first.objectives
    scores = {n: e.scores[objective.name].value for n, e in first.data.evaluations().items() if n < half}
    recipe = first.data.candidate(max(scores, key=lambda n: (scores[n], -n))).recipe.to_mapping()
    merge = {key: value for key, value in recipe.items() if key not in ("revisions", "mask_seed")}
    route = {"sources": ["merged", *LENDERS], "max_layers": 12, "scales": [0.7, 1.4], "scale_by": "network"}
    controller = {"name": "evolution", "population": 10}
    return search_file(merge=merge, candidates=candidates, route=route, controller=controller, **common)


def ran(content: Mapping[str, Any], folder: Path, name: str) -> Run:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return evomerge.search(file, out=folder / name)


def held_out(run: Run, number: int) -> tuple[Any, ...]:
    return tuple(run.data.responses(number, "holdout"))


def winner(run: Run) -> int:
    best = run.best()
    assert best is not None
    return best.number


def difference(run: Run, other: Run, number: int) -> Difference:
    """Return the paired held-out difference of a run's winner over a model of another run, in percent of points."""
    return paired_difference(held_out(run, winner(run)), held_out(other, number), run.objectives)


def one_seed(seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    half = options.candidates // 2
    common = {"task": options.task, "items": options.items, "seed": seed}
    runs = {"weights": ran(weights(options.candidates, **common), folder, f"weights{seed}")}
    runs["route"] = ran(routes(options.candidates, **common), folder, f"route{seed}")
    second = staged(runs["weights"], half, options.candidates - half, **common)
    runs["staged"] = ran(second, folder, f"staged{seed}")
    (objective,) = runs["weights"].objectives
    parents = {final.number: final for final in runs["weights"].finals() if final.number < 0}
    best = max(parents, key=lambda number: parents[number].score.value)
    row: dict[str, Any] = {"seed": seed, "parent": parents[best].score.value, "name": parents[best].name}
    for name, run in runs.items():
        final = next(final for final in run.finals() if final.number == winner(run))
        row[name] = final.scores[objective.name].value
        row[f"{name} over parent"] = difference(run, runs["weights"], best)
        row[f"{name} met again"] = sum(event == "duplicate" for event in run.tables.events()["kind"])
    for name in ("route", "staged"):
        row[f"{name} over weights"] = difference(runs[name], runs["weights"], winner(runs["weights"]))
    return row


def shown(gain: Difference) -> str:
    return f"{100 * gain.value:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="words")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    columns = ["seed", "best parent", "weights", "route", "staged", "route over parent", "staged over parent"]
    columns += ["route over weights", "staged over weights", "duplicates: route, staged"]
    say(f"| {' | '.join(columns)} |")
    say("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            row = one_seed(seed, options, Path(scratch))
            rows.append(row)
            scores = " | ".join(f"{100 * row[name]:.1f}" for name in ("weights", "route", "staged"))
            gains = [f"{name} over {other}" for other in ("parent", "weights") for name in ("route", "staged")]
            say(
                f"| {seed} | {100 * row['parent']:.1f} ({row['name']}) | {scores} | "
                + " | ".join(shown(row[gain]) for gain in gains)
                + f" | {row['route met again']}, {row['staged met again']} |"
            )
    say("\n| median over seeds of the gain, points | min / median / max |")
    say("|---|---|")
    for gain in [key for key in rows[0] if " over " in key]:
        values = sorted(100 * row[gain].value for row in rows)
        say(f"| {gain} | {values[0]:+.1f} / {statistics.median(values):+.1f} / {values[-1]:+.1f} |")
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
