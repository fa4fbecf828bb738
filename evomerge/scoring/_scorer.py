"""Scores the resident model, whatever weights are in it: tasks through lm-eval's prompts, and the other metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evomerge.candidate import Response
from evomerge.errors import CandidateError, InputError, TaskError
from evomerge.metric_kinds import metric_info
from evomerge.scoring._answer_cache import AnswerCache, digest, identity
from evomerge.scoring._answer_flags import SHORTENED, length_flags
from evomerge.scoring._sanity_checks import SanityChecks, check_answers
from evomerge.scoring._stopwatch import Stopwatch
from evomerge.scoring.batched._backends import (
    Backend,
    BackendCache,
    GenerationBackend,
    InferenceContext,
    Output,
    run_backend,
)
from evomerge.scoring.batched._encoding import Encoder
from evomerge.scoring.lm_eval import _adapter as harness
from evomerge.scoring.metrics._metric import BoundMetric, Generation, Measure

PLAIN_BATCH = 8  # sequences per batch of lm-eval's adapter, where the batch size is "auto"


@dataclass(frozen=True)
class Request:
    """A request of a measure in the form of lm-eval's, which its adapter and ours read."""

    request_type: str
    args: tuple[Any, ...]
    task_name: str
    repeats: int = 1


class ModelQueries:
    """The model interface of metrics: likelihoods, losses and greedy texts of any prompts."""

    def __init__(self, backends: BackendCache) -> None:
        self._backends = backends
        self._lengths: dict[str, int] = {}  # tokens of a text

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self._backends.context.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self._backends.context.lm.tokenizer

    def likelihoods(self, name: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the log likelihood (nats) of each text after its context; an empty context is the model's start."""
        outputs = self._run([Request("loglikelihood", (context, text), name) for context, text in pairs])
        return [_log_likelihood(name, output) for output in outputs]

    def losses(self, name: str, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Return the negative log likelihood (nats) of each text on its own, and its number of tokens."""
        outputs = self._run([Request("loglikelihood_rolling", (text,), name) for text in texts])
        return [
            (-_log_likelihood(name, output), self._length(text)) for output, text in zip(outputs, texts, strict=True)
        ]

    def write(self, name: str, prompts: Sequence[str], limit: int, until: Sequence[str] = ()) -> list[Generation]:
        """Return the model's greedy answers of at most `limit` tokens.

        Where `apply_chat_template` is set for the tasks, each prompt is a user's message here too.
        """
        settings = {"until": list(until), "max_gen_toks": limit, "do_sample": False}
        requests = [Request("generate_until", (self._prompt(prompt), settings), name) for prompt in prompts]
        written = [self.measured(str(text), limit) for text in self._run(requests)]
        for numbers, backend in self._backends.backends(requests):
            if isinstance(backend, GenerationBackend):  # it knows the exact tokens
                for number, answer in zip(numbers, backend.written, strict=True):
                    written[number] = answer
        return written

    def measured(self, text: str, limit: int) -> Generation:
        """Return a text of lm-eval's adapter with its number of tokens, as far as the text shows it."""
        tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Generation(text, min(tokens, limit), tokens < limit)

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            windows = harness.rolling_windows(self._backends.context.lm, text)
            self._lengths[text] = sum(len(after) for _, after in windows)
        return self._lengths[text]

    def _prompt(self, prompt: str) -> str:
        if not self._backends.context.settings["apply_chat_template"]:
            return prompt
        if not getattr(self.tokenizer, "chat_template", None):
            raise TaskError(
                "apply_chat_template is set, but the tokenizer has no chat template; unset it under lm_eval"
            )
        instruction = self._backends.context.settings["system_instruction"]
        system = [{"role": "system", "content": instruction}] if instruction else []
        return str(self._backends.context.lm.apply_chat_template([*system, {"role": "user", "content": prompt}]))

    def _run(self, requests: Sequence[Request]) -> list[Output]:
        """Return one output per request."""
        outputs: list[Output] = [math.nan] * len(requests)
        for numbers, backend in self._backends.backends(requests):
            for portion in run_backend(backend, range(len(numbers))):
                for place, output in portion.items():
                    outputs[numbers[place]] = output[0]
        return outputs


class ModelScorer:
    """Scores one model in memory; prompts are built, tokenized and packed once and used for every candidate.

    The model is the caller's: its weights and the tokenizer's chat template may change between calls, the rest of the
    tokenizer and the model's shape may not. Answers equal those of `lm_eval.simple_evaluate` on the same weights saved
    as a folder: choices and texts exactly, log likelihoods up to the rounding of sums taken in another order. In
    bfloat16 that rounding is as coarse as between two batch sizes of lm-eval itself, and near ties may fall either way.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task_set: harness.TaskSet,
        measures: Sequence[Measure] = (),
        batch_size: int | str | None = "auto",
        cache: AnswerCache | None = None,
        fast: bool = True,
    ) -> None:
        """Read the measures' documents.

        Args:
            model: transformers model on its device, in evaluation mode.
            tokenizer: of the model.
            task_set: loaded tasks.
            measures: metrics beside the tasks.
            batch_size: sequences at a time while answers are written; "auto" bounds their memory instead.
            cache: of answers, used by `portions`.
            fast: False uses lm-eval's own adapter only.

        Raises:
            TaskError: a file or function of a measure is missing or wrong.
            InputError: the batch size is not a positive whole number or "auto".
        """
        given = _size_of(batch_size if batch_size not in (None, "auto") else task_set.settings["batch_size"] or None)
        lm = harness.make_lm(model, tokenizer, task_set.settings, given or PLAIN_BATCH)
        device: torch.device = model.get_input_embeddings().weight.device
        context = InferenceContext(model, lm, Encoder(lm), task_set.settings, device, given, fast)
        self._backends = BackendCache(context)
        self.queries = ModelQueries(self._backends)
        self._tasks, self._tokenizer, self._lm = task_set, tokenizer, lm
        self._prompts: dict[tuple[str, str | None], dict[str, harness.Prompt]] = {}
        self._truncated: dict[str, set[str]] = {}
        self._fallbacks: dict[str, str] = {}
        self._written: dict[str, Generation] = {}  # item -> its first written answer in the last call
        self._measures: Mapping[str, BoundMetric] = {measure.name: BoundMetric(measure) for measure in measures}
        self._cache = cache
        self._identity = identity(model, lm.tokenizer, dict(task_set.settings.lm_eval)) if cache is not None else ""
        self._questions: dict[tuple[str, str, str | None], str] = {}  # (task, item, chat template) -> its hash

    @property
    def stopwatch(self) -> Stopwatch:
        """The seconds of prefill and decode."""
        return self._backends.context.stopwatch

    @property
    def truncated(self) -> Mapping[str, int]:
        """Task -> number of items so far whose prompt lost its beginning to fit the context."""
        return {task: len(items) for task, items in self._truncated.items() if items}

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """Task -> reason for the use of lm-eval's own adapter instead of shared prefixes."""
        return dict(self._fallbacks)

    def limit_memory(self, fraction: float) -> None:
        """Limit batches to this fraction of their usual memory from now on; 1 lifts the limit."""
        self._backends.limit_memory(fraction)

    def answers(self, task: str, item_ids: Iterable[str]) -> tuple[Response, ...]:
        """Return the model's responses to some items of a task or a measure, for every per-item metric.

        Raises:
            TaskError: the task or an item does not exist.
            CandidateError: the model's outputs are not numbers (NaN or infinite).
            InfrastructureError: memory does not suffice for one sequence.
        """
        if task in self._measures:
            return self._measures[task].answers(tuple(item_ids), self.queries)
        items = tuple(dict.fromkeys(item_ids))
        return self._graded(task, items, dict(zip(items, self.outputs(task, items), strict=True)), items)

    def outputs(self, task: str, items: Iterable[str]) -> list[list[list[Output]]]:
        """Return the model's outputs, before filters and metrics: per item, per request, per repeat."""
        wanted = tuple(items)
        given: dict[str, list[list[Output]]] = {}
        for portion in self.output_portions(task, wanted):
            given |= portion
        return [given[item] for item in wanted]

    def output_portions(
        self, task: str, items: Sequence[str], together: Sequence[str] = ()
    ) -> Iterator[dict[str, list[list[Output]]]]:
        """Yield item -> the model's outputs, per request and repeat, as the last batch of an item's requests ends.

        Args:
            task: of the items.
            items: their outputs are wanted.
            together: items, these among them, from which the batches are made; by default these. With the same items
                together, an output is the same whichever are wanted (unless memory has run out since).
        """
        whole, asked = tuple(dict.fromkeys(together or items)), set(items)
        prompts = self._prepare(task, whole)
        owners = [prompt.item for prompt in prompts for _ in prompt.requests]
        missing = {prompt.item: len(prompt.requests) for prompt in prompts if prompt.item in asked}
        given: dict[int, list[Output]] = {}
        firsts = {item: place for place, item in reversed(list(enumerate(owners)))}
        self._written.clear()
        for numbers, backend in self.backends(task, whole):
            wanted = [place for place, number in enumerate(numbers) if owners[number] in asked]
            for portion in run_backend(backend, wanted):
                for place, output in portion.items():
                    item = owners[numbers[place]]
                    given[numbers[place]] = output
                    missing[item] -= 1
                    if isinstance(backend, GenerationBackend):
                        self._written.setdefault(item, backend.written[place])
                ended = [item for item, count in missing.items() if count == 0]
                missing = {item: count for item, count in missing.items() if count}
                found = {item: _of_item(given, owners, firsts[item]) for item in ended}
                _check_finite(task, found)
                if found:
                    yield found

    def backends(self, task: str, items: Sequence[str]) -> list[tuple[tuple[int, ...], Backend]]:
        """Return (places of requests, backend) for the requests of some items of a task."""
        prompts = self._prepare(task, items)
        owners = [prompt.item for prompt in prompts for _ in prompt.requests]
        requests = [request for prompt in prompts for request in prompt.requests]
        chosen = self._backends.backends(requests, task, items, self._template)
        for numbers, backend in chosen:
            self._truncated.setdefault(task, set()).update(owners[numbers[place]] for place in backend.truncated)
            if backend.fallback is not None:
                self._fallbacks[task] = backend.fallback
        return chosen

    def portions(
        self, weights: str, task: str, items: Sequence[str], together: Sequence[str] = (), seconds: float = math.inf
    ) -> Iterator[tuple[Response, ...]]:
        """Yield the responses to items of a task as batches end; those to a measure all at once.

        Args:
            weights: names the weights that are in the model now, see weights.fingerprint, so that the cache can answer;
                '' runs the model.
            task: or measure. A user's function and a judge are always called, since they may depend on more than the
                model.
            items: in order.
            together: items from which the batches are made, see `output_portions`; not where answers are found in the
                cache, for what is left is then asked by itself.
            seconds: the least time between two portions.
        """
        measure = self._measures.get(task)
        cacheable = measure is None or metric_info(measure.measure.kind).cacheable
        cached = self._cache is not None and bool(weights) and cacheable
        keys = {item: digest(self._identity, weights, self._question(task, item)) for item in items} if cached else {}
        found = self._cache.get(keys) if self._cache is not None and keys else {}
        missing = [item for item in items if item not in found]
        whole = tuple(missing) if found or not together else tuple(together)
        ready = [response for item in items for response in found.get(item, ())]
        if task in self._measures:
            ready += _keep(self._cache, keys, self.answers(task, missing) if missing else ())
            missing = []
        given: dict[str, list[list[Output]]] = {}
        since = time.monotonic()
        for portion in self.output_portions(task, missing, whole) if missing else ():
            given |= portion
            if time.monotonic() - since >= seconds:
                yield (*ready, *_keep(self._cache, keys, self._graded(task, items, given, whole)))
                ready, given, since = [], {}, time.monotonic()
        if given:
            ready += _keep(self._cache, keys, self._graded(task, items, given, whole))
        if keys:  # the order does not depend on which were in the cache
            place = {item: number for number, item in enumerate(items)}
            ready.sort(key=lambda response: place[response.item])
        if ready:
            yield tuple(ready)

    def probe(self, task: str, items: Sequence[str], checks: SanityChecks) -> None:
        """Check the model's written answers to the first items of a task.

        Raises:
            CandidateError: too many of them are empty or repetitive.
        """
        first = tuple(items[: checks.probes])
        if task in self._measures or checks.degenerate >= 1 or not first or not self._tasks.writes(task):
            return
        texts = [str(text) for answers in self.outputs(task, first) for text in answers[0]]
        ids = [self.queries.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        check_answers(task, texts, ids, checks)

    def _question(self, task: str, item: str) -> str:
        """Return a hash of the task's version and of the item's prompts, choices and generation settings."""
        key = (task, item, self._template)
        if key not in self._questions:
            if task in self._measures:
                measure = self._measures[task]
                facts: list[Any] = [measure.version, measure.measure.settings, measure.content(item)]
            else:
                (prompt,) = self._prepare(task, [item])
                asked = [[request.request_type, request.args, request.repeats] for request in prompt.requests]
                facts = [self._tasks.version(task), asked]
            self._questions[key] = digest(task, item, facts)
        return self._questions[key]

    def _graded(
        self, task: str, wanted: Sequence[str], outputs: Mapping[str, list[list[Output]]], together: Collection[str]
    ) -> tuple[Response, ...]:
        """Return the responses for the outputs of those wanted items that have some; they ran together with others."""
        items = tuple(item for item in wanted if item in outputs)
        given = [outputs[item] for item in items]
        graded = self._tasks.grade(task, self._prepare(task, items), given) if items else ()
        cut = self._truncated.get(task, set()).intersection(together)
        if cut:  # usually every prompt fits, and the flag is left out
            graded += tuple(Response(task, item, SHORTENED, float(item in cut)) for item in items)
        return (*graded, *self._length_flags(task, items, given))

    def _prepare(self, task: str, items: Sequence[str]) -> list[harness.Prompt]:
        if (template := self._template) is not None:
            self._lm.tokenizer.chat_template = template  # a copy of the caller's
        known = self._prompts.setdefault((task, template), {})
        missing = [item for item in items if item not in known]
        if missing:
            known |= {prompt.item: prompt for prompt in self._tasks.prompts(task, missing, self._lm)}
        return [known[item] for item in items]

    @property
    def _template(self) -> str | None:
        """The chat template of the prompts, which may differ between recipes; None where they are no chats."""
        if not self._tasks.settings["apply_chat_template"]:
            return None
        template: str | None = getattr(self._tokenizer, "chat_template", None)
        return template

    def _length_flags(
        self, task: str, items: tuple[str, ...], given: Sequence[Sequence[Sequence[Output]]]
    ) -> list[Response]:
        """Return, per written answer, its length and whether it was cut off."""
        found: dict[str, Generation] = {}
        for prompt, answers in zip(self._prepare(task, items), given, strict=True):
            for request, answer in zip(prompt.requests, answers, strict=True):
                if request.request_type != "generate_until" or prompt.item in found:
                    continue
                if prompt.item in self._written:  # our backend knows the exact tokens
                    found[prompt.item] = self._written[prompt.item]
                else:
                    limit = harness.writing(self._lm, request.args[1])[1]
                    found[prompt.item] = self.queries.measured(str(answer[0]), limit)
        return [response for item, written in found.items() for response in length_flags(task, item, written)]


def _of_item(given: Mapping[int, list[Output]], owners: Sequence[str], first: int) -> list[list[Output]]:
    """Return the outputs of the item whose requests begin at `first`."""
    ends = next((place for place in range(first, len(owners)) if owners[place] != owners[first]), len(owners))
    return [given[place] for place in range(first, ends)]


def _check_finite(task: str, given: Mapping[str, Sequence[Sequence[Output]]]) -> None:
    for item, answers in given.items():
        for output in (output for repeats in answers for output in repeats):
            value = output[0] if isinstance(output, tuple) else output
            if isinstance(value, float) and not math.isfinite(value):
                raise CandidateError(f"task {task!r}, item {item!r}: the log likelihood of an answer is {value}")


def _log_likelihood(name: str, output: Output) -> float:
    value = output[0] if isinstance(output, tuple) else output
    if isinstance(value, str) or not math.isfinite(value):
        raise CandidateError(f"{name!r}: the log likelihood of a text is {value}")
    return float(value)


def _keep(cache: AnswerCache | None, keys: Mapping[str, str], responses: Sequence[Response]) -> Sequence[Response]:
    """Return responses after putting those to items that have a key into the cache."""
    if keys and responses and cache is not None:
        by_item: dict[str, list[Response]] = {}
        for response in responses:
            by_item.setdefault(response.item, []).append(response)
        cache.put((keys[item], of_item) for item, of_item in by_item.items())
    return responses


def _size_of(batch_size: Any) -> int | None:
    """Return a batch size, None where it is automatic."""
    size = "auto" if batch_size is None else batch_size
    if size != "auto" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise InputError(f"batch_size must be a whole number of at least 1, or 'auto', got {size!r}")
    return None if size == "auto" else int(size)
