"""Backends that run requests on the resident model: packed likelihoods, batched generation, or lm-eval's own adapter.

A backend is prepared once per set of requests and run for every candidate.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from evomerge.errors import CandidateError, InfrastructureError, out_of_memory
from evomerge.scoring._answer_cache import digest
from evomerge.scoring._stopwatch import Stopwatch
from evomerge.scoring.batched._compat import (
    architecture_fallback_reason,
    caching_fallback_reason,
    generation_fallback_reason,
    packing_fallback_reason,
)
from evomerge.scoring.batched._encoding import Encoded, Encoder
from evomerge.scoring.batched._generation import Stops, write_batches
from evomerge.scoring.batched._kv_cache import layer_kinds
from evomerge.scoring.batched._likelihood import PackedBatches
from evomerge.scoring.batched._packing import pack_sequences
from evomerge.scoring.lm_eval import _adapter as harness
from evomerge.scoring.lm_eval._settings import TaskSettings
from evomerge.scoring.metrics._metric import Generation

Output = tuple[float, bool] | float | str  # (log likelihood, is greedy), a log likelihood, or a text
REMEMBERED_SETS = 32  # request sets whose backends are kept

# Bytes that one pass may take beyond the weights where the device does not tell what is free.
MEMORY_ON_CPU = 1 << 30
ROW_ON_CPU = 384  # tokens; measured flat between 256 and 512 for models of width 64 to 512


class Backend(Protocol):
    """Runs its requests with the current weights of the model."""

    truncated: frozenset[int]  # requests that lost their beginning to fit the context, by their place here
    fallback: str | None  # reason for the use of lm-eval's adapter, or None

    def portions(self, wanted: Collection[int] | None = None) -> Iterator[dict[int, list[Output]]]:
        """Yield request -> its outputs, one per repeat, as batches end.

        Args:
            wanted: places of requests. What is asked in one batch does not depend on it, so neither does any output.
                None: all.
        """
        ...

    def shrink(self) -> bool:
        """Halve the memory of a pass; False where it cannot be less."""
        ...


@dataclass(frozen=True)
class InferenceContext:
    """The model for inference: with lm-eval's adapter around it, its tokenizer, device and limits."""

    model: Any
    lm: Any
    encoder: Encoder
    settings: TaskSettings
    device: torch.device
    batch_size: int | None  # sequences written at a time; None bounds their memory
    fast: bool = True
    memory: float = 1.0  # fraction of the usual memory of a pass: less where a worker ran out of it
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    # (task, kind of request, kinds of layers) -> reason, once measured
    measured: dict[tuple[str, str, frozenset[str]], str | None] = field(default_factory=dict)


def choose_backends(context: InferenceContext, requests: Sequence[Any]) -> list[tuple[tuple[int, ...], Backend]]:
    """Return (places of requests, backend) per kind of request and generation settings."""
    groups: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        settings = request.args[1] if request.request_type == "generate_until" else None
        groups.setdefault(json.dumps([request.request_type, settings], default=str), []).append(number)
    return [(tuple(numbers), _choose(context, [requests[number] for number in numbers])) for numbers in groups.values()]


class BackendCache:
    """The backends of request sets, chosen once per set, kinds of layers and memory limit."""

    def __init__(self, context: InferenceContext) -> None:
        self.context = context
        self._known: dict[str, list[tuple[tuple[int, ...], Backend]]] = {}

    def limit_memory(self, fraction: float) -> None:
        """Limit batches to this fraction of their usual memory from now on; 1 lifts the limit."""
        if fraction != self.context.memory:
            self.context = replace(self.context, memory=fraction)

    def backends(self, requests: Sequence[Any], *name: Any) -> list[tuple[tuple[int, ...], Backend]]:
        """Return (places of requests, backend) for some requests.

        Args:
            requests: in lm-eval's form.
            name: JSON-ready facts that identify the requests; by default the requests themselves.
        """
        facts = name or [(request.request_type, request.args, request.repeats) for request in requests]
        # A backend that is right for one kind of layers may be wrong for another, see compat.
        key = digest(facts, sorted(layer_kinds(self.context.model)), self.context.memory)
        if key not in self._known:
            self._known[key] = choose_backends(self.context, requests)
            while len(self._known) > REMEMBERED_SETS:
                del self._known[next(iter(self._known))]
        return self._known[key]


