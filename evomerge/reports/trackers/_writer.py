"""Threads that follow a run and write to its trackers; a failing tool never stops the search."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from evomerge.archive import Archive
from evomerge.reports.trackers._metric_stream import RunMetrics
from evomerge.reports.trackers._targets import TrackerTarget, target_of, targets_of
from evomerge.reports.trackers._values import Tracker
from evomerge.runs import open_run
from evomerge.workers import hide

SECONDS = 5.0  # pause between two reads of the archive
LEISURE = 20.0  # a look that took long is followed by a pause this many times as long: at most 5% of a core
SECONDS_AFTER_TROUBLE = 60.0
PATIENCE = 60.0  # seconds that the end of a search waits for a tool that takes no step
AT_ONCE = 100  # steps that are handed over together

State = Literal["finished", "interrupted", "failed"]
Say = Callable[[str], None]
Join = Callable[[threading.Thread, float], None]


@contextmanager
def tracked(
    archive: Archive,
    log: Sequence[str] | None,
    say: Say,
    *,
    seconds: float = SECONDS,
    join: Join = threading.Thread.join,
) -> Iterator[None]:
    """Write a search to the tools that `log` names while it runs, and its results at its end.

    Which tools these are is kept in the archive, so a resumed search goes on with the same runs of the same tools. A
    tool that fails is reported once, to `say` at once and in the archive at the end, and tried again now and then.

    Args:
        archive: open for writing.
        log: targets as `--log` writes them; None: those of the run's last session; ['none']: no more.
        say: shows a line to the user; called from other threads too.
        seconds: between two looks.
        join: waits for a thread's end for at most so many seconds; for tests.
    """
    texts, identity = remembered(archive)
    if log:
        texts = [target.text for target in targets_of(log)]
        archive.put_event("tracking", None, {"to": texts, "id": identity})
    folder = archive.path.parent
    writers = [_Writer(target, folder, identity, say, seconds, join) for target in map(target_of, texts)]
    state: State = "failed"
    try:
        for writer in writers:
            writer.start()
        yield
        last = [event.kind for event in archive.events("resumed", "interrupted", "ended")][-1:]
        state = "finished" if last == ["ended"] else "interrupted"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        for writer in writers:
            writer.finish(state)
        for writer in writers:
            if trouble := writer.joined():
                archive.put_event("note", None, {"text": trouble})


def remembered(archive: Archive) -> tuple[list[str], str]:
    """Return the last session's targets, and the run's identity in the tools: a new one where it has none."""
    targets: list[str] = []
    identity = ""
    for event in archive.events("tracking"):
        targets, identity = list(event.payload["to"]), event.payload["id"]
    return targets, identity or secrets.token_hex(4)


class _Writer:
    """A thread that keeps one tool up to date."""

    def __init__(
        self, target: TrackerTarget, folder: Path, identity: str, say: Say, seconds: float, join: Join
    ) -> None:
        self._target, self._folder, self._identity = target, folder, identity
        self._say, self._seconds, self._join = say, seconds, join
        self._tracker: Tracker | None = None
        self._first = 0
        self._state: State | None = None
        self._trouble = ""  # the first one
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"evomerge-log-{target.tool}", daemon=True)

    def start(self) -> None:
        """Begin to follow the run."""
        self._thread.start()

    def finish(self, state: State) -> None:
        """Let the thread write the missing steps and the final results."""
        self._state = state
        self._over.set()

    def joined(self) -> str:
        """Wait for the end while there is progress, and return what went wrong; '' for nothing."""
        before = -1
        while self._thread.is_alive() and self._first != before:
            before = self._first
            self._join(self._thread, PATIENCE)
        if self._thread.is_alive():
            self._complain(f"no progress for {PATIENCE:.0f} seconds at the end; the run folder has all results")
        return self._trouble

    def _follow(self) -> None:
        source = RunMetrics(open_run(self._folder), self._identity)
        wait = 0.0
        while not self._over.wait(wait):
            began = time.monotonic()
            good = self._attempt(source, None)
            wait = max(self._seconds, LEISURE * (time.monotonic() - began)) if good else SECONDS_AFTER_TROUBLE
        self._attempt(source, self._state)

    def _attempt(self, source: RunMetrics, state: State | None) -> bool:
        """Write what is new, and the end where there is a `state`; return whether it worked."""
        try:
            if self._tracker is None:
                tracker = self._target.tracker()
                resumed = tracker.begin(source.info())
                self._tracker, self._first = tracker, resumed.first
                self._say(f"logging to {self._target.tool}: {resumed.destination}")
            steps = source.steps(self._first, final=state == "finished")
            for start in range(0, len(steps), AT_ONCE):
                some = steps[start : start + AT_ONCE]
                self._tracker.log(some)
                self._first = some[-1].number + 1
            if state is not None:
                self._tracker.end(source.ending(state, time.time()))
            return True
        except Exception as error:  # a tool's own, of any kind: its trouble is not the search's
            self._tracker = None  # the next attempt asks the tool anew what it has got
            self._complain(f"{type(error).__name__}: {error}")
            return False

    def _complain(self, what: str) -> None:
        if not self._trouble:
            self._trouble = hide(f"logging to {self._target.text} fails; the search continues. {what}")
            with suppress(OSError, ValueError):  # the terminal is gone
                self._say(self._trouble)
