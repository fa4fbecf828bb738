"""How fast the block kernels merge, against a plain copy that moves the same bytes, in the same run.

    python benchmarks/merge/kernels.py --elements 20000000 --models 3 --threads 1 --rounds 7

Prints the ratio of speeds, copy time over merge time (1.0: as fast as copying), as min, median and max over interleaved
rounds. TIES and DARE change their densities every round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from evomerge.merge import merge
from evomerge.merge.kernels import _thresholds as thresholds
from evomerge.merge.kernels import _torch_loops as kernels


def seconds(
    action: Callable[[float], object], density: float, device: torch.device, clock: Callable[[], float]
) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    action(density)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=20_000_000)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="blocks merged at once")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunk", type=int, default=kernels.CHUNK)
    parser.add_argument("--stride", type=int, default=1, help="of the rankings")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine")
    parser.add_argument("--plain", action="store_true", help="also time the plain methods")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    device, count, models = torch.device(options.device), options.elements, options.models
    generator = torch.Generator(device).manual_seed(0)
    base = torch.randn(count, generator=generator, device=device)
    deltas = [torch.randn(count, generator=generator, device=device) * 1e-3 for _ in range(models)]
    out = torch.empty_like(base)
    moved = (models + 2) * count // 2  # a copy reads and writes each element
    source, target = torch.randn(moved, device=device), torch.empty(moved, device=device)
    rankings = [thresholds.rank(delta, options.stride) for delta in deltas]
    edges = [
        slice(a, min(a + -(-count // options.threads), count)) for a in range(0, count, -(-count // options.threads))
    ]
    pieces = [
        slice(a, min(a + -(-moved // options.threads), moved)) for a in range(0, moved, -(-moved // options.threads))
    ]
    pool = ThreadPoolExecutor(options.threads)
    weight = [0.5 + 0.1 * index for index in range(models)]
    keys = list(range(models))

    def copy(_: float) -> None:
        list(pool.map(lambda part: target[part].copy_(source[part]), pieces))

    def linear(_: float) -> None:
        def block(part: slice) -> None:
            inputs = [base[part], *(delta[part] for delta in deltas)]
            kernels.sum_block(out[part], None, inputs, weight=[1.0, *weight], chunk=options.chunk)

        list(pool.map(block, edges))

    def task_arithmetic(_: float) -> None:
        def block(part: slice) -> None:
            inputs = [delta[part] for delta in deltas]
            kernels.sum_block(out[part], base[part], inputs, weight=weight, chunk=options.chunk)

        list(pool.map(block, edges))

    def ties(density: float) -> None:
        cuts = [thresholds.cut(ranking, delta, density) for ranking, delta in zip(rankings, deltas, strict=True)]

        def block(part: slice) -> None:
            inputs = [delta[part] for delta in deltas]
            kernels.ties_block(
                out[part], base[part], inputs, cuts, weight=weight, start=part.start, chunk=options.chunk
            )

        list(pool.map(block, edges))

    def dare(density: float) -> None:
        def block(part: slice) -> None:
            kernels.dare_block(
                out[part], base[part], [delta[part] for delta in deltas], weight=weight, density=[density] * models,
                factor=[1 / density] * models, keys=keys, elect=False, start=part.start, chunk=options.chunk,
            )  # fmt: skip

        list(pool.map(block, edges))

    def plain_ties(density: float) -> None:
        merge("ties", base, deltas, {"weight": weight, "density": [density] * models})

    def plain_linear(_: float) -> None:
        merge("task_arithmetic", base, deltas, {"weight": weight})

    actions = {"linear": linear, "task_arithmetic": task_arithmetic, "ties": ties, "dare_linear inv": dare}
    if options.plain:
        actions |= {"plain task_arith": plain_linear, "plain ties": plain_ties}
    ratios: dict[str, list[float]] = {name: [] for name in actions}
    for name, action in {"copy": copy, **actions}.items():
        print(f"warm-up {name}: {seconds(action, 0.5, device, clock):.3f} s", flush=True)
    for round_ in range(options.rounds):
        for name, action in actions.items():
            density = 0.2 + 0.7 * round_ / options.rounds
            baseline = seconds(copy, density, device, clock)
            ratios[name].append(baseline / seconds(action, density, device, clock))
    gigabytes = moved * 8 / 1e9
    print(f"{count} elements, {models} models, {options.threads} thread(s), {gigabytes:.2f} GB moved, {options.device}")
    for name, values in ratios.items():
        print(
            f"{name:16s} {min(values):.3f} {statistics.median(values):.3f} {max(values):.3f}  x copy (min median max)"
        )


if __name__ == "__main__":
    main()
