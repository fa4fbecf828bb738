"""Metrics of texts: the likelihood of listed phrases, and the length of written answers in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.scoring.metrics._metric import Measure, ModelInterface

LOG_LIKELIHOOD = "log_likelihood"
TOKENS = "tokens"


def phrase_documents(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the phrases, each with its context and direction."""
    return [dict(phrase) for phrase in settings["phrases"]]


def ask_phrases(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], interface: ModelInterface
) -> list[Response]:
    """Return each phrase's log likelihood after its context, in nats, times -1 for phrases to be lowered.

    The mean over phrases is what a search raises. It has no lower bound for phrases to be lowered: a search for
    these alone ends in a model that can say nothing, so set a task or a perplexity beside it.
    """
    pairs = [(document["after"], document["text"]) for document in documents]
    values = interface.likelihoods(measure.name, pairs)
    return [
        Response(measure.name, item, LOG_LIKELIHOOD, -value if document["lower"] else value, f"{value:.4g} nats")
        for item, document, value in zip(items, documents, values, strict=True)
    ]


def ask_lengths(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], interface: ModelInterface
) -> list[Response]:
    """Return the tokens of each answer, the one that ends it not counted; at most the limit of tokens."""
    prompts = [document["prompt"] for document in documents]
    written = interface.write(measure.name, prompts, measure.settings["max_tokens"], measure.settings["until"])
    return [
        Response(measure.name, item, TOKENS, float(answer.tokens), answer.text[:200])
        for item, answer in zip(items, written, strict=True)
    ]
