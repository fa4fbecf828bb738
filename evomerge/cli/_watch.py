"""`status --watch`: the state of a run, again and again, until the run ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from evomerge.runs import SECONDS_BETWEEN_LINES, clock, progress_line

SECONDS = 2.0  # between two looks, in a terminal


def watch(
    folder: str,
    stream: TextIO | None = None,
    *,
    seconds: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Show a run's status until its process has ended, and return the state that it ended in.

    A terminal is repainted in place; elsewhere every look is one plain line, and what did not change is not said
    twice. The run is only read: watching from many places, or leaving with Ctrl-C, changes nothing.

    Args:
        folder: the run folder.
        stream: where to write; stdout if None.
        seconds: between two looks; default: `SECONDS`, or `SECONDS_BETWEEN_LINES` where no terminal reads.
        sleep: waits; for tests.
    """
    from evomerge.runs import open_run

    stream = sys.stdout if stream is None else stream
    view = _Repainted(stream) if stream.isatty() else _Lines(stream)
    wait = seconds if seconds is not None else SECONDS if stream.isatty() else SECONDS_BETWEEN_LINES
    try:
        while True:
            run = open_run(folder)
            status = run.status()
            view.show(run.status_text(), status)
            if status["state"] != "running":
                return str(status["state"])
            sleep(wait)
    finally:
        view.close()


def status_line(status: dict[str, Any]) -> str:
    """Return a status in one line: state, candidates, best with its error, front, rate, busy share, time, time left.

    Args:
        status: what `Run.status()` returns.
    """
    best = status["best"] or {"score": {}, "stderr": {}}
    return progress_line(
        candidates=status["done"] + status["failed"],
        budget=status["budget"].get("candidates"),
        best=best["score"],
        front=status["front_size"],
        failures=status["failed"],
        busy=status["busy_share"],
        seconds=status["seconds"],
        left=seconds_left(status),
        state=status["state"],
        stderr=best["stderr"],
        rate=status["candidates_per_hour"],
    )


def seconds_left(status: dict[str, Any]) -> float | None:
    """Return the seconds until the budget is used up at the rate so far; None where nothing says so."""
    if status["state"] != "running":
        return None
    budget, rate, left = status["budget"], status["candidates_per_hour"], []
    if budget.get("candidates") and rate:
        left.append(3600 * (budget["candidates"] - status["done"] - status["failed"]) / rate)
    if budget.get("hours"):
        left.append(3600 * budget["hours"] - status["seconds"])
    return max(0.0, min(left)) if left else None


class _Lines:
    """One line per look, the last failure once; a look that shows nothing new shows nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counts: tuple[Any, ...] = ()
        self._told: set[int] = set()

    def show(self, text: str, status: dict[str, Any]) -> None:
        counts = tuple(status[key] for key in ("state", "candidates", "done", "failed"))
        if counts != self._counts:
            self._counts = counts
            print(status_line(status), file=self._stream, flush=True)
        for failure in status["last_failures"]:
            if failure["candidate"] not in self._told:
                self._told.add(failure["candidate"])
                print(f"failed  candidate {failure['candidate']}: {failure['message']}", file=self._stream, flush=True)

    def close(self) -> None:
        pass


class _Repainted:
    """The whole status, repainted in place; what it showed last stays."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=stream), auto_refresh=False)
        self._live.start()

    def show(self, text: str, status: dict[str, Any]) -> None:
        from rich.text import Text

        left = seconds_left(status)
        last = "" if left is None else f"\n  left        about {clock(left)}"
        self._live.update(Text(text + last), refresh=True)  # Text: names of models and tasks are no markup

    def close(self) -> None:
        self._live.stop()
