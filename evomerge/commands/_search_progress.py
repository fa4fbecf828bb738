"""How a search speaks while it runs: one live line in a terminal, one line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from evomerge.commands._budget_limits import UNLIMITED
from evomerge.commands._search_options import Reporter
from evomerge.loop import Progress
from evomerge.runs import SECONDS_BETWEEN_LINES, progress_line


def progress_printer(stream: TextIO) -> Reporter:
    """Return the reporter that fits `stream`: a line that is redrawn in a terminal, plain lines otherwise."""
    return _Terminal(stream) if stream.isatty() else _Lines(stream)


def line_of(progress: Progress) -> str:
    """Return how far a search is in one line."""
    return progress_line(
        candidates=progress.candidates,
        budget=progress.budget if progress.budget < UNLIMITED else None,
        best=progress.best,
        front=progress.front,
        failures=progress.failures,
        busy=progress.busy,
        seconds=progress.seconds,
        left=progress.eta,
        parents=progress.parents,
    )


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
            print(f"evomerge: {line_of(progress)}", file=self._stream, flush=True)


class _Terminal(Reporter):
    """One line, redrawn in place and wiped at the end."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.status import Status

        self._status = Status("starting", console=Console(file=stream))
        self._status.start()

    def note(self, text: str) -> None:
        self._show(text)

    def say(self, text: str) -> None:
        self._status.console.print(f"evomerge: {text}", markup=False, highlight=False)

    def update(self, progress: Progress) -> None:
        self._show(line_of(progress))

    def _show(self, text: str) -> None:
        from rich.markup import escape

        self._status.update(escape(text))  # names of models and tasks are no markup

    def close(self) -> None:
        self._status.stop()
