"""The budget of a search: its limits, what all its sessions have used, and whether enough is left to go on.

Time is the archive's active time, and GPU-time is its integral over the devices that were held, so both survive a kill
up to the last event. Only a deadline is compared with the wall clock.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

from evomerge.archive import Archive
from evomerge.candidate import Outcome
from evomerge.workers import Pool

MARGIN = 1.5  # the final scoring may take this many times longer than the measured times suggest
LOOK_SECONDS = 0.5  # interval at which the held devices are counted

Limit = Literal["seconds", "gpu_hours", "deadline", "cost"]

_NAMES: dict[Limit, str] = {
    "seconds": "hours",
    "gpu_hours": "GPU-hours",
    "deadline": "time until the deadline",
    "cost": "cost",
}


@dataclass(frozen=True)
class Reserve:
    """What is kept back for the held-out scoring at the end."""

    models: int  # finalists and parents
    share: float  # held-out items per search item


@dataclass(frozen=True)
class Budget:
    """What a search may use, over all its sessions; none of it is ever exceeded, the final scoring included."""

    candidates: int
    seconds: float | None = None  # active time; jobs still running at the limit are dropped, and can be resumed
    gpu_hours: float | None = None  # hours of the workers' GPUs, busy or not; a worker without a GPU counts as one
    deadline: float | None = None  # seconds since 1970
    cost: float | None = None  # limit in the currency of `price`
    price: float | None = None  # price of one GPU-hour
    reserve: Reserve | None = None

    @property
    def gpu_seconds(self) -> float | None:
        """GPU-seconds that GPU-hours and cost allow, the smaller of the two; None where neither is limited."""
        hours = [] if self.gpu_hours is None else [self.gpu_hours]
        hours += [] if self.cost is None or self.price is None else [self.cost / self.price]
        return 3600.0 * min(hours) if hours else None


@dataclass(frozen=True)
class StopReason:
    """Why the loop ended; everything that was measured is in the archive."""

    name: Limit | Literal["candidates", "controller", "configuration", "infrastructure", "interrupted", "done"]
    message: str

    @property
    def finished(self) -> bool:
        """True where the work came to its own end; otherwise it waits to be resumed."""
        return self.name not in ("configuration", "infrastructure", "interrupted")


@dataclass
class _JobTimes:
    """Seconds of the finished jobs."""

    total: float = 0.0
    jobs: int = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.done and outcome.seconds > 0:
            self.total += outcome.seconds
            self.jobs += 1

    @property
    def mean(self) -> float:
        return self.total / self.jobs if self.jobs else 0.0


class BudgetMeter:
    """Counts the time, GPU-time and money used; one per session, rebuilt from the archive."""

    def __init__(self, archive: Archive, pool: Pool, budget: Budget, *, final: bool = False) -> None:
        """Continue the count where the archive left off.

        Args:
            archive: the run's record.
            pool: its workers hold the devices that are counted.
            budget: the limits.
            final: True for the final scoring itself, which needs no reserve.
        """
        self.budget = budget
        self._archive, self._pool, self._final = archive, pool, final
        self._times = _JobTimes()
        self._looked = -math.inf
        self._devices, self._since, self._gpu_seconds = 0.0, 0.0, 0.0
        if self._limited:
            for outcome in archive.outcomes():
                self.record(outcome)
            self._restore()

    def record(self, outcome: Outcome) -> None:
        """Add the seconds of a job: the reserve for the final scoring follows from them."""
        if outcome.split == "search":
            self._times.add(outcome)

    def seconds_left(self) -> float | None:
        """Return the seconds until the first limit, less the reserve; None where time is not limited."""
        limits = self._limits()
        return min(limits.values()) - self.reserved() if limits else None

    def reserved(self) -> float:
        """Return the seconds that the final scoring will take, with a margin; 0 before any job has been measured."""
        reserve = self.budget.reserve
        if reserve is None or self._final:
            return 0.0
        waves = math.ceil(reserve.models / max(1, len(self._pool.status())))
        return MARGIN * waves * reserve.share * self._times.mean

    def worth_starting(self) -> bool:
        """Return whether a job that is started now can be expected to end in time."""
        left = self.seconds_left()
        return left is None or left > self._times.mean

    def exhausted(self) -> StopReason | None:
        """Return which limit is reached, if one is."""
        self._look()
        kept = self.reserved()
        for name, left in self._limits().items():
            if left <= kept:
                return StopReason(name, self._sentence(name, kept))
        return None

    def used_up(self) -> StopReason | None:
        """Return which limit leaves no time for another job, if one does; running jobs may still end within it."""
        if (reason := self.exhausted()) is not None or self.worth_starting():
            return reason
        kept, limits = self.reserved(), self._limits()
        name = min(limits, key=lambda limit: limits[limit])
        return StopReason(name, f"{self._sentence(name, kept)}; what is left is too short for another candidate")

    def gpu_hours(self) -> float:
        """Return the GPU-hours used, where they are limited (otherwise they are not counted)."""
        return (self._gpu_seconds + self._devices * (self._archive.seconds() - self._since)) / 3600.0

    @property
    def _limited(self) -> bool:
        budget = self.budget
        return not budget.seconds == budget.deadline == budget.gpu_seconds  # all None

    def _limits(self) -> dict[Limit, float]:
        """Return seconds until each limit, as things go now."""
        budget, limits = self.budget, dict[Limit, float]()
        if budget.seconds is not None:
            limits["seconds"] = budget.seconds - self._archive.seconds()
        if budget.deadline is not None:
            limits["deadline"] = budget.deadline - time.time()
        allowed = budget.gpu_seconds
        if allowed is not None:
            name: Limit = "gpu_hours" if budget.gpu_hours == allowed / 3600.0 else "cost"
            limits[name] = (allowed - 3600.0 * self.gpu_hours()) / max(self._devices, 1.0)
        return limits

    def _sentence(self, name: Limit, kept: float) -> str:
        budget = self.budget
        amount = {
            "seconds": f"{budget.seconds or 0.0:.0f} seconds",
            "gpu_hours": f"{budget.gpu_hours or 0.0:g} GPU-hours",
            "deadline": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(budget.deadline or 0.0)),
            "cost": f"{budget.cost or 0.0:g} at {budget.price or 0.0:g} per GPU-hour",
        }[name]
        text = f"the budget of {_NAMES[name]} ({amount}) is used up"
        return f"{text}, but for {kept:.0f} seconds that the final scoring may take" if kept else text

    def _look(self) -> None:
        """Record how many devices are held, where that has changed and is counted."""
        if self.budget.gpu_seconds is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        devices = float(sum(row.get("gpus") or 1.0 for row in self._pool.status()))
        if devices != self._devices:
            self._archive.put_event("devices", None, {"count": devices})
            self._hold(devices, self._archive.seconds())

    def _restore(self) -> None:
        """Integrate the devices held over the active time of earlier sessions."""
        for event in self._archive.events("devices", "resumed", "interrupted", "stopped", "ended"):
            count = event.payload["count"] if event.kind == "devices" else 0.0  # at an end they are given back
            self._hold(count if event.kind != "stopped" else self._devices, event.seconds)
        self._hold(0.0, self._archive.seconds())

    def _hold(self, devices: float, seconds: float) -> None:
        self._gpu_seconds += self._devices * (seconds - self._since)
        self._devices, self._since = devices, seconds
