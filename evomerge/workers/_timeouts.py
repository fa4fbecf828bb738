"""Timeouts learnt from measured durations: when a worker hangs, and when a job straggles."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

REMEMBERED = 256  # measured times per task
LOAD = "\x00load"  # the key of a worker's start; no task has this name


@dataclass(frozen=True)
class TimeoutSettings:
    """The policy; seconds throughout."""

    fixed: float | None = None  # a limit given by the user, which then holds for every job
    unknown: float = 3600.0  # the limit where fewer than `needed` durations were measured
    needed: int = 3
    multiple: float = 10.0  # a worker hangs after this many times the usual duration
    floor: float = 60.0  # a worker never hangs before
    straggling: float = 3.0  # a job straggles after this many times the usual duration: an idle worker gets it too
    straggling_floor: float = 5.0


class DurationModel:
    """Measured seconds per item of each task, and the limits that follow from them.

    The usual time is the 0.95 quantile: high enough that long answers are usual, and not moved by one outlier.
    """

    def __init__(self, settings: TimeoutSettings | None = None) -> None:
        self._settings = settings or TimeoutSettings()
        self._measured: dict[str, deque[float]] = {}
        self._usual: dict[str, float | None] = {}  # cache of seconds per item, until something new is learnt

    def note(self, task: str, items: int, seconds: float) -> None:
        """Learn that `items` items of a task took this long, a merge before them included."""
        self._measured.setdefault(task, deque(maxlen=REMEMBERED)).append(seconds / max(items, 1))
        self._usual.pop(task, None)

    def usual(self, task: str, items: int) -> float | None:
        """Return the usual seconds of so many items; None where too little is known."""
        if task not in self._usual:
            times = sorted(self._measured.get(task, ()))
            known = len(times) >= self._settings.needed
            self._usual[task] = times[math.ceil(0.95 * len(times)) - 1] if known else None
        usual = self._usual[task]
        return None if usual is None else usual * items

    def limit(self, task: str | None, items: int = 1) -> float:
        """Return after how many seconds of silence a worker that works on this task counts as hanging.

        Args:
            task: None where all tasks are answered and only the outcome is to come.
            items: still to be answered in this task.
        """
        settings = self._settings
        if settings.fixed is not None and task != LOAD:
            return settings.fixed
        if task is None:
            return settings.floor
        usual = self.usual(task, items)
        return settings.unknown if usual is None else max(settings.floor, settings.multiple * usual)

    def straggles(self, items: Mapping[str, int], seconds: float) -> bool:
        """Return whether a job of so many items per task has been running suspiciously long."""
        times = [self.usual(task, count) for task, count in items.items()]
        usual = sum(time for time in times if time is not None)
        if not times or None in times:
            return False
        return seconds > max(self._settings.straggling_floor, self._settings.straggling * usual)
