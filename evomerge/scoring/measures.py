"""What a measure is: something wanted of a model beside lm-eval's tasks, as plain data that travels to any worker.

A measure takes a task's place: it has a name, documents that are pinned and split like a task's, a version, and
responses per document. What each kind's documents are, and how they are asked, is in `kinds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from evomerge.candidate import Objective
from evomerge.metrics import METRICS, MetricInfo, metric_info, register_metric


@dataclass(frozen=True)
class Measure:
    """One thing to measure of a model; `settings` are JSON-ready, with absolute paths and every default filled in."""

    kind: str  # of a registered metric; never 'task'
    name: str  # stands where a task's name stands
    settings: Mapping[str, Any] = field(default_factory=dict)  # by the kind's own keys

    def objective(self, goal: Literal["maximize", "minimize"] | None = None, weight: float | None = None) -> Objective:
        """Return the objective that wants this measure; it has the measure's name.

        Args:
            goal: which direction is better; None: the kind's own.
            weight: in the weighted mean; None: 1, and 0 for a size of the model, see `objectives`.
        """
        info = metric_info(self.kind)
        if weight is None:
            weight = 0.0 if info.size else 1.0
        return Objective(self.name, self.name, info.metric, goal or info.goal, weight, kind=self.kind)

    def __reduce__(self) -> tuple[Any, ...]:
        # The row travels along: a worker has not run the line that registered the metric.
        return _measure, (metric_info(self.kind), self.name, self.settings)


def _measure(info: MetricInfo, name: str, settings: Mapping[str, Any]) -> Measure:
    if info.kind not in METRICS:
        register_metric(info)
    return Measure(info.kind, name, settings)


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt."""

    text: str  # cut at its stops
    tokens: int  # of the answer, without the one that ended it
    ended: bool  # False where the limit of tokens came first


class Door(Protocol):
    """What a measure may ask of the model that is resident at the moment."""

    @property
    def model(self) -> Any:
        """The transformers model."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        ...

    def likelihoods(self, name: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the log likelihood (nats) of each text after its context; an empty context is the model's start.

        Args:
            name: of the measure that asks, for messages.
            pairs: (context, text).
        """
        ...

    def losses(self, name: str, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Return the negative log likelihood (nats) of each text on its own, and its number of tokens.

        Args:
            name: of the measure that asks, for messages.
            texts: each read from the model's start.
        """
        ...

    def write(self, name: str, prompts: Sequence[str], limit: int, until: Sequence[str] = ()) -> list[Written]:
        """Return the model's greedy answers of at most `limit` tokens.

        Args:
            name: of the measure that asks, for messages.
            prompts: what is before the answer; no template is put around it.
            limit: tokens.
            until: texts that end an answer, beside the end-of-text token; they are cut off.
        """
        ...
