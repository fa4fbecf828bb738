"""The held-out scoring at the end, and how an interruption ends anything."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Split
from evomerge.loop.account import Account
from evomerge.loop.values import Budget, StopReason
from evomerge.pool.desk import Desk, Plan
from evomerge.pool.protocol import Pool

LOOK_SECONDS = 0.5  # the longest that is waited for a result before the budget is looked at


def evaluate(
    archive: Archive,
    pool: Pool,
    candidates: Sequence[Candidate],
    split: Split,
    plan: Plan,
    budget: Budget | None = None,
) -> StopReason:
    """Let candidates answer the items of `plan`, as for the final scoring on held-out items; what is stored is kept.

    Args:
        archive: open for writing.
        pool: who evaluates.
        candidates: who answers, in this order.
        split: under which the answers are recorded.
        plan: task -> items.
        budget: limits that this must not exceed either; None: it takes as long as it takes.

    Returns:
        'done', or why not: the limit that was reached, 'configuration', or 'interrupted' as in `run_search`.
    """
    desk = Desk(archive, pool, split, plan)
    account = Account(archive, pool, budget or Budget(0), final=True)
    try:
        with archive.transaction():
            desk.take(candidates)
        while desk.open:
            if (reason := account.exhausted()) is not None:
                text = f"{reason.message} before the {split} scoring was complete; go on with a larger budget"
                return StopReason(reason.name, text)
            desk.submit()
            left = account.seconds_left()
            arrived = pool.collect(LOOK_SECONDS if left is None else min(LOOK_SECONDS, max(0.0, left)))
            with archive.transaction():
                outcomes = desk.file(arrived)
            for outcome in outcomes:
                if outcome.failure is not None and outcome.failure.kind == "configuration":
                    return StopReason("configuration", outcome.failure.message)
    except KeyboardInterrupt:
        return interrupted(archive, pool)
    return StopReason("done", f"{len(candidates)} candidates have answered the {split} items")


def interrupted(archive: Archive, pool: Pool) -> StopReason:
    """Record the interruption, close the pool, and return the reason."""
    archive.put_event("interrupted")
    pool.close()
    return StopReason("interrupted", f"everything is saved; go on with: evomerge resume {archive.path.parent}")
