"""Errors and coverage on the development tables, beside the best rows of the baseline; prints markdown.

python benchmarks/irt/run.py static|few|merges|thirds [--seed N] [--tables NAME ...]     one core, minutes each
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
from measure import measure  # noqa: E402
from tables import (  # noqa: E402
    BEST_ADAPTIVE,
    BEST_STATIC,
    ITEMS,
    TABLES,
    complete_rows,
    data_folder,
    split,
    take,
)

from evomerge.irt import ResponseTable, estimate, read_table  # noqa: E402
from evomerge.irt._backtest import calibrate  # noqa: E402
from evomerge.irt._table_files import read_parents  # noqa: E402

STATIC_METHODS = ("raw", "anchor", "p-irt", "gp-irt", "difference", "linear", "adaptive", "auto")
FEW = (3, 4, 5, 6, 8)
FEW_DRAWS = 20
FEW_TEST_MODELS = 150
SMALL = ("zeroeval_crux", "alpaca_eval2")  # whose test parts of 17 and 15 models are noisy
MERGE_ITEMS = (5, 10, 20, 50)
MERGE_BASELINE = {
    "metabench_arc": ("p-IRT d=2, prior on the parents", (2.02, 2.13, 2.02, 1.52)),
    "metabench_truthfulqa": ("p-IRT d=2, prior on the parents", (3.86, 3.21, 2.80, 1.48)),
}
MERGE_CALIBRATION = 1500


def cells(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"


def header(title: str, items: tuple[int, ...], last: str) -> None:
    print(f"\n### {title}\n")
    print(cells(["method", *[f"n={n}" for n in items], *[f"cover {n}" for n in items], last]))
    print(cells(["---"] * (2 * len(items) + 2)))


def static(folder: Path, tables: list[str], seed: int) -> None:
    """Every method on the baseline's split."""
    for name in tables:
        train, test = split(name, folder)
        bank = calibrate(train, seed=seed)
        header(f"{name}: {len(train.models)} calibration, {len(test.models)} test models", ITEMS, "recipes used")
        for label, row in (("best static row", BEST_STATIC), ("best CAT row", BEST_ADAPTIVE)):
            print(cells([f"baseline: {label}", *[f"{x:.2f}" for x in row[name]], *[""] * len(ITEMS), ""]))
        results = [measure(bank, test, n, STATIC_METHODS, seed) for n in ITEMS]
        for method in STATIC_METHODS:
            found = [r[method] for r in results]
            errors = [f"{r['errors'].mean():.2f}" for r in found]
            cover = [f"{r['hits'].mean():.2f}" for r in found]
            print(cells([method, *errors, *cover, ", ".join(dict.fromkeys(r["recipe"] for r in found))]), flush=True)


def thirds(folder: Path, seed: int) -> None:
    """`auto` on the small tables, each third of the models once the test part, with the standard error over models."""
    for name in SMALL:
        table = complete_rows(read_table(folder / f"{name}.npz"))
        print(f"\n### {name}: three parts of {len(table.models)} models\n")
        print(cells(["test part", *[f"n={n}" for n in ITEMS], *[f"cover {n}" for n in ITEMS]]))
        print(cells(["---"] * (2 * len(ITEMS) + 1)))
        print(cells(["baseline: best static row", *[f"{x:.2f}" for x in BEST_STATIC[name]], *[""] * len(ITEMS)]))
        parts = []
        for third in range(3):
            test = np.arange(len(table.models)) % 3 == third
            bank = calibrate(take(table, np.flatnonzero(~test)), seed=seed)
            answers = take(table, np.flatnonzero(test))
            parts.append([measure(bank, answers, n, ("auto",), seed)["auto"] for n in ITEMS])
            row(f"models {third} modulo 3", parts[-1:])
        row("all three", parts)


def row(label: str, parts: list[list[dict]]) -> None:
    """Print errors with their standard errors, and coverage, over all models of some test parts."""
    errors = [np.concatenate([part[k]["errors"] for part in parts]) for k in range(len(ITEMS))]
    hits = [np.concatenate([part[k]["hits"] for part in parts]) for k in range(len(ITEMS))]
    shown = [f"{e.mean():.2f} ± {e.std(ddof=1) / np.sqrt(len(e)):.2f}" for e in errors]
    print(cells([label, *shown, *[f"{h.mean():.2f}" for h in hits]]), flush=True)


