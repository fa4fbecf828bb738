"""Shows that a merge beats every parent, in plain torch, without evomerge: `python examples/merge_by_hand.py`.

Looks for one weight per expert (and, for TIES, one density) on the first documents of each task, by the simplest
evolution strategy; the best of each method is then scored on the second half, beside all parents and uniform weights.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from make_tasks import DOCUMENTS, HERE
from probe import HEAD, average, row, scores
from transformers import LlamaForCausalLM

EXPERTS = ("add", "sort", "reverse", "spell")
UNIFORM = 0.4  # the best of the uniform weights, or near it
STEP = 0.12  # standard deviation of a change of a weight
Weights = dict[str, torch.Tensor]


def load(folder: Path) -> Weights:
    """Return the tensors of one model."""
    return {name: p.detach().clone() for name, p in LlamaForCausalLM.from_pretrained(folder).named_parameters()}


def task_arithmetic(base: Weights, deltas: Sequence[Weights], weights: Sequence[float]) -> Weights:
    """Return base plus the weighted sum of the task vectors (Ilharco et al. 2023, arXiv:2212.04089)."""
    return {n: t + sum(w * d[n] for w, d in zip(weights, deltas, strict=True)) for n, t in base.items()}


def ties(base: Weights, deltas: Sequence[Weights], weights: Sequence[float], density: float) -> Weights:
    """Return the TIES merge, without dividing by the sum of weights (Yadav et al. 2023, arXiv:2306.01708)."""
    merged = {}
    for name, tensor in base.items():
        kept = []
        for weight, delta in zip(weights, deltas, strict=True):
            flat = delta[name].flatten()
            largest = flat.abs().topk(max(1, int(density * flat.numel()))).indices
            kept.append(weight * torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(tensor))
        stacked = torch.stack(kept)
        sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
        merged[name] = tensor + torch.where(stacked * sign > 0, stacked, 0).sum(0)
    return merged


def merge(method: str, base: Weights, deltas: Sequence[Weights], point: Sequence[float]) -> Weights:
    """Return the merge of `method` at `point`: a weight per task vector, then the density."""
    *weights, density = point
    return ties(base, deltas, weights, density) if method == "ties" else task_arithmetic(base, deltas, weights)


def main() -> None:
    """Search by drawing, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=Path, default=HERE / "experts", help="folder of the models")
    parser.add_argument("--draws", type=int, default=60, help="merges per method (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=100, help="documents per task while searching")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = load(options.experts / "base")
    parents = {name: load(options.experts / name) for name in EXPERTS}
    deltas = [{n: parent[n] - base[n] for n in base} for parent in parents.values()]
    model = LlamaForCausalLM.from_pretrained(options.experts / "base")

    def score(weights: Weights, documents: slice) -> dict[str, float]:
        model.load_state_dict(weights, strict=False)
        return scores(model, documents)

    held_out = slice(DOCUMENTS // 2, DOCUMENTS)
    print(HEAD)
    for name, weights in {"base": base, **parents}.items():
        print(row(name, score(weights, held_out)), flush=True)
    count = len(deltas)
    for weight in (0.2, 0.3, 0.4, 0.5, 0.7, 1.0):
        print(row(f"all {weight:.2f}", score(task_arithmetic(base, deltas, [weight] * count), held_out)), flush=True)
    for method in ("task_arithmetic", "ties"):
        rng = random.Random(options.seed)
        # the last coordinate is the density, which task arithmetic has no use for
        best, best_value = [UNIFORM] * count + [0.8], -1.0
        for draw in range(options.draws):
            # the plainest evolution there is: start uniform, change everything a little, keep what is better
            point = [min(max(x + STEP * rng.gauss(0, 1), 0.05), 1.0) for x in best] if draw else best
            value = average(score(merge(method, base, deltas, point), slice(options.limit)))
            if value > best_value:
                best, best_value = point, value
        print(row(f"best {method}", score(merge(method, base, deltas, best), held_out)), flush=True)
        print(" " * 20, " ".join(f"{n} {w:.2f}" for n, w in zip([*parents, "density"], best, strict=True)), flush=True)


if __name__ == "__main__":
    main()
