"""A measure: a metric of a model beside lm-eval's tasks, as plain data that travels to any worker.

A measure takes the place of a task: it has a name, documents that are pinned and split like a task's, a version, and
responses per document. The row of its kind in `evomerge.metric_kinds` names its documents and the function that
asks the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from evomerge.candidate import Objective, Response
from evomerge.errors import TaskError
from evomerge.metric_kinds import METRICS, MetricInfo, function_of, metric_info, register_metric
from evomerge.scoring.lm_eval._documents import Catalogue, catalogue
from evomerge.scoring.metrics._texts import read_prompts


@dataclass(frozen=True)
class Measure:
    """One metric of a model; `settings` are JSON-ready, with absolute paths and every default filled in."""

    kind: str  # kind of a registered metric; never 'task'
    name: str  # stands where a task's name stands
    settings: Mapping[str, Any] = field(default_factory=dict)  # settings, keyed as the kind names them

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
class Generation:
    """The text that a model generated after a prompt."""

    text: str  # cut at its stops
    tokens: int  # length of the answer, without the token that ended it
    ended: bool  # False where the limit of tokens came first


class ModelInterface(Protocol):
    """The interface of measures to the resident model."""

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

    def write(self, name: str, prompts: Sequence[str], limit: int, until: Sequence[str] = ()) -> list[Generation]:
        """Return the model's greedy answers of at most `limit` tokens.

        Args:
            name: of the measure that asks, for messages.
            prompts: what is before the answer; no template is put around it.
            limit: tokens.
            until: texts that end an answer, beside the end-of-text token; they are cut off.
        """
        ...


def contents(measure: Measure) -> tuple[dict[str, Any], ...]:
    """Return the documents of a measure.

    Raises:
        TaskError: a file is missing, unreadable or too short; names the file.
    """
    settings, listed = measure.settings, metric_info(measure.kind).documents
    if listed is not None:
        return tuple(function_of(listed)(settings))
    if settings.get("prompts") is not None:
        return tuple(read_prompts(settings["prompts"]))
    # Named by their place, which is also their only content: what they are is known to the user's function alone. A
    # size of the model is one number; a time is measured several times.
    return tuple({"place": place} for place in range(settings.get("items") or 1))


def documents(measure: Measure) -> Catalogue:
    """Return the names and hashes of a measure's documents."""
    return catalogue(measure.name, contents(measure))


def version(measure: Measure) -> str:
    """Return a hash of everything in a measure that can change an answer; of files, what they hold.

    Raises:
        TaskError: something that the measure needs is missing or wrong.
    """
    info = metric_info(measure.kind)
    # Where files are does not matter, and what they hold is in the documents.
    settings = {key: value for key, value in measure.settings.items() if key not in (*info.files, "folder")}
    facts: list[Any] = [measure.kind, settings, [document.hash for document in documents(measure).documents]]
    if info.version is not None:
        facts += function_of(info.version)(measure.settings)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


class BoundMetric:
    """One measure on one worker: its documents are read once and asked of every candidate."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.version = version(measure)
        names = [document.id for document in documents(measure).documents]
        self._contents = dict(zip(names, contents(measure), strict=True))

    def content(self, item: str) -> Mapping[str, Any]:
        """Return a document.

        Raises:
            TaskError: there is none of this name.
        """
        if item not in self._contents:
            raise TaskError(f"{self.measure.name!r} has no document {item!r}; it has {len(self._contents)}")
        return self._contents[item]

    def answers(self, items: Sequence[str], interface: ModelInterface) -> tuple[Response, ...]:
        """Return the resident model's responses to some documents.

        Raises:
            TaskError: a document does not exist, or a user's function returned something of another form.
            CandidateError: the model's outputs are not numbers, or a user's function failed on this model.
            InfrastructureError: a judge cannot be reached or answers in another form.
        """
        ask = function_of(metric_info(self.measure.kind).ask)
        return tuple(ask(self.measure, items, [self.content(item) for item in items], interface))
