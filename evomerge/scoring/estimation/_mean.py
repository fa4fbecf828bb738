"""From responses to a score with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from evomerge.candidate import Objective, Response, Score
from evomerge.errors import TaskError
from evomerge.scoring.metrics._perplexity import linear_losses, perplexity
from evomerge.scoring.metrics._python_function import WHOLE


def metric_key(metric: str, filter: str = "none") -> str:
    """Return a metric's name within responses: 'acc', or 'exact_match,strict' where a filter has a name."""
    return metric if filter == "none" else f"{metric},{filter}"


def values_of(responses: Iterable[Response], objective: Objective, task: str | None = None) -> dict[str, float]:
    """Return item -> value of the responses that answer `objective`, in its task or in the stand-in `task`.

    Of a perplexity the values are losses (nats per token), see `linear_losses`.

    Raises:
        TaskError: an item was answered twice with different values, or a value is not finite.
    """
    key, name = metric_key(objective.metric, objective.filter), task or objective.task
    values: dict[str, float] = {}
    if objective.kind == "perplexity":
        return linear_losses(responses, name)
    for response in responses:
        if response.task == name and response.metric == key:
            if not math.isfinite(response.value):
                raise TaskError(f"the response to item {response.item!r} of task {name!r} is not a finite number")
            if values.get(response.item, response.value) != response.value:
                raise TaskError(
                    f"item {response.item!r} of task {name!r} was answered twice with different values "
                    f"({values[response.item]} and {response.value}) for {key!r}"
                )
            values[response.item] = response.value
    return values


def estimate(
    responses: Iterable[Response], objective: Objective, *, total: int | None = None, task: str | None = None
) -> Score:
    """Return the mean response of an objective with its standard error.

    The standard error is s / sqrt(n), s with n - 1 degrees of freedom, as lm-eval reports it. With `total` it is
    multiplied by the finite population correction sqrt(1 - n / total) (Cochran, Sampling Techniques, 3rd ed., 2.6):
    it then speaks about the mean over those `total` items, of which nothing is unknown once all are answered.
    Without, it speaks about questions like these. Where all responses in [0, 1] are equal, s would be 0 and claim
    certainty; the deviation of a proportion with one success and one failure added is used instead.

    Kinds that are no mean over items: a perplexity, see `perplexity`; and what is one number by its nature, such as
    the number that a user's function computed or a single listed phrase, which has a standard error of 0.

    Args:
        responses: of one model; those of other tasks and metrics are passed over.
        objective: what is wanted; the score is in the metric's own units.
        total: size of the item population, at least the number of items.
        task: the task that stands in for the objective's own on held-out items.

    Raises:
        TaskError: no response answers the objective, or a value is not finite.
    """
    responses = tuple(responses)
    if objective.kind == "perplexity":
        return perplexity(responses, task or objective.task, total)
    values = list(values_of(responses, objective, task).values())
    if not values:
        raise TaskError(f"no response answers metric {objective.metric!r} of task {task or objective.task!r}")
    count = len(values)
    if total is not None and total < count:
        raise TaskError(f"total must be at least the number of answered items ({count}), got {total}")
    if objective.kind != "task" and (count == 1 or is_whole(responses, task or objective.task)):
        return Score(values[0], 0.0, count)
    error = deviation(values) / math.sqrt(count)
    if total is not None:
        error *= math.sqrt(1 - count / total)
    return Score(math.fsum(values) / count, error, count)


def is_whole(responses: Iterable[Response], name: str) -> bool:
    """Return whether the answers to a measure are one number for all items together."""
    return any(response.task == name and response.metric == WHOLE for response in responses)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of one response, never 0 for responses in [0, 1]; infinite where unknowable."""
    count = len(values)
    mean = math.fsum(values) / count
    squares = math.fsum((value - mean) ** 2 for value in values)
    if squares > 0:
        return math.sqrt(squares / (count - 1))
    if all(0 <= value <= 1 for value in values):
        share = (count * mean + 1) / (count + 2)
        return math.sqrt(share * (1 - share))
    return 0.0 if count > 1 else math.inf