def few(folder: Path, tables: list[str], seed: int) -> None:
    """3 to 8 calibration models: `auto` beside the raw mean of random items."""
    for name in tables:
        table = complete_rows(read_table(folder / f"{name}.npz"))
        header(f"{name}, few calibration models ({FEW_DRAWS} draws)", ITEMS, "worst auto minus raw")
        for count in FEW:
            rng = np.random.default_rng([seed, count])
            collected: dict[str, list[list[tuple[float, float]]]] = {"raw": [], "auto": []}
            for draw in range(FEW_DRAWS):
                order = rng.permutation(len(table.models))
                bank = calibrate(take(table, order[:count]), seed=draw)
                test = take(table, order[count : count + FEW_TEST_MODELS])
                results = [measure(bank, test, n, ("raw", "auto"), draw) for n in ITEMS]
                for method, rows in collected.items():
                    rows.append([(r[method]["errors"].mean(), r[method]["hits"].mean()) for r in results])
            mean = {m: np.array(rows).mean(axis=0) for m, rows in collected.items()}
            worst = (mean["auto"][:, 0] - mean["raw"][:, 0]).max()
            for method in ("raw", "auto"):
                errors = [f"{x:.2f}" for x in mean[method][:, 0]]
                cover = [f"{x:.2f}" for x in mean[method][:, 1]]
                print(
                    cells([f"{count} models: {method}", *errors, *cover, f"{worst:+.2f}" if method == "auto" else ""]),
                    flush=True,
                )


def merges(folder: Path, seed: int) -> None:
    """Merges whose parents are known, calibrated on unrelated models."""
    parents = read_parents(folder / "merge_pedigree.csv")
    for name, (label, row) in MERGE_BASELINE.items():
        table = read_table(folder / f"{name}.npz")
        place = {m: i for i, m in enumerate(table.models)}
        children = [c for c, p in parents.items() if all(x in place for x in (c, *p))]
        family = sorted({x for c in children for x in (c, *parents[c])})
        unrelated = [
            i for i, m in enumerate(table.models) if m not in set(family) and not np.isnan(table.responses[i]).any()
        ]
        chosen = np.random.default_rng(seed).permutation(unrelated)[:MERGE_CALIBRATION]
        bank = calibrate(take(table, chosen), seed=seed)
        rows = np.array([place[m] for m in family])
        answers: ResponseTable = take(table, rows)
        header(f"{name}: {len(children)} merges", MERGE_ITEMS, "methods used")
        print(cells([f"baseline: {label}", *[f"{x:.2f}" for x in row], *[""] * len(MERGE_ITEMS), ""]))
        for method in ("p-irt", "mp-irt"):
            found = [
                [e for e in estimate(bank, answers, n, method, parents, seed=seed) if e["model"] in set(children)]
                for n in MERGE_ITEMS
            ]
            errors = [f"{100 * np.mean([abs(e['estimate'] - e['truth']) for e in es]):.2f}" for es in found]
            cover = [f"{np.mean([e['low'] <= e['truth'] <= e['high'] for e in es]):.2f}" for es in found]
            used = ", ".join(sorted({e["method"] for es in found for e in es}))
            print(cells([method, *errors, *cover, used]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["static", "few", "merges", "thirds"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    options = parser.parse_args()
    folder = data_folder()
    if folder is None:
        raise SystemExit("the development tables are absent; set EVOMERGE_DATA to the folder that holds irt/")
    revision = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=False).stdout.strip()
    print(f"commit {commit}, seed {options.seed}, 2-core x86-64 CPU, no GPU.")
    print("Mean absolute error in points of the score; share of truths inside the nominal 90% interval.")
    if options.part == "static":
        static(folder, options.tables, options.seed)
    elif options.part == "thirds":
        thirds(folder, options.seed)
    elif options.part == "few":
        few(folder, options.tables, options.seed)
    else:
        merges(folder, options.seed)


if __name__ == "__main__":
    main()