def run_backend(backend: Backend, wanted: Collection[int]) -> Iterator[dict[int, list[Output]]]:
    """Yield a backend's outputs per request; where memory runs out, the rest in smaller batches.

    Raises:
        InfrastructureError: memory does not suffice for one sequence.
    """
    left = set(wanted)
    while left:
        try:
            for portion in backend.portions(left):
                left -= portion.keys()
                yield portion
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
                raise
            message = (str(error) or type(error).__name__).splitlines()[0]
        # Outside the handler, since the error's traceback holds the tensors of the failed pass.
        if not backend.shrink():
            raise InfrastructureError(f"out of memory even for one sequence at a time: {message}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class PlainBackend:
    """Requests that lm-eval's own adapter asks."""

    truncated: frozenset[int] = frozenset()

    def __init__(self, context: InferenceContext, requests: Sequence[Any], reason: str) -> None:
        self.fallback: str | None = reason
        self._context = context
        self._requests = list(requests)

    def portions(self, wanted: Collection[int] | None = None) -> Iterator[dict[int, list[Output]]]:
        """Yield the outputs, all at once: the adapter makes its batches from everything that it is given.

        Raises:
            CandidateError: the model's logits after the first prompt of a written answer are not numbers; the
                adapter itself would write on, whatever they are.
        """
        written, watch = self._requests[0].request_type == "generate_until", self._context.stopwatch
        if written:
            self._check(self._requests[0].args[0])
        with watch.decode() if written else watch.prefill():  # the adapter does not report prefill and decode apart
            outputs = harness.ask(self._context.lm, self._requests, self._context.settings)
        yield {place: output for place, output in enumerate(outputs) if wanted is None or place in wanted}

    def shrink(self) -> bool:
        """Return False: the adapter has its own batches."""
        return False

    def _check(self, text: str) -> None:
        tokens = self._context.lm.tok_encode(text)[-self._context.lm.max_length :]
        with torch.inference_mode():
            logits = self._context.model(input_ids=torch.tensor([tokens], device=self._context.device)).logits
        if not torch.isfinite(logits[0, -1]).all():
            raise CandidateError("the model's logits are NaN or infinite after a prompt")


class LikelihoodBackend:
    """Likelihood requests packed into rows; a rolling request is the sum of its windows."""

    fallback: str | None = None

    def __init__(self, context: InferenceContext, requests: Sequence[Any], encoded: Sequence[Encoded]) -> None:
        self.truncated = frozenset(place for place, one in enumerate(encoded) if one.truncated)
        self._context = context
        self._rolling = requests[0].request_type == "loglikelihood_rolling"
        self._counts = [len(one.parts) for one in encoded]
        self._repeats = [request.repeats or 1 for request in requests]
        self._parts = [part for one in encoded for part in one.parts]
        self._owners = [place for place, one in enumerate(encoded) for _ in one.parts]  # part -> its request
        self._firsts = list(itertools.accumulate(self._counts, initial=0))  # request -> its first part
        self._budget, self._ceiling = row_tokens(context.model, context.device, context.memory)
        self._pack()

    def portions(self, wanted: Collection[int] | None = None) -> Iterator[dict[int, list[Output]]]:
        """Yield request -> its outputs after each row that ends some."""
        places = range(len(self._counts)) if wanted is None else wanted
        parts = {self._firsts[place] + part for place in places for part in range(self._counts[place])}
        missing = {place: self._counts[place] for place in places}
        scores: dict[int, tuple[float, bool]] = {}
        rows = self.batches.score_rows(self._context.model, self._context.lm.softmax_dtype, parts)
        while True:
            with self._context.stopwatch.prefill():
                row = next(rows, None)
            if row is None:
                break
            scores |= row
            for part in row.keys() & parts:
                missing[self._owners[part]] -= 1
            ended = [place for place, count in missing.items() if count == 0]
            if ended:
                yield {place: self._output(place, scores) for place in ended}
            for place in ended:
                del missing[place]

    def _output(self, place: int, scores: Mapping[int, tuple[float, bool]]) -> list[Output]:
        own = [scores[self._firsts[place] + part] for part in range(self._counts[place])]
        return [sum(value for value, _ in own) if self._rolling else own[0]] * self._repeats[place]

    def shrink(self) -> bool:
        """Halve the tokens of a row, down to one sequence per row."""
        if self._ceiling <= 1:
            return False
        # Rows may be longer than the ceiling because of one sequence; go below what they really hold.
        self._ceiling = min(self._ceiling, max(self.batches.row_lengths)) // 2
        self._budget = min(self._budget, self._ceiling)
        self._pack()
        return True

    def _pack(self) -> None:
        self.batches = PackedBatches(pack_sequences(self._parts, self._budget, self._ceiling), self._context.device)


class GenerationBackend:
    """Greedy answers of one kind: the same stop strings and the same limit."""

    fallback: str | None = None

    def __init__(
        self,
        context: InferenceContext,
        requests: Sequence[Any],
        encoded: Sequence[Encoded],
        strings: Sequence[str],
        limit: int,
    ) -> None:
        self.truncated = frozenset(place for place, one in enumerate(encoded) if one.truncated)
        ends = context.model.generation_config.eos_token_id
        self._context = context
        self._stops = Stops(tuple(strings), frozenset([ends] if isinstance(ends, int) else ends), limit)
        self.written: list[Generation] = [Generation("", 0, True)] * len(requests)  # as asked last, per request
        self._repeats = [request.repeats or 1 for request in requests]
        self._prompts = [one.prompt for one in encoded]
        longest = max(len(prompt) for prompt in self._prompts) + limit
        fitting = written_at_once(context.model, longest, context.device, context.memory)
        self._batch = max(1, int(context.batch_size * context.memory)) if context.batch_size else fitting

    def portions(self, wanted: Collection[int] | None = None) -> Iterator[dict[int, list[Output]]]:
        """Yield request -> its outputs after each batch."""
        tokenizer = self._context.lm.tokenizer
        batches = write_batches(
            self._context.model,
            self._prompts,
            self._stops,
            lambda ids: tokenizer.batch_decode(ids, skip_special_tokens=True),
            self._batch,
            self._context.device,
            wanted,
            self._context.stopwatch,
        )
        for batch in batches:
            for place, answer in batch.items():
                self.written[place] = answer
            asked = [place for place in batch if wanted is None or place in wanted]
            yield {place: [self.written[place].text] * self._repeats[place] for place in asked}

    def shrink(self) -> bool:
        """Halve the sequences that are written together."""
        self._batch, before = max(1, self._batch // 2), self._batch
        return before > 1


def row_tokens(model: Any, device: torch.device, memory: float = 1.0) -> tuple[int, int]:
    """Return how many tokens a row should hold, and how many at most; both times `memory`.

    Long rows share more and keep an accelerator busy; what their attention costs grows with their length, and at
    twice the model's width it is a third of the work. On a CPU nothing is gained beyond a few hundred tokens. The
    logits of a row must fit in memory.
    """
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    aim = ROW_ON_CPU if device.type == "cpu" else max(1024, min(2 * getattr(config, "hidden_size", 1024), 4096))
    row_of_logits = 8 * model.get_output_embeddings().weight.shape[0]  # bytes per token: logits and their softmax
    ceiling = max(1, int(memory * max(64, min(4 * aim, free_memory(device) // row_of_logits))))
    return max(1, min(int(memory * aim), ceiling)), ceiling


def written_at_once(model: Any, length: int, device: torch.device, memory: float = 1.0) -> int:
    """Return how many sequences of `length` tokens are written together, so that their cache fits in memory.

    Args:
        model: to ask.
        length: tokens of the longest.
        device: of the model.
        memory: share of the number that would be chosen otherwise.
    """
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    per_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Keys and values, and as much again while a longer cache replaces the one before.
    per_token = 4 * config.num_hidden_layers * heads * per_head * model.dtype.itemsize
    return int(max(1, memory * min(256, free_memory(device) // (per_token * length))))


def free_memory(device: torch.device) -> int:
    """Return bytes that a pass may take: a quarter of what is free on an accelerator, a constant on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 4)
    return MEMORY_ON_CPU


def _choose(context: InferenceContext, requests: Sequence[Any]) -> Backend:
    kind = requests[0].request_type
    lm = context.lm
    if not context.fast:
        return PlainBackend(context, requests, "shared prefixes are switched off")
    for name in ("mixed_precision_dtype", "think_end_token", "enable_thinking", "truncation"):
        if getattr(lm, name, None):
            return PlainBackend(context, requests, f"model argument {name} is set")
    return _writing(context, requests) if kind == "generate_until" else _likelihoods(context, requests)


def _likelihoods(context: InferenceContext, requests: Sequence[Any]) -> Backend:
    encoder = context.encoder
    if requests[0].request_type == "loglikelihood_rolling":
        encoded = [_rolling(context, request.args[0]) for request in requests]
    else:
        encoded = [encoder.likelihood(*request.args[:2]) for request in requests]
    parts = [part for one in encoded for part in one.parts]
    longest = max(len(part.inputs) for part in parts)
    reason = architecture_fallback_reason(context.model, longest)
    if reason is None:
        reason = _once(context, requests[0], lambda: packing_fallback_reason(context.model, parts, context.device))
    if reason is not None:
        return PlainBackend(context, requests, reason)
    return LikelihoodBackend(context, requests, encoded)


def _writing(context: InferenceContext, requests: Sequence[Any]) -> Backend:
    strings, limit, others = harness.writing(context.lm, requests[0].args[1])
    reason = generation_fallback_reason(context.model, others)
    if reason is not None:
        return PlainBackend(context, requests, reason)
    encoded = [context.encoder.prompt(request.args[0], limit) for request in requests]
    prompts = [one.prompt for one in encoded]
    longest = max(len(prompt) for prompt in prompts) + limit
    reason = architecture_fallback_reason(context.model, longest)
    if reason is None:
        reason = _once(context, requests[0], lambda: caching_fallback_reason(context.model, prompts, context.device))
    if reason is not None:
        return PlainBackend(context, requests, reason)
    return GenerationBackend(context, requests, encoded, strings, limit)


def _once(context: InferenceContext, request: Any, measure: Callable[[], str | None]) -> str | None:
    """Return what `measure` finds, from memory where requests of this task and kind were measured before."""
    key = (str(request.task_name), str(request.request_type), layer_kinds(context.model))
    if key not in context.measured:
        context.measured[key] = measure()
    return context.measured[key]


def _rolling(context: InferenceContext, text: str) -> Encoded:
    windows = [context.encoder.window(before, after) for before, after in harness.rolling_windows(context.lm, text)]
    parts = tuple(part for window in windows for part in window.parts)
    return Encoded(parts, truncated=any(window.truncated for window in windows))
