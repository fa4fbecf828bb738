"""How a search speaks while it runs: one live line in a terminal, one line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from evomerge.loop import Progress
from evomerge.results.summaries import clock
from evomerge.run.options import Reporter

SECONDS_BETWEEN_LINES = 15.0  # where the output is a file or a pipe


def progress_printer(stream: TextIO) -> Reporter:
    """Return the reporter that fits `stream`: a line that is redrawn in a terminal, plain lines otherwise."""
    return _Terminal(stream) if stream.isatty() else _Lines(stream)


def progress_line(progress: Progress) -> str:
    """Return the state of a search in one line.

    Parents still to answer, candidates, best per objective, front size, failures, busy share, time used, time left.
    """
    budget = f"/{progress.budget}" if progress.budget < 2**31 else ""
    parts = [f"{progress.parents} parent{'s' * (progress.parents > 1)} to answer first"] if progress.parents else []
    parts.append(f"{progress.candidates}{budget} candidates")
    if progress.best:
        parts.append("best " + " ".join(f"{name} {value:.3f}" for name, value in progress.best.items()))
    if len(progress.best) > 1:
        parts.append(f"front {progress.front}")
    if progress.failures:
        parts.append(f"{progress.failures} failed")
    parts.append(f"busy {100 * progress.busy:.0f}%")
    parts.append(clock(progress.seconds))
    if progress.eta is not None:
        parts.append(f"{clock(progress.eta)} left")
    return "  ".join(parts)


class _Lines(Reporter):
    """Notes at once, progress every `SECONDS_BETWEEN_LINES`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = -SECONDS_BETWEEN_LINES

    def note(self, text: str) -> None:
        print(f"evomerge: {text}", file=self._stream, flush=True)

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(f"evomerge: {progress_line(progress)}", file=self._stream, flush=True)


class _Terminal(Reporter):
    """One line, redrawn in place and wiped at the end."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.status import Status

        self._status = Status("starting", console=Console(file=stream))
        self._status.start()

    def note(self, text: str) -> None:
        self._status.update(text)

    def say(self, text: str) -> None:
        self._status.console.print(f"evomerge: {text}", markup=False, highlight=False)

    def update(self, progress: Progress) -> None:
        from rich.markup import escape

        self._status.update(escape(progress_line(progress)))

    def close(self) -> None:
        self._status.stop()
