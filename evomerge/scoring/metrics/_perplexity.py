"""Perplexity of a text: how surprised a model is by it, from the losses of its chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evomerge.candidate import Response, Score
from evomerge.errors import TaskError
from evomerge.scoring.metrics._metric import Measure, ModelInterface
from evomerge.scoring.metrics._texts import chunks, read_text

LOSS = "loss"  # metric: negative log likelihood per token, nats
TOKENS = "tokens"  # metric: the chunk's number of tokens
FEWEST_CHUNKS = 4  # fewest chunks of a text: two to search on and two held out, so that both have a standard error


def documents(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a text.

    Raises:
        TaskError: the file is missing, unreadable or too short.
    """
    found = chunks(read_text(settings["file"]), settings["chunk"])
    if len(found) < FEWEST_CHUNKS:
        raise TaskError(
            f"{settings['file']} has {len(found)} chunks of up to {settings['chunk']} characters; at least "
            f"{FEWEST_CHUNKS} are needed for standard errors: give a longer text, or lower chunk"
        )
    return [{"text": text} for text in found]


def ask(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], interface: ModelInterface
) -> list[Response]:
    """Return each chunk's loss per token and its number of tokens.

    A chunk is read from the model's start: its first token is predicted after the prefix token (bos, or else eos),
    as lm-eval's rolling log likelihood does. Chunks longer than the context are read in windows.
    """
    responses = []
    losses = interface.losses(measure.name, [document["text"] for document in documents])
    for item, (loss, tokens) in zip(items, losses, strict=True):
        responses += [
            Response(measure.name, item, LOSS, loss / tokens),
            Response(measure.name, item, TOKENS, float(tokens)),
        ]
    return responses


def losses_of(responses: Iterable[Response], name: str) -> dict[str, tuple[float, float]]:
    """Return item -> (loss per token, tokens) of the responses to the measure `name`."""
    found: dict[str, dict[str, float]] = {}
    for response in responses:
        if response.task == name and response.metric in (LOSS, TOKENS):
            found.setdefault(response.item, {})[response.metric] = response.value
    return {item: (values[LOSS], values[TOKENS]) for item, values in found.items()}


def linear_losses(responses: Iterable[Response], name: str) -> dict[str, float]:
    """Return item -> m + w_i * (x_i - m), with m the text's loss per token and w_i the item's tokens over their mean.

    The mean of these numbers is m, and their standard error is that of m as a ratio of two sums (Cochran, Sampling
    Techniques, 3rd ed., 2.11). Differences of two models on the same items have both properties too.
    """
    losses = losses_of(responses, name)
    total = math.fsum(tokens for _, tokens in losses.values())
    mean = math.fsum(loss * tokens for loss, tokens in losses.values()) / total if losses else 0.0
    return {item: mean + tokens * len(losses) / total * (loss - mean) for item, (loss, tokens) in losses.items()}


def perplexity(responses: Iterable[Response], name: str, population: int | None = None) -> Score:
    """Return the perplexity of a text with its standard error.

    The value is exp(sum of losses / sum of tokens) over the answered chunks: every token counts the same, whichever
    chunk it is in. The standard error is that of the loss per token, see `linear_losses`, taken to the perplexity by
    its derivative. It says how much the number would vary over other texts of this kind.

    Args:
        responses: of one model; those of other measures are passed over.
        name: of the measure.
        population: chunks in all; where given, the finite population correction sqrt(1 - n / population) applies.

    Raises:
        TaskError: no chunk was answered.
    """
    losses = list(linear_losses(responses, name).values())
    if not losses:
        raise TaskError(f"no response answers perplexity {name!r}")
    count, mean = len(losses), math.fsum(losses) / len(losses)
    squares = math.fsum((loss - mean) ** 2 for loss in losses)
    error = math.sqrt(squares / (count - 1) / count) if count > 1 else math.inf
    if population is not None:
        error *= math.sqrt(1 - count / population)
    # A loss of 710 nats is beyond float64; no usable model is near it, and infinity is no score.
    value = math.exp(min(mean, 700.0))
    return Score(value, value * error, count)
