"""Answers of the resident model: lm-eval's, item by item, whatever weights are in it at the moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import CandidateError
from evomerge.scoring import harness
from evomerge.scoring.items import ItemPlan


class ResidentScorer:
    """Asks one model in memory; prompts are built on first use and kept for every candidate that follows.

    The model is the caller's: its weights may change between calls, its tokenizer and shape may not. Answers equal
    those of `lm_eval.simple_evaluate` on the same weights saved as a folder.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task_set: harness.TaskSet,
        plan: ItemPlan | None = None,
        batch_size: int | str = "auto",
        device: str | None = None,
    ) -> None:
        size = batch_size if isinstance(batch_size, int) else 16
        self._tasks = task_set
        self._asker = harness.asker(model, tokenizer, task_set.settings, size)
        self._prompts: dict[str, dict[str, harness.Prompt]] = {}
        for task, items in (plan.search if plan is not None else {}).items():
            self._prepare(task, items)

    def answers(self, task: str, item_ids: Iterable[str]) -> tuple[Response, ...]:
        """Return the model's responses to some items of a task, for every per-item metric of the task.

        Raises:
            TaskError: the task or an item does not exist.
            CandidateError: the model's outputs are not numbers (NaN or infinite).
        """
        items = tuple(dict.fromkeys(item_ids))
        if not items:
            return ()
        given = self.outputs(task, items)
        return self._tasks.grade(task, self._prepare(task, items), given)

    def outputs(self, task: str, items: Sequence[str]) -> list[list[list[Any]]]:
        """Return what the model said, before filters and metrics: per item, per request, per repeat."""
        prompts = self._prepare(task, items)
        requests = [request for prompt in prompts for request in prompt.requests]
        outputs = iter(harness.ask(self._asker, requests, self._tasks.settings))
        given = [[next(outputs) for _ in prompt.requests] for prompt in prompts]
        _check_finite(task, prompts, given)
        return given

    def _prepare(self, task: str, items: Sequence[str]) -> list[harness.Prompt]:
        known = self._prompts.setdefault(task, {})
        missing = [item for item in items if item not in known]
        if missing:
            known |= {prompt.item: prompt for prompt in self._tasks.prompts(task, missing, self._asker)}
        return [known[item] for item in items]


def _check_finite(task: str, prompts: Sequence[harness.Prompt], outputs: Sequence[Sequence[Any]]) -> None:
    for prompt, answers in zip(prompts, outputs, strict=True):
        for repeats in answers:
            for output in repeats:
                value = output[0] if isinstance(output, tuple) else output
                if isinstance(value, float) and not math.isfinite(value):
                    raise CandidateError(f"task {task!r}, item {prompt.item!r}: log likelihood is {value}")
