"""How fast a candidate is written into the resident model, beside a plain copy of the same bytes and beside mergekit.

    python benchmarks/merge/resident.py --size 113m --folder scratch/models --rounds 7 --mergekit

Every round changes every coefficient, densities included. Copy and write take turns, so that a busy machine slows both.
The copy moves as many bytes as the merge must: each parent's tensors read once, the result written once (slerp: two
parents). The write ends with the fingerprint of the weights; `unhashed` is the same without it. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import made
import torch

from evomerge.engine import ResidentModel, _parallel
from evomerge.merge.kernels import _dispatch as native
from evomerge.recipe import recipe_from_mapping

READ = {"linear": 3, "slerp": 2}  # tensors read per tensor written; others read the base too


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class Copy:
    """A plain copy of a number of bytes, shared among threads."""

    def __init__(self, elements: int, threads: int) -> None:
        source, target = torch.rand(elements), torch.empty(elements)
        size = -(-elements // threads)
        self.parts = list(zip(target.split(size), source.split(size), strict=True))
        self.pool = ThreadPoolExecutor(threads)

    def __call__(self) -> None:
        list(self.pool.map(lambda part: part[0].copy_(part[1]), self.parts))


def spread(values: list[float], form: str = "{:.2f}") -> str:
    return " / ".join(form.format(value) for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=made.SIZES, default="20m")
    parser.add_argument("--folder", type=Path, required=True, help="where the models are, or are made")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", default="linear,slerp,task_arithmetic,ties,dare_linear,dare_ties")
    parser.add_argument("--mergekit", action="store_true", help="merge once with mergekit to a folder, for each method")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = made.make(options.folder / options.size, options.size)
    resident = ResidentModel(models, device="cpu")
    count = sum(parameter.numel() for parameter in resident.model.parameters())
    rows, linear = [], 0.0
    examine = _parallel.examine
    for method in options.methods.split(","):
        copy = Copy((READ.get(method, 4) + 1) * count // 2, options.threads)
        copy()  # the first touch of memory costs more
        first = seconds(lambda m=method: resident.write(recipe_from_mapping(made.recipe(models, m, 11))))
        copies, writes, bare = [], [], []
        for round_ in range(options.rounds):
            candidate = recipe_from_mapping(made.recipe(models, method, round_))
            copies.append(seconds(copy))
            writes.append(seconds(lambda c=candidate: resident.write(c)))
            other = recipe_from_mapping(made.recipe(models, method, round_ + options.rounds))
            _parallel.examine = lambda block: (torch.zeros(1, dtype=torch.int64), 0)
            bare.append(seconds(lambda c=other: resident.write(c)))
            _parallel.examine = examine
        median = statistics.median(writes)
        linear = linear or median
        mergekit = ""
        if options.mergekit:
            document = made.recipe(models, method, 3)
            with tempfile.TemporaryDirectory(dir=options.folder) as out:
                mergekit = f"{seconds(lambda d=document, o=out: made.with_mergekit(d, Path(o))) / median:.0f}"
        against = [c / w for c, w in zip(copies, writes, strict=True)]
        unhashed = [c / w for c, w in zip(copies, bare, strict=True)]
        rows.append(
            f"| {method} | {spread(writes, '{:.3f}')} | {spread(against)} | {spread(unhashed)} | "
            f"{median / linear:.2f} | {first:.2f} | {mergekit} |"
        )
        print(rows[-1], flush=True)
    ways = "compiled loops" if native.compiled() is not None else "torch only"
    print(f"\n{count / 1e6:.1f}M parameters, float32, 3 experts, {ways}, {made.origin(options.threads)}\n")
    print("| method | write, s | copy / write | same, unhashed | write / linear | first write, s | mergekit / write |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print("\nThree numbers are min / median / max over rounds.")


if __name__ == "__main__":
    main()
