"""What every shipped search space costs and gains on the example experts: the numbers of docs/gallery.md.

    python -m benchmarks.gallery.run [--candidates 20] [--seed 1] [--folder DIR] [SPACE ...]   goes on where it stopped
    python -m benchmarks.gallery.run --table                                                   writes results.md

Every space is searched with the same small number of candidates, one process, one thread. The gain is that of the best
candidate by the *search* items over the best parent, on held-out items, paired by item, with its 95% interval. The
baseline of a space's cost is that of its parents: they answer the same items in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import evomerge

HERE = Path(__file__).parent
SPACES = HERE.parents[1] / "search_spaces"
ROWS = HERE / "rows.jsonl"


def measure(path: Path, candidates: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the row of one search space: cost in processor seconds and answers, gain on held-out items."""
    began = time.process_time()
    run = evomerge.search(path, out=folder / path.stem, candidates=candidates, seed=seed)
    spent = time.process_time() - began
    best = run.best()
    outcomes = {outcome.number: outcome for outcome in run.data.outcomes()}
    searched = [outcome.seconds for outcome in outcomes.values() if outcome.number >= 0 and outcome.seconds]
    parents = [outcome.seconds for outcome in outcomes.values() if outcome.number < 0 and outcome.seconds]
    final = next((final for final in run.finals() if best is not None and final.number == best.number), None)
    gain = final.gain if final is not None else None
    return {
        "space": path.stem,
        "genes": run.space.dimension,
        "objectives": [objective.name for objective in run.objectives],
        "candidates": len(searched),
        "processor_seconds": round(spent, 1),
        "per_candidate_over_per_parent": _ratio(searched, parents),
        "front": run.status()["front_size"],
        "against": final.against if final is not None else "",
        "in_points": final.in_points if final is not None else True,
        "gain": None if gain is None else [gain.value, gain.low, gain.high],
        "seed": seed,
        "commit": _commit(),
        "machine": _machine(),
    }


def _ratio(searched: list[float], parents: list[float]) -> float | None:
    if not searched or not parents:
        return None
    return round((sum(searched) / len(searched)) / (sum(parents) / len(parents)), 2)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table, the largest gain first."""
    lines = [
        "| space | genes | candidates | processor s | candidate / parent | front | held-out gain over best parent |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -(row["gain"][0] if row["gain"] and row["in_points"] else -1.0)):
        lines.append(
            f"| `{row['space']}` | {row['genes']} | {row['candidates']} | {row['processor_seconds']:.0f} | "
            f"{_number(row['per_candidate_over_per_parent'])} | {row['front']} | {_gain(row)} |"
        )
    first = rows[0]
    lines += [
        "",
        f"Seed {first['seed']}, commit {first['commit']}, {first['machine']}. Processor seconds are of the whole "
        "search, loading and the final scoring included. 'candidate / parent' is the mean time of a candidate over "
        "that of a parent in the same run. Gains are in points, with 95% intervals paired by item.",
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _gain(row: dict[str, Any]) -> str:
    if row["gain"] is None:
        return "-"
    if not row["in_points"]:
        return "a front of quality against size: see `evomerge front`"
    value, low, high = (100 * part for part in row["gain"])
    verdict = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    return f"{value:+.1f} [{low:.1f}, {high:.1f}] over {row['against']}: {verdict}"


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()


def _machine() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = found[0].partition(":")[2].strip() if found else platform.machine()
    return f"{name}, {len(found) or 1} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", help="names; default: all")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the runs; default: a temporary one")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    if not arguments.table:
        import torch

        torch.set_num_threads(1)
        folder = arguments.folder or Path(tempfile.mkdtemp())
        wanted = arguments.spaces or sorted(path.stem for path in SPACES.glob("*.yaml"))
        for name in [name for name in wanted if name not in {row["space"] for row in rows}]:
            rows.append(measure(SPACES / f"{name}.yaml", arguments.candidates, arguments.seed, folder))
            with ROWS.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    text = table(rows)
    (HERE / "results.md").write_text("# Search spaces on the example experts\n\n" + text)
    print(text)


if __name__ == "__main__":
    main()
