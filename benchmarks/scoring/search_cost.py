"""What a search finds with a tenth of the answers: every item asked of every candidate, beside a few and an estimate.

python benchmarks/scoring/search_cost.py run --work DIR [--arms full estimate] [--seeds 20]    resumable, one core
python benchmarks/scoring/search_cost.py table --work DIR                                       markdown
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import evomerge  # noqa: E402
from evomerge.archive import Archive  # noqa: E402
from evomerge.results import Run, open_run  # noqa: E402

TASKS = ("add", "sort", "reverse")
ITEMS, CANDIDATES = 100, 200
# What an arm asks; every arm meets the same documents, held-out items and first generation of a seed.
ARMS = {
    "full": f"{{items: {ITEMS}, holdout: 0.5}}",
    "mean of 10": "{items: 10, holdout: 0.5}",
    "estimate from 5": f"{{items: 5, pool: {ITEMS}, estimator: auto, full_every: 0, holdout: 0.5}}",
    "estimate from 10": f"{{items: 10, pool: {ITEMS}, estimator: auto, full_every: 40, holdout: 0.5}}",
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
controller: {{name: cma-es, population: 10}}
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
        scoring=ARMS[arm],
        candidates=CANDIDATES,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["run", "table"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.part == "run":
        run(options.work, options.arms, options.seeds)


if __name__ == "__main__":
    main()
