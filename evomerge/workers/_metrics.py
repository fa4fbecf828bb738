"""Metrics of a running pool for monitoring: workers by state, work done, failures, and seconds per stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evomerge.candidate import Outcome
from evomerge.workers._cluster import Metric
from evomerge.workers._pool_protocol import Arrival, PoolEvent, Retry

STATES = ("starting", "loading", "idle", "busy", "quarantined")


def add_totals(arrived: Iterable[Arrival], totals: dict[str, float]) -> None:
    """Add arrivals to the totals of a session."""

    def add(name: str, value: float = 1.0) -> None:
        totals[name] = totals.get(name, 0.0) + value

    for one in arrived:
        if isinstance(one, Outcome):
            add("candidates_done" if one.done else "candidates_failed")
            for stage, seconds in one.timed.items():
                add(f"stage_seconds/{stage.partition('.')[0]}", seconds)
        elif isinstance(one, Retry):
            add("retries")
            add("lost_seconds", one.seconds)
        elif isinstance(one, PoolEvent):
            add(f"workers_{one.what}")


def pool_metrics(rows: Sequence[Mapping[str, Any]], queued: int, totals: Mapping[str, float]) -> dict[str, Metric]:
    """Return name -> value and labels; names with a '/' are one gauge with several labels.

    Args:
        rows: as `Pool.status` returns them.
        queued: jobs that wait for a worker.
        totals: see `add_totals`.
    """
    found: dict[str, Metric] = {"queued": (float(queued), {})}
    by_state = Counter(str(row["state"]) for row in rows)
    for state in STATES:
        found[f"workers/{state}"] = (float(by_state[state]), {"state": state})
    for row in rows:
        found[f"worker_busy_seconds/{row['name']}"] = (float(row["busy_seconds"]), {"worker": str(row["name"])})
    for name in ("candidates_done", "candidates_failed", "retries", "lost_seconds", "workers_lost", "workers_left"):
        found[name] = (float(totals.get(name, 0.0)), {})
    for name, value in totals.items():
        gauge, _, stage = name.partition("/")
        if gauge == "stage_seconds":
            found[name] = (float(value), {"stage": stage})
    return found
