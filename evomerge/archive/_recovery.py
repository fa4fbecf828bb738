"""Restoring a damaged archive from its newest good copy: a backup in the run folder, or its mirror.

A copy is a consistent snapshot, so the search resumes from it as if it had been killed right after the copy's last
event. Nothing is taken from the damaged file itself; it is only read to report what was recorded after the copy.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from evomerge.archive._backup import BACKUP_NAMES, Mirror
from evomerge.archive._snapshot import last_event
from evomerge.errors import RunError

_SHOWN = 12  # candidates named in the report


@dataclass(frozen=True)
class Restored:
    """Which copy took the place of a damaged archive, and what had been recorded after it."""

    source: str  # the copy's place, as text for a message
    events: int  # number of the copy's last event
    time: float  # time of the copy's last event, in seconds since 1970
    candidates: int
    lost: int | None  # events after those that the damaged file still shows; None: it shows none, nor its own end
    lost_candidates: tuple[int, ...]  # finished in those events; they are evaluated again
    damaged: Path  # where the damaged file is kept

    def text(self) -> str:
        """Return the report in one sentence."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.time))
        return (
            f"the archive was damaged; restored {self.candidates} candidates and {self.events} events from "
            f"{self.source}, which ends at {moment}; {self._loss()}; the damaged file is kept as {self.damaged.name}"
        )

    def _loss(self) -> str:
        if self.lost is None:
            return "what was recorded later is lost, and the damaged file does not show how much"
        if self.lost == 0:
            return "nothing is lost"
        text = f"at least {self.lost} later events are lost"
        if not self.lost_candidates:
            return text
        named = ", ".join(str(number) for number in self.lost_candidates[:_SHOWN])
        more = len(self.lost_candidates) - _SHOWN
        return f"{text}, with the results of candidates {named}{f' and {more} more' if more > 0 else ''}"


def restore_newest(folder: Path, name: str, mirror: str | None = None) -> Restored:
    """Put the newest good copy in the place of a damaged archive, which is kept under another name.

    The caller holds the writer's lock.

    Args:
        folder: run folder.
        name: of the archive's file in it.
        mirror: URI of copies elsewhere.

    Raises:
        RunError: there is no undamaged copy; the archive is left as it is.
    """
    path = folder / name
    with tempfile.TemporaryDirectory(prefix="recovery-", dir=folder) as scratch:
        copies = {"a backup in the run folder": [folder / backup for backup in BACKUP_NAMES]}
        if mirror is not None:
            with suppress(RunError):  # where the mirror cannot be reached now, the local backups have to do
                copies[f"the mirror {mirror}"] = Mirror(mirror).fetch(Path(scratch))
        found = [(last, source, copy) for source, some in copies.items() for copy in some if (last := last_event(copy))]
        if not found:
            raise RunError(
                f"{path} is damaged, and there is no undamaged copy of it; start again with another --out, or give "
                "--mirror URI if it was mirrored"
            )
        last, source, best = max(found, key=lambda one: one[0])
        fresh = Path(scratch, "restored.sqlite")
        shutil.copyfile(best, fresh)
        moment, candidates = _extent(fresh)
        lost, numbers = _events_after(path, last, Path(scratch))
        result = Restored(source, last, moment, candidates, lost, numbers, _set_aside(path))
        _note(fresh, result)
        fresh.chmod(0o600)
        os.replace(fresh, path)
    return result


def _extent(path: Path) -> tuple[float, int]:
    """Return the time of an archive's last event, and how many candidates it has."""
    with closing(sqlite3.connect(path)) as connection:
        moment = connection.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()[0]
        count = connection.execute("SELECT count(*) FROM candidates WHERE kind = 'search'").fetchone()[0]
    return float(moment), int(count)


def _events_after(path: Path, last: int, scratch: Path) -> tuple[int | None, tuple[int, ...]]:
    """Return how many events after `last` a damaged file still shows, and the candidates that finished in them.

    The count is None where no later event can be read and the file's own end cannot be reached either.
    """
    copy = scratch / "damaged.sqlite"
    for suffix in ("", "-wal", "-journal"):  # a log may hold the last commits, or undo half of one
        with suppress(OSError):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    newest, finished = last, set[int]()
    try:
        with closing(sqlite3.connect(copy)) as connection:
            rows = connection.execute("SELECT seq, kind, candidate FROM events WHERE seq > ? ORDER BY seq DESC", [last])
            for seq, kind, candidate in rows:
                newest = max(newest, int(seq))
                if kind == "finished" and candidate is not None and candidate >= 0:
                    finished.add(int(candidate))
    except sqlite3.Error:
        if newest == last:
            return None, ()
    return newest - last, tuple(sorted(finished))


def _note(path: Path, result: Restored) -> None:
    """Record in the restored archive where it comes from."""
    payload = json.dumps({"source": result.source, "events": result.events, "lost": result.lost})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        seconds = connection.execute("SELECT coalesce(max(seconds), 0.0) FROM events").fetchone()[0]
        connection.execute(
            "INSERT INTO events (time, seconds, kind, candidate, payload) VALUES (?, ?, 'recovered', NULL, ?)",
            (time.time(), seconds, payload),
        )


def _set_aside(path: Path) -> Path:
    """Rename the damaged file, with its side files, to a name that says when."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    damaged = path.with_name(f"archive.damaged-{stamp}.sqlite")
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{damaged}{suffix}")
    return damaged
