"""From what a file, a command line and a resume say about limits to the budget that the loop keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from evomerge.archive import Event
from evomerge.errors import InputError
from evomerge.loop import Budget, Reserve
from evomerge.results.evaluations import BEST_FINALISTS
from evomerge.run.preparation import Preparation
from evomerge.searchfile import BudgetRequest
from evomerge.searchfile.grammar import wrong_moment
from evomerge.searchfile.load import budget_problems

UNLIMITED = 2**31  # candidates, where only time is limited


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that were given (those that are not None), having checked them.

    Raises:
        InputError: a number is not above 0, or the deadline is no moment.
    """
    limits = {name: value for name, value in given.items() if value is not None}
    for name, value in limits.items():
        option = f"--{name.replace('_', '-')}"
        if name == "deadline":
            if wrong := wrong_moment(value):
                raise InputError(f"{option} {wrong}")
        elif name == "candidates" and value < 1:
            raise InputError(f"{option} must be at least 1, got {value}")
        elif not value > 0:
            raise InputError(f"{option} must be above 0, got {value}")
    return limits


def overridden(request: BudgetRequest, limits: Mapping[str, Any]) -> BudgetRequest:
    """Return the file's budget with the limits of the command line in their place.

    Raises:
        InputError: a cost without a price, or the reverse.
    """
    changed = replace(request, **limits)
    if problems := budget_problems(vars(changed)):
        raise InputError("budget: " + "; ".join(problems))
    return changed


def changed(facts: Mapping[str, Any], events: Iterable[Event]) -> dict[str, Any]:
    """Return a run's limits as they are now: those that it began with, and what each `resume` put in their place."""
    limits = dict(facts["budget"])
    for event in events:
        limits.update(event.payload)
    return limits


def budget_of(preparation: Preparation, limits: Mapping[str, Any]) -> Budget:
    """Return the loop's budget; where time is limited, the held-out scoring is reserved inside."""
    hours, deadline = limits.get("hours"), limits.get("deadline")
    candidates = limits.get("candidates")
    return Budget(
        candidates=UNLIMITED if candidates is None else candidates,
        seconds=None if hours is None else 3600.0 * hours,
        gpu_hours=limits.get("gpu_hours"),
        deadline=None if deadline is None else datetime.fromisoformat(deadline.replace("Z", "+00:00")).timestamp(),
        cost=limits.get("cost"),
        price=limits.get("price"),
        reserve=_reserve(preparation),
    )


def _reserve(preparation: Preparation) -> Reserve | None:
    held_out = sum(len(items) for items in preparation.plan.holdout.values())
    if not held_out:
        return None
    first = (preparation.facts.get("racing") or {}).get("min_items")
    per_job = sum(len(items) if first is None else min(first, len(items)) for items in preparation.plan.search.values())
    return Reserve(len(preparation.parents) + BEST_FINALISTS + 1, held_out / per_job)  # 1: the front's knee
