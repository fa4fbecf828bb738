"""Time in tests: a clock that moves only where something sleeps, and one limit for waits on real processes."""

from __future__ import annotations

import threading
import time

import pytest

BACKSTOP = 1500.0  # seconds; ends a wait for a process that hangs, and says nothing about how fast a machine must be


class Clock:
    """Stands in for the functions of `time` in the thread that made it; a sleep moves it and takes no time.

    Other threads, such as those that make backups, keep the real clock.
    """

    def __init__(self, patch: pytest.MonkeyPatch, now: float = 1e6) -> None:
        self.now = now
        self._owner = threading.get_ident()
        for name in ("monotonic", "perf_counter", "time", "sleep"):
            patch.setattr(time, name, self._divided(name))

    def sleep(self, seconds: float) -> None:
        """Move on by this much."""
        self.now += max(0.0, seconds)

    def _divided(self, name: str):  # type: ignore[no-untyped-def]
        real = getattr(time, name)
        ours = self.sleep if name == "sleep" else lambda: self.now
        return lambda *given: (ours if threading.get_ident() == self._owner else real)(*given)
