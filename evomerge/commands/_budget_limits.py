"""From what a file, a command line and a resume say about limits to the budget that the loop keeps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from evomerge.commands._prepare import Preparation
from evomerge.config import BudgetRequest, wrong_moment
from evomerge.errors import InputError
from evomerge.loop import Budget, Reserve
from evomerge.run_config import BudgetConfig
from evomerge.runs import BEST_FINALISTS

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
    changed = request.model_copy(update=dict(limits))
    if problems := changed.missing():
        raise InputError("budget: " + "; ".join(problems))
    return changed


def budget_of(preparation: Preparation, limits: BudgetConfig) -> Budget:
    """Return the loop's budget; where time is limited, the held-out scoring is reserved inside."""
    hours, deadline, candidates = limits.hours, limits.deadline, limits.candidates
    return Budget(
        candidates=UNLIMITED if candidates is None else candidates,
        seconds=None if hours is None else 3600.0 * hours,
        gpu_hours=limits.gpu_hours,
        deadline=None if deadline is None else datetime.fromisoformat(deadline.replace("Z", "+00:00")).timestamp(),
        cost=limits.cost,
        price=limits.price,
        reserve=_reserve(preparation),
    )


def _reserve(preparation: Preparation) -> Reserve | None:
    held_out = sum(len(items) for items in preparation.plan.holdout.values())
    if not held_out:
        return None
    racing = preparation.config.racing
    first = None if racing is None else racing.min_items
    per_job = sum(len(items) if first is None else min(first, len(items)) for items in preparation.plan.search.values())
    return Reserve(len(preparation.parents) + BEST_FINALISTS + 1, held_out / per_job)  # 1: the front's knee
