"""The kinds of measures: what each one's documents are, what changes its version, and who asks it.

Adding a kind is a file with an `ask` of the same form, a line in each table here and in `measures`, and its form in
`searchfile.objectives`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import TaskError
from evomerge.scoring import judge, lengths, perplexity, phrases, python_function, sizes
from evomerge.scoring.documents import Catalogue, catalogue
from evomerge.scoring.measures import Door, Measure
from evomerge.scoring.texts import chunks, read_prompts, read_text

Ask = Callable[[Measure, Sequence[str], Sequence[Mapping[str, Any]], Door], list[Response]]
ASK: Mapping[str, Ask] = {
    "perplexity": perplexity.ask,
    "python": python_function.ask,
    "phrases": phrases.ask,
    "response_length": lengths.ask,
    "judge": judge.ask,
    **dict.fromkeys(sizes.SIZES, sizes.ask),
}
PLACES = ("file", "prompts", "folder")  # settings that say where something is; its content counts instead
FEWEST_CHUNKS = 4  # of a text: two to search on and two held out, so that both have a standard error


def contents(measure: Measure) -> tuple[dict[str, Any], ...]:
    """Return the documents of a measure.

    Raises:
        TaskError: a file is missing, unreadable or too short; names the file.
    """
    settings = measure.settings
    if measure.kind == "perplexity":
        found = chunks(read_text(settings["file"]), settings["chunk"])
        if len(found) < FEWEST_CHUNKS:
            raise TaskError(
                f"{settings['file']} has {len(found)} chunks of up to {settings['chunk']} characters; at least "
                f"{FEWEST_CHUNKS} are needed for standard errors: give a longer text, or lower chunk"
            )
        return tuple({"text": text} for text in found)
    if measure.kind == "phrases":
        return tuple(dict(phrase) for phrase in settings["phrases"])
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
    settings = {key: value for key, value in measure.settings.items() if key not in PLACES}
    facts: list[Any] = [measure.kind, settings, [document.hash for document in documents(measure).documents]]
    if measure.kind == "judge" and (problem := judge.key_problem(settings)):
        raise TaskError(problem)
    if measure.kind == "python":
        facts.append(python_function.read_function(settings["function"], measure.settings["folder"]).digest)
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
        return tuple(ASK[self.measure.kind](self.measure, items, [self.content(item) for item in items], door))
