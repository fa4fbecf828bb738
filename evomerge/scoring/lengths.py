"""How long a model's answers are, in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.scoring.measures import Door, Measure

TOKENS = "tokens"


def ask(measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], door: Door) -> list[Response]:
    """Return the tokens of each answer, the one that ends it not counted; at most the limit of tokens."""
    prompts = [document["prompt"] for document in documents]
    written = door.write(measure.name, prompts, measure.settings["max_tokens"], measure.settings["until"])
    return [
        Response(measure.name, item, TOKENS, float(answer.tokens), answer.text[:200])
        for item, answer in zip(items, written, strict=True)
    ]
