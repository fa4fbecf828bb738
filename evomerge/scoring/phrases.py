"""How likely a model finds listed continuations, some to be raised and some to be lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.scoring.measures import Door, Measure

LOG_LIKELIHOOD = "log_likelihood"


def documents(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the phrases, each with its context and direction."""
    return [dict(phrase) for phrase in settings["phrases"]]


def ask(measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], door: Door) -> list[Response]:
    """Return each phrase's log likelihood after its context, in nats, times -1 for phrases to be lowered.

    The mean over phrases is what a search raises. It has no lower bound for phrases to be lowered: a search for
    these alone ends in a model that can say nothing, so set a task or a perplexity beside it.
    """
    pairs = [(document["after"], document["text"]) for document in documents]
    values = door.likelihoods(measure.name, pairs)
    return [
        Response(measure.name, item, LOG_LIKELIHOOD, -value if document["lower"] else value, f"{value:.4g} nats")
        for item, document, value in zip(items, documents, values, strict=True)
    ]
