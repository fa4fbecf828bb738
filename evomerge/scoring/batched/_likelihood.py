"""Log likelihoods of packed token sequences: one pass over the distinct tokens, prefixes through the cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evomerge.scoring.batched._kv_cache import compute_root, fork, keeps_logits
from evomerge.scoring.batched._packing import Likelihood, PrefixBatches, Row

# Tokens at a row's start, shared by all of it, from which on they have a pass of their own: without a mask their
# attention is causal, which kernels do in half the work.
SHORTEST_STEM = 64


@dataclass(frozen=True)
class _Placed:
    """A row as tensors on the model's device, made once and used for every candidate.

    A long shared beginning is set apart as the stem; the q tokens are those after it.
    """

    stem: torch.Tensor  # (1, p), p = 0 where there is none
    stem_positions: torch.Tensor  # (1, p)
    tokens: torch.Tensor  # (1, q)
    positions: torch.Tensor  # (1, q)
    ends: torch.Tensor  # (q,) as in Row, counted after the stem
    kept: torch.Tensor  # (k,) tokens whose logits are needed, ascending, counted after the stem
    places: torch.Tensor  # (s, t) index into kept
    targets: torch.Tensor  # (s, t), 0 where padded
    padded: torch.Tensor  # (s, t) bool
    members: tuple[int, ...]


class PackedBatches:
    """Packed sequences as tensors on a device; `score` runs the model with its current weights."""

    def __init__(self, batches: PrefixBatches, device: torch.device) -> None:
        self.root = batches.root
        self.row_lengths = [len(row.tokens) for row in batches.rows]
        self.size = sum(len(row.members) for row in batches.rows)
        self._device = device
        self._rows = [_place(row, len(batches.root), device) for row in batches.rows]

    def score(self, model: Any, softmax_dtype: torch.dtype | None = None) -> list[tuple[float, bool]]:
        """Return (log likelihood of the targets, all of them are the model's first choice) per sequence.

        The softmax is taken in `softmax_dtype`, by default that of the logits, and summed in it, as lm-eval does.
        """
        results: list[tuple[float, bool]] = [(0.0, False)] * self.size
        for found in self.score_rows(model, softmax_dtype):
            for member, result in found.items():
                results[member] = result
        return results

    def score_rows(
        self, model: Any, softmax_dtype: torch.dtype | None = None, wanted: Collection[int] | None = None
    ) -> Iterator[dict[int, tuple[float, bool]]]:
        """Yield sequence -> result as in `score`, row by row.

        Args:
            model: to ask.
            softmax_dtype: see `score`.
            wanted: sequences; rows that hold none of them are left out. A row that is asked is always asked whole, so
                its numbers do not depend on what else is wanted. None: all.
        """
        # Not around the loop: a generator that waits would leave its caller in inference mode.
        cache = None
        if self.root:
            with torch.inference_mode():
                cache = compute_root(model, self.root, self._device)
        for row in self._rows:
            if wanted is None or not set(wanted).isdisjoint(row.members):
                yield self._score_row(model, row, cache, softmax_dtype)

    def _score_row(
        self, model: Any, row: _Placed, cache: Any, softmax_dtype: torch.dtype | None
    ) -> dict[int, tuple[float, bool]]:
        with torch.inference_mode():
            logits = _logits(model, row, len(self.root), cache)
            scores = torch.log_softmax(logits, dim=-1, dtype=softmax_dtype)  # (k, vocabulary)
            chosen = scores[row.places, row.targets].masked_fill(row.padded, 0.0)  # (s, t)
            greedy = (scores.argmax(dim=-1)[row.places] == row.targets) | row.padded
            values, firsts = chosen.sum(dim=1).tolist(), greedy.all(dim=1).tolist()
        return {member: (value, first) for member, value, first in zip(row.members, values, firsts, strict=True)}


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
    tokens = torch.from_numpy(row.tokens).unsqueeze(0).to(device)
    positions = (torch.from_numpy(row.depths) + root).unsqueeze(0).to(device)
    stem = _stem(row, int(kept[0]))
    return _Placed(
        stem=tokens[:, :stem],
        stem_positions=positions[:, :stem],
        tokens=tokens[:, stem:],
        positions=positions[:, stem:],
        ends=(torch.from_numpy(row.ends)[stem:] - stem).to(device),
        kept=(kept - stem).to(device),
        places=indexed.to(device),
        targets=targets.masked_fill(padded, 0).to(device),
        padded=padded.to(device),
        members=row.members,
    )


def _stem(row: Row, first_kept: int) -> int:
    """Return how many tokens at the row's start all others see, before any logits are needed; 0 if few."""
    shared = row.ends == len(row.tokens)
    length = int(shared.argmin()) if not shared.all() else len(row.tokens)
    length = min(length, first_kept)
    return length if length >= SHORTEST_STEM else 0


def _logits(model: Any, row: _Placed, root: int, cache: Any) -> torch.Tensor:
    """Return the logits (k, vocabulary) at the kept tokens of a row."""
    past, seen, keeps = cache, root + row.stem.shape[1], keeps_logits(model)
    if row.stem.shape[1]:
        few: dict[str, Any] = {"logits_to_keep": 1} if keeps else {}
        past = model(
            input_ids=row.stem,
            position_ids=row.stem_positions,
            past_key_values=fork(cache) if cache is not None else None,
            use_cache=True,
            **few,
        ).past_key_values
        past.transient = True  # nobody reads on after the row, see resident_cache.fork
    elif cache is not None:
        past = fork(cache, transient=True)
    logits = model(
        input_ids=row.tokens,
        attention_mask=_mask(row.ends, seen, model.dtype),
        position_ids=row.positions,
        past_key_values=past,
        use_cache=past is not None,
        **({"logits_to_keep": row.kept} if keeps else {}),
    ).logits[0]
    return logits if keeps else logits[row.kept]


def _mask(ends: torch.Tensor, seen: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask (1, 1, q, seen + q): every token sees what is cached, its ancestors, and itself."""
    order = torch.arange(len(ends), device=ends.device)
    sees = (order.unsqueeze(0) <= order.unsqueeze(1)) & (order.unsqueeze(1) < ends.unsqueeze(0))  # (q, q)
    mask = torch.zeros(len(ends), seen + len(ends), dtype=dtype, device=ends.device)
    mask[:, seen:].masked_fill_(~sees, torch.finfo(dtype).min)
    return mask.unsqueeze(0).unsqueeze(0)
