"""What a search finds with a tenth of the answers: every item asked of every candidate, beside a few and an estimate.

python benchmarks/scoring/search_cost.py run --work DIR [--arms full estimate] [--seeds 20]    resumable, one core
python benchmarks/scoring/search_cost.py table --work DIR                                       markdown
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

import evomerge  # noqa: E402
from evomerge.archive import Archive  # noqa: E402
from evomerge.runs import Run, open_run  # noqa: E402

TASKS = ("add", "sort", "reverse")
ITEMS = 100


@dataclass(frozen=True)
class Arm:
    """What candidates are asked, and how many there are; all arms of a seed meet the same documents."""

    scoring: str
    candidates: int = 200
    population: int = 10


ARMS = {
    "full": Arm(f"{{items: {ITEMS}, holdout: 0.5}}"),
    "full, 16 candidates": Arm(f"{{items: {ITEMS}, holdout: 0.5}}", 16),  # what a tenth of the answers buys without
    "mean of 10": Arm("{items: 10, holdout: 0.5}"),
    "estimate from 5": Arm(f"{{items: 5, pool: {ITEMS}, estimator: auto, full_evaluation_every: 0, holdout: 0.5}}"),
    "resample 14": Arm(f"{{items: 14, pool: {ITEMS}, estimator: raw, anchors: resample, holdout: 0.5}}", 100, 20),
    "resample 13 and parents": Arm(
        f"{{items: 13, pool: {ITEMS}, estimator: parents, anchors: resample, full_evaluation_every: 0, holdout: 0.5}}",
        80,
        20,
    ),
    "estimate from 10": Arm(f"{{items: 10, pool: {ITEMS}, estimator: auto, full_evaluation_every: 40, holdout: 0.5}}"),
}
SEARCH_FILE = """\
merge:
  merge_method: task_arithmetic
  base_model: {experts}/base
  models: [{{model: {experts}/add}}, {{model: {experts}/sort}}, {{model: {experts}/reverse}}]
  parameters:
    weight: {{search: [0.0, 1.0], per: [model, {{blocks: 4}}], start: 0.4}}
  dtype: float32
objectives: [{objectives}]
tasks: {{include: [{tasks}]}}
scoring: {scoring}
controller: {{name: cma-es, population: {population}}}
budget: {{candidates: {candidates}}}
seed: {seed}
"""


def name_of(arm: str, seed: int) -> str:
    """Return the name of a run's folder."""
    return f"{arm.replace(' ', '-')}-{seed}"


def search_file(folder: Path, arm: str, seed: int) -> Path:
    """Write the search file of an arm and a seed, and return its path."""
    text = SEARCH_FILE.format(
        experts=ROOT / "examples" / "experts",
        tasks=ROOT / "examples" / "tasks",
        objectives=", ".join(f"{{task: {task}}}" for task in TASKS),
        scoring=ARMS[arm].scoring,
        candidates=ARMS[arm].candidates,
        population=ARMS[arm].population,
        seed=seed,
    )
    path = folder / f"{name_of(arm, seed)}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(work: Path, arms: list[str], seeds: int) -> None:
    """Search every arm and seed that is not done yet; what was stopped goes on."""
    work.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for arm in arms:
            folder = work / name_of(arm, seed)
            if not Archive.exists(folder):
                evomerge.search(search_file(work, arm, seed), out=folder)
            elif open_run(folder).state != "finished":
                evomerge.resume(folder)
            print(f"{arm} {seed}: {open_run(folder).state}", flush=True)


def measured(run: Run) -> dict[str, float]:
    """Return what one search found and what it cost; scores are means over the tasks, in points."""
    best = run.best()
    finals = {final.number: final for final in run.finals()}
    searched = run.data.evaluations()[best.number]
    with Archive.open(run.folder) as archive:
        answered = sum(
            len(items)
            for split in ("search", "search_rest")
            for candidate in archive.candidates()
            for items in archive.answered(split, candidate.number).values()
        )
        seconds = sum(outcome.seconds for outcome in archive.outcomes() if outcome.split != "holdout")
    return {
        "answers": float(answered),
        "seconds": seconds,
        "search": 100.0 * float(np.mean([score.value for score in searched.scores.values()])),
        "held out": 100.0 * finals[best.number].score.value,
        "gain": 100.0 * finals[best.number].gain.value,
    }


def table(work: Path, seeds: int) -> None:
    """Print what each arm found, and its paired difference from the first arm, over the seeds that both finished."""
    found: dict[str, dict[int, dict[str, float]]] = {arm: {} for arm in ARMS}
    for arm, rows in found.items():
        for seed in range(seeds):
            folder = work / name_of(arm, seed)
            if Archive.exists(folder) and open_run(folder).state == "finished":
                rows[seed] = measured(open_run(folder))
    head = ["arm", "seeds", "answers", "share", "held-out score", "gain over best parent", "search minus held-out"]
    head += ["held-out minus full, paired", "worker seconds / full"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    full = found["full"]
    for arm, rows in found.items():
        pairs = sorted(rows.keys() & full.keys())
        if len(pairs) < 2:
            continue
        mean = {key: float(np.mean([rows[seed][key] for seed in pairs])) for key in rows[pairs[0]]}
        gaps = np.array([rows[seed]["held out"] - full[seed]["held out"] for seed in pairs])
        reach = float(stats.t.ppf(0.975, len(gaps) - 1)) * float(gaps.std(ddof=1)) / np.sqrt(len(gaps))
        spread = "/".join(f"{x:.1f}" for x in np.quantile([rows[s]["held out"] for s in pairs], [0, 0.5, 1]))
        share = mean["answers"] / float(np.mean([full[seed]["answers"] for seed in pairs]))
        pace = [rows[seed]["seconds"] / full[seed]["seconds"] for seed in pairs]
        cells = [arm, str(len(pairs)), f"{mean['answers']:.0f}", f"{100 * share:.1f}%", spread, f"{mean['gain']:.1f}"]
        cells += [f"{mean['search'] - mean['held out']:+.1f}"]
        cells += [
            "" if arm == "full" else f"{gaps.mean():+.2f} [{gaps.mean() - reach:+.2f}, {gaps.mean() + reach:+.2f}]"
        ]
        cells += ["/".join(f"{x:.2f}" for x in np.quantile(pace, [0, 0.5, 1]))]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["run", "table"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.part == "run":
        run(options.work, options.arms, options.seeds)
    else:
        table(options.work, options.seeds)


if __name__ == "__main__":
    main()
