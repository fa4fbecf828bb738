"""How much memory a resident merge takes beyond the resident weights; independent of the model's size if all is well.

    python benchmarks/merge/memory.py --folder scratch/models --sizes 1m 20m 113m

Per size: the first write of each method makes what is kept (rankings, and the model's own memory, touched for the first
time); then the peak counter of the process is reset and further candidates are written. Linux only. Prints a
Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import made
import torch
from exports import memory

from evomerge.engine import ResidentModel
from evomerge.recipe import recipe_from_mapping

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_ties")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=made.SIZES, default=["1m", "20m"])
    parser.add_argument("--folder", type=Path, required=True, help="where the models are, or are made")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"| model | kept after the first writes, MB | {', '.join(METHODS)}: peak beyond that, MB |")
    print("|---|---|---|")
    for size in options.sizes:
        models = made.make(options.folder / size, size)
        resident = ResidentModel(models, device="cpu")
        loaded = memory("VmRSS")
        for method in METHODS:
            resident.write(recipe_from_mapping(made.recipe(models, method, 0)))
        kept, peaks = memory("VmRSS") - loaded, []
        for method in METHODS:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is there now
            before = memory("VmRSS")
            for variant in (1, 2):
                resident.write(recipe_from_mapping(made.recipe(models, method, variant)))
            peaks.append(memory("VmHWM") - before)
        print(f"| {size} | {kept:.0f} | {', '.join(f'{peak:.1f}' for peak in peaks)} |", flush=True)
        del resident
    print(f"\n{made.origin(options.threads)}")


if __name__ == "__main__":
    main()
