"""Score estimates from few items, as recorded when the controller observed them, and full answers beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Evaluation, Objective, Response, Score
from evomerge.irt import interval
from evomerge.runs._evaluations import evaluation_of
from evomerge.scoring import values_of

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95  # all intervals of estimates have this level
COLUMNS = ("candidate", "objective", "estimate", "stderr", "low", "high", "full", "items", "method", "beyond")


@dataclass(frozen=True)
class ItemEstimate:
    """An estimated score of a candidate over all search items of an objective, from its anchor items."""

    value: float
    stderr: float  # standard error over all search items; `as_score` adds these items' sampling error
    items: int  # answered
    total: int  # search items
    method: str
    beyond: bool = False  # outside the scores that the bank was calibrated on, where bias must be expected

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval of this level for the score over all search items, cut to [0, 1]."""
        low, high = interval(np.array([self.value]), np.array([self.stderr]), level)
        return float(low[0]), float(high[0])

    def as_score(self) -> Score:
        """Return the score with an error that speaks about questions like these, as that of a plain mean does."""
        sampling = self.value * (1.0 - self.value) / self.total  # binomial variance of the mean over all search items
        return Score(self.value, float(np.sqrt(self.stderr**2 + sampling)), self.items)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for the archive."""
        return {
            "value": self.value,
            "stderr": self.stderr,
            "items": self.items,
            "total": self.total,
            "method": self.method,
            "beyond": self.beyond,
        }


def recorded_estimates(archive: Archive) -> dict[int, dict[str, ItemEstimate]]:
    """Return candidate -> objective -> estimate, as recorded when the controller observed it."""
    found: dict[int, dict[str, ItemEstimate]] = {}
    for event in archive.events("estimated"):
        if event.candidate is not None:
            found[event.candidate] = {name: ItemEstimate(**entry) for name, entry in event.payload["scores"].items()}
    return found


def search_answers(archive: Archive, number: int) -> tuple[Response, ...]:
    """Return a model's responses to search items: to the anchor items, and to the rest, which finalists answer."""
    # finalists answer `rest` at the end
    return (*archive.responses("search", number), *archive.responses("search_rest", number))


def is_complete(responses: Iterable[Response], objective: Objective, items: Sequence[str]) -> bool:
    """Return whether every search item of an objective was answered."""
    return values_of(responses, objective).keys() >= set(items)  # ids, not counts: items may have several metrics


def best_evaluation(
    number: int,
    responses: Sequence[Response],
    estimates: Mapping[str, ItemEstimate],
    objectives: Sequence[Objective],
    items: Mapping[str, Sequence[str]],
) -> Evaluation:
    """Return the best that is known of a candidate: means of full answers, estimates where some are missing.

    Args:
        number: of the candidate.
        responses: to search items, see `search_answers`.
        estimates: objective -> estimate, where one was recorded.
        objectives: what is wanted.
        items: task -> all search items.
    """
    scores: dict[str, Score] = {}
    for objective in objectives:
        estimate = estimates.get(objective.name)
        # full answers replace the estimate
        if estimate is None or is_complete(responses, objective, items[objective.task]):
            scores.update(evaluation_of(number, responses, (objective,)).scores)
        else:
            scores[objective.name] = estimate.as_score()
    return Evaluation(number, scores)


def full_only(archive: Archive) -> bool:
    """Return whether only candidates that answered every search item may still be chosen as the best.

    This holds once finalists have answered the rest of the items. An estimate then no longer competes with them: the
    highest of many estimates is biased upward, while most of the finalists' answers had no part in the choice.
    """
    return any(outcome.split == "search_rest" and outcome.done for outcome in archive.outcomes())


def best_evaluations(
    archive: Archive, numbers: Iterable[int], objectives: Sequence[Objective], items: Mapping[str, Sequence[str]]
) -> dict[int, Evaluation]:
    """Return number -> the best evaluation known of each candidate; fully answered ones only where `full_only`."""
    estimates = recorded_estimates(archive)
    complete_only = bool(estimates) and full_only(archive)  # without estimates all candidates answered the same items
    found = {}
    for number in numbers:
        responses = search_answers(archive, number)
        if complete_only and not all(is_complete(responses, o, items[o.task]) for o in objectives):
            continue
        found[number] = best_evaluation(number, responses, estimates.get(number, {}), objectives, items)
    return found


def estimates_frame(
    archive: Archive, objectives: Sequence[Objective], items: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Return one row per candidate and estimated objective: the estimate with its interval, and the full answers' mean.

    The estimate is the one that the controller observed or would have observed, made without the candidate's own full
    answers; so where `full` is a number, the two may be compared.
    """
    import pandas as pd

    rows = []
    for number, estimates in sorted(recorded_estimates(archive).items()):  # (candidates,) in the order of proposals
        responses = search_answers(archive, number)
        for objective in objectives:
            estimate = estimates.get(objective.name)
            if estimate is None:
                continue
            low, high = estimate.interval()
            complete = is_complete(responses, objective, items[objective.task])
            # NaN until the candidate has answered everything, as finalists do
            full = evaluation_of(number, responses, (objective,)).scores[objective.name].value if complete else np.nan
            rows.append(
                {
                    "candidate": number,
                    "objective": objective.name,
                    "estimate": estimate.value,
                    "stderr": estimate.stderr,
                    "low": low,
                    "high": high,
                    "full": full,
                    "items": estimate.items,
                    "method": estimate.method,
                    "beyond": estimate.beyond,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def estimates_summary(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return per objective how estimates compared with full answers so far.

    Args:
        table: `estimates_frame`.

    Returns:
        objective -> items per estimate, candidates compared, mean absolute and mean error (both in the metric's units),
        and the fraction of 95% intervals that hold the full answers' mean; the last three are None before there is one.
    """
    found = {}
    for name, rows in table.groupby("objective", sort=False):
        known = rows.dropna(subset=["full"])  # (compared, columns)
        gap = known["estimate"] - known["full"]  # above 0: the estimate was too high
        inside = (known["low"] <= known["full"]) & (known["full"] <= known["high"])
        found[str(name)] = {
            "items": int(rows["items"].median()),
            "compared": len(known),
            "mean_absolute_error": float(gap.abs().mean()) if len(known) else None,
            "mean_error": float(gap.mean()) if len(known) else None,
            "covered": float(inside.mean()) if len(known) else None,
        }
    return found
