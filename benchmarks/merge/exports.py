"""How long a merge to disk takes, and how much memory, beside mergekit on the same recipe.

    python benchmarks/merge/exports.py --size 113m --folder scratch/models --shards 4

Each merge runs in a process of its own, so that its peak memory is its own; imports are not timed. Peak memory is what
the process gained over its size after the imports; mapped files count where they are resident. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import made

METHODS = "linear,slerp,ties,dare_ties,della,sce"


def memory(word: str) -> float:
    """Return VmRSS (now) or VmHWM (peak) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(word)) / 1024


def one(tool: str, document: dict[str, object], out: Path, threads: int) -> None:
    """Merge once and print seconds and megabytes as JSON."""
    import torch

    torch.set_num_threads(threads)
    if tool == "evomerge":
        import safetensors  # noqa: F401
        import transformers  # noqa: F401

        from evomerge.engine import (
            _parallel,  # noqa: F401
            export,
        )
        from evomerge.merge.kernels import _dispatch as native
        from evomerge.recipe import recipe_from_mapping

        native.compiled()
        before, start = memory("VmRSS"), time.perf_counter()
        export(recipe_from_mapping(document), out)
    else:
        import mergekit.merge  # noqa: F401

        before, start = memory("VmRSS"), time.perf_counter()
        made.with_mergekit(document, out)
    print(json.dumps({"seconds": time.perf_counter() - start, "mb": memory("VmHWM") - before}))


def apart(tool: str, document: dict[str, object], out: Path, threads: int) -> dict[str, float]:
    """Run `one` in a process of its own and return what it printed."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--one", tool, "--out", str(out), "--threads", str(threads), "--folder", "."]
    done = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    shutil.rmtree(out, ignore_errors=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=made.SIZES, default="20m")
    parser.add_argument("--folder", type=Path, required=True, help="where the models are, or are made")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="of evomerge; mergekit runs once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, json.load(sys.stdin), options.out, options.threads)
        return
    models = made.make(options.folder / f"{options.size}-{options.shards}", options.size, shards=options.shards)
    size = sum(path.stat().st_size for path in Path(models[0]).glob("*.safetensors")) / 2**20
    out, rows = options.folder / "merged", []
    for method in options.methods.split(","):
        document = made.recipe(models, method, 3)
        ours = [apart("evomerge", document, out, options.threads) for _ in range(options.rounds)]
        theirs = apart("mergekit", document, out, options.threads)
        took = [run["seconds"] for run in ours]
        peak = max(run["mb"] for run in ours)
        middle = statistics.median(took)
        rows.append(
            f"| {method} | {min(took):.2f} / {middle:.2f} / {max(took):.2f} | {theirs['seconds']:.1f} | "
            f"{theirs['seconds'] / middle:.1f} | {peak:.0f} | {theirs['mb']:.0f} |"
        )
        print(rows[-1], flush=True)
    print(f"\n{size:.0f} MB per model in {options.shards} files, float32, 3 experts, {made.origin(options.threads)}\n")
    print("| method | s (min / median / max) | mergekit, s | mergekit / evomerge | peak MB | mergekit's peak MB |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
