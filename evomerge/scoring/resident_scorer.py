"""Answers of the resident model: lm-eval's, item by item, whatever weights are in it at the moment."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from evomerge.candidate import Response
from evomerge.errors import CandidateError, InfrastructureError, InputError, out_of_memory
from evomerge.scoring import harness
from evomerge.scoring.asking import Encoder
from evomerge.scoring.items import ItemPlan
from evomerge.scoring.measures import Written
from evomerge.scoring.mishaps import SHORTENED
from evomerge.scoring.resident_cache import layer_kinds
from evomerge.scoring.stopwatch import Stopwatch
from evomerge.scoring.ways import Output, Resident, Way, WrittenAnswers, ways

PLAIN_BATCH = 8  # sequences at a time on the plain path, where the batch size is "auto"
REMEMBERED_SETS = 16  # item sets whose packed requests are kept
# task, items, chat template, kinds of layers, memory of a pass as a share of what it may take
_Asked = tuple[str, tuple[str, ...], str | None, frozenset[str], float]


class ResidentScorer:
    """Asks one model in memory; prompts are built, tokenized and packed once and used for every candidate.

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
        plan: ItemPlan | None = None,
        batch_size: int | str | None = "auto",
        device: str | torch.device | None = None,
        fast: bool = True,
    ) -> None:
        """Build the prompts of a plan's search items.

        Args:
            model: transformers model on its device, in evaluation mode.
            tokenizer: of the model.
            task_set: loaded tasks.
            plan: items whose prompts are built at once; others are built when first asked for.
            batch_size: sequences at a time while answers are written; "auto" bounds their memory instead.
            device: of the model's inputs; by default that of its embeddings.
            fast: False asks through lm-eval's own adapter only.

        Raises:
            TaskError: a prompt cannot be built, as where a chat template is asked for and there is none.
            InputError: the batch size is not a positive whole number or "auto".
        """
        size = batch_size if batch_size not in (None, "auto") else task_set.settings["batch_size"] or "auto"
        if size != "auto" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise InputError(f"batch_size must be a whole number of at least 1, or 'auto', got {size!r}")
        given = None if size == "auto" else int(size)
        asker = harness.asker(model, tokenizer, task_set.settings, given or PLAIN_BATCH)
        where = torch.device(device) if device is not None else model.get_input_embeddings().weight.device
        self._resident = Resident(model, asker, Encoder(asker), task_set.settings, where, given, fast)
        self._tasks, self._tokenizer = task_set, tokenizer
        self._prompts: dict[tuple[str, str | None], dict[str, harness.Prompt]] = {}
        # What is sound for one kind of layers need not be for another, see soundness.architecture_doubt.
        self._ways: dict[_Asked, list[tuple[tuple[int, ...], Way]]] = {}
        self._truncated: dict[str, set[str]] = {}
        self._fallbacks: dict[str, str] = {}
        self._written: dict[str, Written] = {}  # item -> its first written answer, as asked last
        for task, items in (plan.search if plan is not None else {}).items():
            self._prepare(task, items)

    @property
    def stopwatch(self) -> Stopwatch:
        """The seconds that the model took to read and to write."""
        return self._resident.stopwatch

    def limit_memory(self, share: float) -> None:
        """Let batches take this share of the memory that they take otherwise, from now on; 1 lifts the limit."""
        if share != self._resident.memory:
            self._resident = replace(self._resident, memory=share)

    @property
    def truncated(self) -> Mapping[str, int]:
        """Task -> number of items asked so far whose prompt lost its beginning to fit the context."""
        return {task: len(items) for task, items in self._truncated.items() if items}

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """Task -> why it is asked through lm-eval's own adapter instead of with shared prefixes."""
        return dict(self._fallbacks)

    def answers(self, task: str, item_ids: Iterable[str]) -> tuple[Response, ...]:
        """Return the model's responses to some items of a task, for every per-item metric of the task.

        Raises:
            TaskError: the task or an item does not exist.
            CandidateError: the model's outputs are not numbers (NaN or infinite).
            InfrastructureError: memory does not suffice for one sequence.
        """
        items = tuple(dict.fromkeys(item_ids))
        return self._graded(task, items, self.outputs(task, items), items) if items else ()

    def outputs(self, task: str, items: Iterable[str]) -> list[list[list[Output]]]:
        """Return what the model said, before filters and metrics: per item, per request, per repeat."""
        wanted = tuple(items)
        given: dict[str, list[list[Output]]] = {}
        for portion in self.output_portions(task, wanted):
            given |= portion
        return [given[item] for item in wanted]

    def output_portions(
        self, task: str, items: Sequence[str], together: Sequence[str] = ()
    ) -> Iterator[dict[str, list[list[Output]]]]:
        """Yield item -> what the model said, per request and repeat, as the last batch of an item's requests ends.

        Args:
            task: of the items.
            items: whose outputs are wanted.
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
        for numbers, way in self._ways_of(task, whole, prompts):
            wanted = [place for place, number in enumerate(numbers) if owners[number] in asked]
            for portion in answered(way, wanted):
                for place, output in portion.items():
                    item = owners[numbers[place]]
                    given[numbers[place]] = output
                    missing[item] -= 1
                    if isinstance(way, WrittenAnswers):
                        self._written.setdefault(item, way.written[place])
                ended = [item for item, count in missing.items() if count == 0]
                missing = {item: count for item, count in missing.items() if count}
                found = {item: _of_item(given, owners, firsts[item]) for item in ended}
                _check_finite(task, found)
                if found:
                    yield found

    def _graded(
        self,
        task: str,
        items: tuple[str, ...],
        given: Sequence[Sequence[Sequence[Output]]],
        together: Collection[str],
    ) -> tuple[Response, ...]:
        """Return the responses for the outputs of some items, which were asked together with others."""
        graded = self._tasks.grade(task, self._prepare(task, items), given)
        cut = self._truncated.get(task, set()).intersection(together)
        if cut:  # silent where every prompt fits, which is the rule
            graded += tuple(Response(task, item, SHORTENED, float(item in cut)) for item in items)
        return graded

    def _prepare(self, task: str, items: Sequence[str]) -> list[harness.Prompt]:
        if (template := self._template) is not None:
            self._resident.asker.tokenizer.chat_template = template  # a copy of the caller's
        known = self._prompts.setdefault((task, template), {})
        missing = [item for item in items if item not in known]
        if missing:
            known |= {prompt.item: prompt for prompt in self._tasks.prompts(task, missing, self._resident.asker)}
        return [known[item] for item in items]

    @property
    def _template(self) -> str | None:
        """What prompts are written in, which may differ between recipes; None where they are no chats."""
        if not self._tasks.settings["apply_chat_template"]:
            return None
        template: str | None = getattr(self._tokenizer, "chat_template", None)
        return template

    def _ways_of(
        self, task: str, items: tuple[str, ...], prompts: Sequence[harness.Prompt]
    ) -> list[tuple[tuple[int, ...], Way]]:
        key = (task, items, self._template, layer_kinds(self._resident.model), self._resident.memory)
        if key not in self._ways:
            owners = [prompt.item for prompt in prompts for _ in prompt.requests]
            found = ways(self._resident, [request for prompt in prompts for request in prompt.requests])
            for numbers, way in found:
                self._truncated.setdefault(task, set()).update(owners[numbers[place]] for place in way.truncated)
                if way.fallback is not None:
                    self._fallbacks[task] = way.fallback
            self._ways[key] = found
            while len(self._ways) > REMEMBERED_SETS:
                del self._ways[next(iter(self._ways))]
        return self._ways[key]


def _of_item(given: Mapping[int, list[Output]], owners: Sequence[str], first: int) -> list[list[Output]]:
    """Return the outputs of the item whose requests begin at `first`."""
    ends = next((place for place in range(first, len(owners)) if owners[place] != owners[first]), len(owners))
    return [given[place] for place in range(first, ends)]


def answered(way: Way, wanted: Collection[int]) -> Iterator[dict[int, list[Output]]]:
    """Yield a way's outputs per request; where memory runs out, the rest in smaller batches.

    Raises:
        InfrastructureError: memory does not suffice for one sequence.
    """
    left = set(wanted)
    while left:
        try:
            for portion in way.portions(left):
                left -= portion.keys()
                yield portion
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
                raise
            message = (str(error) or type(error).__name__).splitlines()[0]
        # Outside the handler, since the error's traceback holds the tensors of the failed pass.
        if not way.shrink():
            raise InfrastructureError(f"out of memory even for one sequence at a time: {message}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _check_finite(task: str, given: Mapping[str, Sequence[Sequence[Output]]]) -> None:
    for item, answers in given.items():
        for output in (output for repeats in answers for output in repeats):
            value = output[0] if isinstance(output, tuple) else output
            if isinstance(value, float) and not math.isfinite(value):
                raise CandidateError(f"task {task!r}, item {item!r}: the log likelihood of an answer is {value}")
