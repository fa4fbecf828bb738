"""Shows what merging can do here, in plain torch, without evomerge: `python examples/merge_by_hand.py`.

Prints the scores of all parents, of uniform merges, and of two merges whose weights were learned: one weight per
expert, and one per expert and layer. They are learned by gradient on training questions, in the manner of AdaMerging
(Yang et al. 2023, arXiv:2310.02575) with labels in place of entropy, so the scores are on questions that nothing was
fitted to. It is a yardstick: a search sees no gradients and no training questions, only scores.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from make_experts import draw_row, save
from make_tasks import HERE, TASKS
from probe import HEAD, batch_of, row, scores, token_losses
from torch.func import functional_call
from transformers import LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

EXPERTS = ("add", "sort", "reverse", "spell")
UNIFORM = 0.4  # the best of the uniform weights, or near it, where learning starts
SEED = 3
Weights = dict[str, torch.Tensor]


def load(folder: Path) -> Weights:
    """Return the tensors of one model."""
    return {name: p.detach().clone() for name, p in LlamaForCausalLM.from_pretrained(folder).named_parameters()}


def task_arithmetic(base: Weights, deltas: Sequence[Weights], weights: Sequence[float]) -> Weights:
    """Return base plus the weighted sum of the task vectors (Ilharco et al. 2023, arXiv:2212.04089)."""
    return {n: t + sum(w * d[n] for w, d in zip(weights, deltas, strict=True)) for n, t in base.items()}


def ties(base: Weights, deltas: Sequence[Weights], weight: float, density: float) -> Weights:
    """Return the TIES merge with one weight for all, not divided by its sum (Yadav et al. 2023, arXiv:2306.01708)."""
    merged = {}
    for name, tensor in base.items():
        kept = []
        for delta in deltas:
            flat = delta[name].flatten()
            largest = flat.abs().topk(max(1, int(density * flat.numel()))).indices
            kept.append(weight * torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(tensor))
        stacked = torch.stack(kept)  # (sources, *shape)
        sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
        merged[name] = tensor + torch.where(stacked * sign > 0, stacked, 0).sum(0)
    return merged


def by_layer(base: Weights, deltas: Sequence[Weights], weights: torch.Tensor) -> Weights:
    """Return the merge with `weights` of shape (sources, layers + 1); the last column is for tensors outside layers.

    With one column, that one is for everything.
    """

    def column(name: str) -> int:
        layer = re.search(r"layers\.(\d+)\.", name)
        return int(layer[1]) if layer and weights.shape[1] > 1 else -1

    return {n: t + sum(w * d[n] for w, d in zip(weights[:, column(n)], deltas, strict=True)) for n, t in base.items()}


def learn(model: LlamaForCausalLM, base: Weights, deltas: Sequence[Weights], columns: int, steps: int) -> torch.Tensor:
    """Return weights, (sources, columns), that make the summed loss over training questions of all tasks small."""
    weights = torch.full((len(deltas), columns), UNIFORM, requires_grad=True)
    optimizer = torch.optim.Adam([weights], 0.03)
    rng = random.Random(SEED)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        merged = by_layer(base, deltas, weights)
        loss = torch.zeros(())
        for task in TASKS:
            ids, labels = batch_of([draw_row(task, rng, easy=False) for _ in range(32)])
            logits = functional_call(model, merged, (), {"input_ids": ids, "use_cache": False}).logits
            losses, _ = token_losses(logits, labels)
            loss = loss + losses.sum() / (losses > 0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach()


def main() -> None:
    """Merge, score, print; write the best merge where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=Path, default=HERE / "experts", help="folder of the models")
    parser.add_argument("--steps", type=int, default=60, help="gradient steps on the weights (default: %(default)s)")
    parser.add_argument("--to", type=Path, help="write the merge by layer here, as a Hugging Face folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    base = load(options.experts / "base")
    parents = {name: load(options.experts / name) for name in EXPERTS}
    deltas = [{n: parent[n] - base[n] for n in base} for parent in parents.values()]
    model = LlamaForCausalLM.from_pretrained(options.experts / "base")

    def show(name: str, weights: Weights) -> None:
        model.load_state_dict(weights, strict=False)  # the head is tied to the embedding and has no name of its own
        print(row(name, scores(model)), flush=True)

    print(HEAD)
    for name, weights in {"base": base, **parents}.items():
        show(name, weights)
    for weight in (1 / len(deltas), 0.4, 0.5, 0.7, 1.0):
        show(f"all {weight:.2f}", task_arithmetic(base, deltas, [weight] * len(deltas)))
    for weight, density in ((0.4, 0.8), (0.5, 0.5), (0.7, 0.2), (1.0, 0.2)):
        show(f"ties {weight} of {density:.0%}", ties(base, deltas, weight, density))
    for name, columns in (("per expert", 1), ("per expert and layer", model.config.num_hidden_layers + 1)):
        model.load_state_dict(base, strict=False)
        learned = learn(model, base, deltas, columns, options.steps)
        show(name, by_layer(base, deltas, learned))
        for expert, numbers in zip(EXPERTS, learned.tolist(), strict=True):
            print(f"{expert:>20}  " + " ".join(f"{number:5.2f}" for number in numbers), flush=True)
    if options.to:
        save(model, options.to)


if __name__ == "__main__":
    main()
