"""The documents, version and responses of a measure, by the row of its kind in `evomerge.metrics`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import TaskError
from evomerge.metrics import function_of, metric_info
from evomerge.scoring.documents import Catalogue, catalogue
from evomerge.scoring.measures import Door, Measure
from evomerge.scoring.texts import read_prompts


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


class Asking:
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

    def answers(self, items: Sequence[str], door: Door) -> tuple[Response, ...]:
        """Return the resident model's responses to some documents.

        Raises:
            TaskError: a document does not exist, or a user's function returned something of another form.
            CandidateError: the model's outputs are not numbers, or a user's function failed on this model.
            InfrastructureError: a judge cannot be reached or answers in another form.
        """
        ask = function_of(metric_info(self.measure.kind).ask)
        return tuple(ask(self.measure, items, [self.content(item) for item in items], door))
