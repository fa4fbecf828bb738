"""Greedy answers in batches: a shared beginning is computed once, and a sequence ends where its answer ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evomerge.errors import CandidateError
from evomerge.scoring._stopwatch import Stopwatch
from evomerge.scoring.batched._kv_cache import compute_root, fork, keeps_logits
from evomerge.scoring.batched._packing import SHORTEST_ROOT
from evomerge.scoring.metrics._metric import Generation

Decode = Callable[[Sequence[Sequence[int]]], list[str]]  # token ids per sequence -> texts, special tokens left out


@dataclass(frozen=True)
class Stops:
    """When an answer is complete, and what of it counts."""

    strings: tuple[str, ...]  # lm-eval's order matters: an answer is cut at each in turn
    tokens: frozenset[int]  # end-of-text tokens
    limit: int  # new tokens at most

    def cut(self, text: str) -> str:
        """Return the text before the stop strings."""
        for string in self.strings:
            if string:
                text = text.split(string)[0]
        return text

    def complete(self, text: str) -> bool:
        """True where more text after `text` could not change its cut."""
        # A stop string that is found may turn out to overlap another, which cuts elsewhere and comes first in order;
        # only then is more text needed, at most as much as the longest string has.
        ends = [text.find(string) + len(string) for string in self.strings if string and string in text]
        return bool(ends) and (not self._overlap or len(text) - min(ends) >= self.longest)

    @property
    def longest(self) -> int:
        """Characters of the longest stop string."""
        return max((len(string) for string in self.strings), default=0)

    @property
    def _overlap(self) -> bool:
        strings = [string for string in self.strings if string]
        return any(_cuts_earlier(a, b) for number, b in enumerate(strings) for a in strings[:number])


def _cuts_earlier(a: str, b: str) -> bool:
    """True where a text ending with `b` can go on to an `a` that begins before that end, but not where `b` begins."""
    for begun in range(1, len(a)):  # characters of `a` that are there when `b` ends
        common = min(begun, len(b))
        if begun != len(b) and a[begun - common : begun] == b[len(b) - common :]:
            return True
    return False


def write_batches(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    decode: Decode,
    batch_size: int,
    device: torch.device,
    wanted: Collection[int] | None = None,
    stopwatch: Stopwatch | None = None,
) -> Iterator[dict[int, Generation]]:
    """Yield prompt -> its greedy continuation, cut at its stops, with its tokens and whether it came to its end.

    Args:
        model: a causal language model with a growing key/value cache.
        prompts: token ids, none empty; they and `stops.limit` new tokens fit the model's context.
        stops: when an answer ends.
        decode: texts of token ids.
        batch_size: sequences at a time; a dictionary is yielded for each such batch.
        device: of the model.
        wanted: places of prompts; batches that hold none of them are left out. A batch that is written is always
            written whole, so that its texts do not depend on what else is wanted. None: all.
        stopwatch: receives the seconds of prefill and of decoding.

    Raises:
        CandidateError: logits are NaN or infinite.
    """
    watch = stopwatch or Stopwatch()
    root = _shared(prompts)
    order = sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), tuple(prompts[number])))
    cache = None
    if root:
        with watch.prefill(), torch.inference_mode():
            cache = compute_root(model, root, device)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        if wanted is not None and set(wanted).isdisjoint(numbers):
            continue
        # Not around the loop: a generator that waits would leave its caller in inference mode.
        with torch.inference_mode():
            batch = _Batch(model, [prompts[number][len(root) :] for number in numbers], len(root), cache, device)
            answers = batch.run(stops, decode, watch)
        yield dict(zip(numbers, answers, strict=True))


def trial_steps(
    model: Any, prompts: Sequence[Sequence[int]], steps: int, device: torch.device
) -> Iterator[tuple[list[list[int]], list[float]]]:
    """Yield, per step, the texts so far and the largest logit that the cached, padded step gave after each."""
    root = _shared(prompts)
    texts = [list(prompt) for prompt in prompts]
    with torch.inference_mode():
        cache = compute_root(model, root, device) if root else None
        batch = _Batch(model, [prompt[len(root) :] for prompt in prompts], len(root), cache, device)
        for _ in range(steps):
            tokens = batch.step()
            yield [list(text) for text in texts], batch.best
            for text, token in zip(texts, tokens, strict=True):
                text.append(token)


class _Batch:
    """Sequences that are written together, padded on the left; it shrinks as they end."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], root: int, cache: Any, device: torch.device):
        width = max(len(prompt) for prompt in prompts)
        pads = torch.tensor([width - len(prompt) for prompt in prompts], device=device)
        self._model = model
        self._texts: list[list[int]] = [[] for _ in prompts]
        self._active = list(range(len(prompts)))  # index of the prompt behind each row of the tensors
        self._going = set(self._active)  # prompts whose answer is not complete
        self._ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        places = torch.arange(width, device=device).unsqueeze(0)
        seen = torch.ones(len(prompts), root, dtype=torch.long, device=device)
        self._mask = torch.cat([seen, (places >= pads.unsqueeze(1)).long()], dim=1)
        self._positions = (root + places - pads.unsqueeze(1)).clamp(min=0)
        self._cache: Any = None
        if cache is not None:
            self._cache = fork(cache)
            self._cache.batch_repeat_interleave(len(prompts))
        self._arguments: dict[str, Any] = {"logits_to_keep": 1} if keeps_logits(model) else {}

    @property
    def best(self) -> list[float]:
        """Largest logit of the last step, per active row."""
        return [float(value) for value in self._largest.tolist()]

    def run(self, stops: Stops, decode: Decode, watch: Stopwatch) -> list[Generation]:
        """Return the answers, in the order of the prompts; the first step reads the prompts, the others write."""
        for count in range(stops.limit):
            with watch.decode() if count else watch.prefill():
                tokens = self.step()
            self._append(tokens, stops, decode)
            if not self._going:
                break
            self._shrink()
        ended = [number not in self._going for number in range(len(self._texts))]
        return [
            Generation(stops.cut(text), len(tokens) - end, end)
            for text, tokens, end in zip(decode(self._texts), self._texts, ended, strict=True)
        ]

    def step(self) -> list[int]:
        """Return the next token of every active row."""
        out = self._model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            **self._arguments,
        )
        self._cache = out.past_key_values
        best, tokens = out.logits[:, -1].max(dim=-1)  # NaN anywhere is the maximum
        if not torch.isfinite(best).all():
            raise CandidateError("the model's logits are NaN or infinite while it writes an answer")
        self._largest = best
        self._ids = tokens.unsqueeze(1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._positions = self._positions[:, -1:] + 1
        return [int(token) for token in tokens.tolist()]

    def _append(self, tokens: Sequence[int], stops: Stops, decode: Decode) -> None:
        """Add a token to every answer that is going, and take out those that are complete with it."""
        going = [(row, token) for row, token in zip(self._active, tokens, strict=True) if row in self._going]
        for row, token in going:
            self._texts[row].append(token)
        self._going -= {row for row, token in going if token in stops.tokens}
        rows = [row for row, _ in going if row in self._going]
        if not rows or not any(stops.strings):  # decoding no rows gives one empty text, not none
            return
        # The end of a text shows whether a stop string has just appeared; the whole text then decides.
        window = 2 * stops.longest + 8
        for row, tail in zip(rows, decode([self._texts[row][-window:] for row in rows]), strict=True):
            found = any(string and string in tail for string in stops.strings)
            if found and stops.complete(decode([self._texts[row]])[0]):
                self._going.discard(row)

    def _shrink(self) -> None:
        # Copying a cache costs about as much as a step, so rows that are done ride along until half of them are.
        if 2 * len(self._going) > len(self._active):
            return
        places = [place for place, row in enumerate(self._active) if row in self._going]
        chosen = torch.tensor(places, device=self._ids.device)
        self._cache.batch_select_indices(chosen)
        self._ids, self._mask = self._ids[chosen], self._mask[chosen]
        self._positions = self._positions[chosen]
        self._active = [self._active[place] for place in places]


def _shared(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return what all prompts begin with, leaving each at least one token of its own."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(len(prompt) for prompt in prompts) - 1
    length = next((place for place in range(limit) if first[place] != last[place]), limit)
    return tuple(first[:length]) if length >= SHORTEST_ROOT and len(prompts) > 1 else ()
