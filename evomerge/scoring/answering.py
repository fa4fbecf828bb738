"""All that the resident model can be asked: tasks through lm-eval's prompts, and the other measures."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import CandidateError, TaskError
from evomerge.metrics import metric_info
from evomerge.scoring import harness
from evomerge.scoring.answer_cache import AnswerCache, digest, identity
from evomerge.scoring.kinds import Asking
from evomerge.scoring.measures import Measure, Written
from evomerge.scoring.mishaps import about_text
from evomerge.scoring.resident_cache import layer_kinds
from evomerge.scoring.resident_scorer import ResidentScorer, answered
from evomerge.scoring.rungs import Rungs, check_answers
from evomerge.scoring.ways import Output, Way, WrittenAnswers, ways

REMEMBERED = 32  # sets of texts whose packed requests are kept


@dataclass(frozen=True)
class Request:
    """A request of a measure in the form of lm-eval's, which its adapter and ours read."""

    request_type: str
    args: tuple[Any, ...]
    task_name: str
    repeats: int = 1


class Answerer(ResidentScorer):
    """The resident scorer, which also asks measures; it is their `Door` to the model."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task_set: harness.TaskSet,
        measures: Sequence[Measure] = (),
        batch_size: int | str | None = "auto",
        cache: AnswerCache | None = None,
    ) -> None:
        """Read the measures' documents; see ResidentScorer for the rest.

        Args:
            model: see ResidentScorer, as `tokenizer`, `task_set` and `batch_size`.
            tokenizer: of the model.
            task_set: loaded tasks.
            measures: what may be asked beside the tasks.
            batch_size: sequences at a time while answers are written.
            cache: of answers to `remembered`.

        Raises:
            TaskError: a file or function of a measure is missing or wrong.
        """
        super().__init__(model, tokenizer, task_set, batch_size=batch_size)
        self._measures: Mapping[str, Asking] = {measure.name: Asking(measure) for measure in measures}
        self._sets: dict[str, list[tuple[tuple[int, ...], Way]]] = {}
        self._lengths: dict[str, int] = {}  # tokens of a text
        self._cache = cache
        settings = dict(task_set.settings.lm_eval)
        self._identity = identity(model, self._resident.asker.tokenizer, settings) if cache is not None else ""
        self._questions: dict[tuple[str, str, str | None], str] = {}  # (task, item, chat template) -> hash of it all

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self._resident.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self._resident.asker.tokenizer

    def answers(self, task: str, item_ids: Iterable[str]) -> tuple[Response, ...]:
        """Return the model's responses to some items of a task or a measure; see ResidentScorer and Asking."""
        if task in self._measures:
            return self._measures[task].answers(tuple(item_ids), self)
        return super().answers(task, item_ids)

    def _graded(
        self,
        task: str,
        items: tuple[str, ...],
        given: Sequence[Sequence[Sequence[Output]]],
        together: Collection[str],
    ) -> tuple[Response, ...]:
        return (*super()._graded(task, items, given, together), *self._about_texts(task, items, given))

    def remembered(self, weights: str, task: str, items: Sequence[str]) -> tuple[Response, ...]:
        """Return the responses as `answers` does, those from the cache that a model of these very weights gave.

        Args:
            weights: names the weights that are in the model now, see weights.fingerprint; '' asks the model.
            task: or measure. What a user's function or a judge says is always asked for, since it may depend on more
                than the model.
            items: in order.
        """
        return tuple(itertools.chain(*self.portions(weights, task, items)))

    def portions(
        self, weights: str, task: str, items: Sequence[str], together: Sequence[str] = (), seconds: float = math.inf
    ) -> Iterator[tuple[Response, ...]]:
        """Yield the responses of `remembered` as batches end; those of a measure all at once.

        Args:
            weights: see `remembered`, as `task` and `items`.
            task: or measure.
            items: in order.
            together: items from which the batches are made, see `output_portions`; not where answers are found in the
                cache, for what is left is then asked by itself.
            seconds: that pass at least between two portions.
        """
        measure = self._measures.get(task)
        cached = (
            self._cache is not None
            and bool(weights)
            and (measure is None or metric_info(measure.measure.kind).cacheable)
        )
        keys = {item: digest(self._identity, weights, self._question(task, item)) for item in items} if cached else {}
        found = self._cache.get(keys) if self._cache is not None and keys else {}
        missing = [item for item in items if item not in found]
        whole = tuple(missing) if found or not together else tuple(together)
        ready = [response for item in items for response in found.get(item, ())]
        if task in self._measures:
            ready += self._kept(keys, self.answers(task, missing) if missing else ())
            missing = []
        given: dict[str, list[list[Output]]] = {}
        since = time.monotonic()
        for portion in self.output_portions(task, missing, whole) if missing else ():
            given |= portion
            if time.monotonic() - since >= seconds:
                yield (*ready, *self._kept(keys, self._grade_some(task, items, given, whole)))
                ready, given, since = [], {}, time.monotonic()
        if given:
            ready += self._kept(keys, self._grade_some(task, items, given, whole))
        if keys:  # whoever asked first, the order is the same
            place = {item: number for number, item in enumerate(items)}
            ready.sort(key=lambda response: place[response.item])
        if ready:
            yield tuple(ready)

    def _grade_some(
        self, task: str, items: Sequence[str], given: Mapping[str, list[list[Output]]], together: Collection[str]
    ) -> tuple[Response, ...]:
        ended = tuple(item for item in items if item in given)
        return self._graded(task, ended, [given[item] for item in ended], together)

    def _kept(self, keys: Mapping[str, str], responses: Sequence[Response]) -> Sequence[Response]:
        """Return responses after putting those to items that have a key into the cache."""
        if keys and responses and self._cache is not None:
            by_item: dict[str, list[Response]] = {}
            for response in responses:
                by_item.setdefault(response.item, []).append(response)
            self._cache.put((keys[item], of_item) for item, of_item in by_item.items())
        return responses

    def _question(self, task: str, item: str) -> str:
        """Return a hash of the task's version and of what is asked: prompts, choices and generation settings."""
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

    def probe(self, task: str, items: Sequence[str], rungs: Rungs) -> None:
        """Look at the model's answers to the first items of a task, where they are written ones.

        Raises:
            CandidateError: too many of them are empty or repetitive.
        """
        first = tuple(items[: rungs.probes])
        if task in self._measures or rungs.degenerate >= 1 or not first or not self._tasks.writes(task):
            return
        texts = [str(text) for answers in self.outputs(task, first) for text in answers[0]]
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        check_answers(task, texts, ids, rungs)

    def _about_texts(
        self, task: str, items: tuple[str, ...], given: Sequence[Sequence[Sequence[Output]]]
    ) -> list[Response]:
        """Return, per written answer of the outputs just given, its length and whether it was cut off."""
        found: dict[str, Written] = {}
        for prompt, answers in zip(self._prepare(task, items), given, strict=True):
            for request, answer in zip(prompt.requests, answers, strict=True):
                if request.request_type != "generate_until" or prompt.item in found:
                    continue
                if prompt.item in self._written:  # by a way of ours, which knows exactly
                    found[prompt.item] = self._written[prompt.item]
                else:
                    limit = harness.writing(self._resident.asker, request.args[1])[1]
                    found[prompt.item] = self._measured(str(answer[0]), limit)
        return [response for item, written in found.items() for response in about_text(task, item, written)]

    def likelihoods(self, name: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the log likelihood (nats) of each text after its context; an empty context is the model's start."""
        outputs = self._asked([Request("loglikelihood", (context, text), name) for context, text in pairs])
        return [_finite(name, output[0]) for output in outputs]

    def losses(self, name: str, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Return the negative log likelihood (nats) of each text on its own, and its number of tokens."""
        outputs = self._asked([Request("loglikelihood_rolling", (text,), name) for text in texts])
        return [(-_finite(name, output), self._length(text)) for output, text in zip(outputs, texts, strict=True)]

    def write(self, name: str, prompts: Sequence[str], limit: int, until: Sequence[str] = ()) -> list[Written]:
        """Return the model's greedy answers of at most `limit` tokens.

        Where `apply_chat_template` is set for the tasks, each prompt is a user's message here too.
        """
        settings = {"until": list(until), "max_gen_toks": limit, "do_sample": False}
        requests = [Request("generate_until", (self._prompt(prompt), settings), name) for prompt in prompts]
        written = [self._measured(str(text), limit) for text in self._asked(requests)]
        for numbers, way in self._packed(requests):
            if isinstance(way, WrittenAnswers):  # which knows exactly
                for number, answer in zip(numbers, way.written, strict=True):
                    written[number] = answer
        return written

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            windows = harness.rolling_windows(self._resident.asker, text)
            self._lengths[text] = sum(len(after) for _, after in windows)
        return self._lengths[text]

    def _measured(self, text: str, limit: int) -> Written:
        """Return a text that lm-eval's adapter wrote, with its tokens as far as they can be told from the text."""
        tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Written(text, min(tokens, limit), tokens < limit)

    def _prompt(self, prompt: str) -> str:
        if not self._tasks.settings["apply_chat_template"]:
            return prompt
        if not getattr(self.tokenizer, "chat_template", None):
            raise TaskError(
                "apply_chat_template is set, but the tokenizer has no chat template; unset it under lm_eval"
            )
        instruction = self._tasks.settings["system_instruction"]
        system = [{"role": "system", "content": instruction}] if instruction else []
        return str(self._resident.asker.apply_chat_template([*system, {"role": "user", "content": prompt}]))

    def _asked(self, requests: Sequence[Request]) -> list[Output]:
        """Return one output per request."""
        outputs: list[Output] = [None] * len(requests)
        for numbers, way in self._packed(requests):
            for portion in answered(way, range(len(numbers))):
                for place, output in portion.items():
                    outputs[numbers[place]] = output[0]
        return outputs

    def _packed(self, requests: Sequence[Request]) -> list[tuple[tuple[int, ...], Way]]:
        """Return how the requests are asked, which is prepared once and used for every candidate."""
        key = repr((requests, sorted(layer_kinds(self.model)), self._resident.memory))
        if key not in self._sets:
            self._sets[key] = ways(self._resident, requests)
            while len(self._sets) > REMEMBERED:
                del self._sets[next(iter(self._sets))]
        return self._sets[key]


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise CandidateError(f"{name!r}: the log likelihood of a text is {value}")
    return float(value)
