"""Log likelihoods of a forest of token sequences: one pass over the distinct tokens, prefixes through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evomerge.scoring.resident_cache import compute_root, fork, keeps_logits
from evomerge.scoring.rows import Forest, Likelihood, Row


@dataclass(frozen=True)
class _Placed:
    """A row as tensors on the model's device, made once and used for every candidate."""

    tokens: torch.Tensor  # (1, q)
    positions: torch.Tensor  # (1, q)
    ends: torch.Tensor  # (q,)
    kept: torch.Tensor  # (k,) tokens whose logits are needed, ascending
    places: torch.Tensor  # (s, t) index into kept
    targets: torch.Tensor  # (s, t), 0 where padded
    padded: torch.Tensor  # (s, t) bool
    members: tuple[int, ...]


class PlacedForest:
    """A forest on a device; `score` asks the model as its weights are at the moment."""

    def __init__(self, forest: Forest, device: torch.device) -> None:
        self.root = forest.root
        self.row_lengths = [len(row.tokens) for row in forest.rows]
        self.size = sum(len(row.members) for row in forest.rows)
        self._device = device
        self._rows = [_place(row, len(forest.root), device) for row in forest.rows]

    def score(self, model: Any, softmax_dtype: torch.dtype | None = None) -> list[tuple[float, bool]]:
        """Return (log likelihood of the targets, all of them are the model's first choice) per sequence.

        The softmax is taken in `softmax_dtype`, by default that of the logits, and summed in it, as lm-eval does.
        """
        results: list[tuple[float, bool]] = [(0.0, False)] * self.size
        with torch.inference_mode():
            cache = compute_root(model, self.root, self._device) if self.root else None
            for row in self._rows:
                logits = _logits(model, row, len(self.root), cache)
                scores = torch.log_softmax(logits, dim=-1, dtype=softmax_dtype)  # (k, vocabulary)
                chosen = scores[row.places, row.targets].masked_fill(row.padded, 0.0)  # (s, t)
                greedy = (scores.argmax(dim=-1)[row.places] == row.targets) | row.padded
                for member, value, first in zip(
                    row.members, chosen.sum(dim=1).tolist(), greedy.all(dim=1).tolist(), strict=True
                ):
                    results[member] = (value, first)
        return results


def plain_scores(model: Any, sequences: Sequence[Likelihood], device: torch.device) -> list[float]:
    """Return log likelihoods by one ordinary pass per sequence, without cache, masks or packing."""
    values = []
    with torch.inference_mode():
        for sequence in sequences:
            logits = model(input_ids=torch.tensor([sequence.inputs], device=device), use_cache=False).logits[0]
            scores = torch.log_softmax(logits[sequence.first :].float(), dim=-1)
            targets = torch.tensor(sequence.targets, device=device).unsqueeze(1)
            values.append(float(scores.gather(1, targets).sum()))
    return values


def _place(row: Row, root: int, device: torch.device) -> _Placed:
    places, targets = torch.from_numpy(row.places), torch.from_numpy(row.targets)
    padded = targets < 0
    kept, index = torch.unique(places[~padded], sorted=True, return_inverse=True)
    indexed = torch.zeros_like(places)
    indexed[~padded] = index
    return _Placed(
        tokens=torch.from_numpy(row.tokens).unsqueeze(0).to(device),
        positions=(torch.from_numpy(row.depths) + root).unsqueeze(0).to(device),
        ends=torch.from_numpy(row.ends).to(device),
        kept=kept.to(device),
        places=indexed.to(device),
        targets=targets.masked_fill(padded, 0).to(device),
        padded=padded.to(device),
        members=row.members,
    )


def _logits(model: Any, row: _Placed, root: int, cache: Any) -> torch.Tensor:
    """Return the logits (k, vocabulary) at the kept tokens of a row."""
    arguments: dict[str, Any] = {"past_key_values": fork(cache)} if cache is not None else {}
    if keeps_logits(model):
        arguments["logits_to_keep"] = row.kept
    logits = model(
        input_ids=row.tokens,
        attention_mask=_mask(row.ends, root, model.dtype),
        position_ids=row.positions,
        use_cache=cache is not None,
        **arguments,
    ).logits[0]
    return logits if "logits_to_keep" in arguments else logits[row.kept]


def _mask(ends: torch.Tensor, root: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask (1, 1, q, root + q): every token sees the root, its ancestors and itself."""
    order = torch.arange(len(ends), device=ends.device)
    sees = (order.unsqueeze(0) <= order.unsqueeze(1)) & (order.unsqueeze(1) < ends.unsqueeze(0))  # (q, q)
    mask = torch.zeros(len(ends), root + len(ends), dtype=dtype, device=ends.device)
    mask[:, root:].masked_fill_(~sees, torch.finfo(dtype).min)
    return mask.unsqueeze(0).unsqueeze(0)
