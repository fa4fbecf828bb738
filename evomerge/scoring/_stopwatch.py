"""Where a model's time goes while it is asked: reading what is given (prefill), and writing token by token (decode)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds of prefill and decode until they are taken; of one worker, used from one thread.

    What is measured ends with numbers on the host, so an accelerator's queue is empty when the clock is read.
    """

    def __init__(self) -> None:
        self._prefill = self._decode = 0.0

    @contextmanager
    def prefill(self) -> Iterator[None]:
        """Count the time inside as prefill."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._prefill += time.monotonic() - started

    @contextmanager
    def decode(self) -> Iterator[None]:
        """Count the time inside as decode."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._decode += time.monotonic() - started

    def take(self) -> tuple[float, float]:
        """Return the seconds of prefill and of decode since the last call."""
        taken = (self._prefill, self._decode)
        self._prefill = self._decode = 0.0
        return taken
