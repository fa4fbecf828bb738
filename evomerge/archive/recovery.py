"""The last good state of a damaged archive: from its own readable rows, a backup beside it, or its mirror.

What is taken from a damaged file is a prefix of its history: events 1 ... k, each of which has everything that it says
happened. A run that was killed after event k would have left the same, so `resume` goes on from there. Only rows that
SQLite can still reach count: where a page near a table's root is gone, so is the table, and a backup has to serve.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.archive import schema
from evomerge.archive.mirror import BACKUP_NAMES, Mirror
from evomerge.archive.snapshot import last_event
from evomerge.errors import RunError

Row = tuple[Any, ...]
_MOST_MISSING = 2**36  # bytes; a header that speaks of more is itself damaged
_KEYS = {  # table -> what its rows are ordered by
    "config": "key",
    "candidates": "number",
    "events": "seq",
    "questions": "id",
    "answers": "candidate, split, question",
    "outcomes": "id",
}


@dataclass(frozen=True)
class Recovered:
    """What was recovered, and what is gone."""

    source: str  # in words
    events: int  # of the recovered archive
    candidates: int
    lost: int | None  # events known to have been recorded after those, and there may be more; None: nothing tells
    damaged: Path  # where the damaged file is kept

    def text(self) -> str:
        """Return the report in one sentence."""
        gone = "how much is lost is unknown" if self.lost is None else f"at least {self.lost} later events are lost"
        return (
            f"the archive was damaged; recovered {self.candidates} candidates and {self.events} events from "
            f"{self.source}, {gone if self.lost != 0 else 'nothing is lost'}; the damaged file is kept as "
            f"{self.damaged.name}"
        )


@dataclass
class _Salvage:
    """Rows that can be read from a damaged file, by table."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)  # tables that were read without an error


def recover(folder: Path, name: str, mirror: str | None = None) -> Recovered:
    """Put the longest history that can be had in the place of a damaged archive, which is kept under another name.

    The caller holds the writer's lock.

    Args:
        folder: run folder.
        name: of the archive's file in it.
        mirror: URI of copies elsewhere.

    Raises:
        RunError: nothing is left of it anywhere.
    """
    path = folder / name
    with tempfile.TemporaryDirectory(prefix="recovery-", dir=folder) as scratch:
        salvaged, seen, all_seen = _salvaged(path, Path(scratch))
        copies = {"a backup in the run folder": [folder / backup for backup in BACKUP_NAMES]}
        if mirror is not None:
            with suppress(RunError):  # not reachable now: what is here must do
                copies[f"the mirror {mirror}"] = Mirror(mirror).fetch(Path(scratch))
        found = [(last, source, copy) for source, some in copies.items() for copy in some if (last := last_event(copy))]
        if salvaged is not None and (last := last_event(salvaged)):
            found.append((last, "the damaged file itself", salvaged))
        if not found:
            raise RunError(
                f"{path} is damaged, nothing can be read from it, and there is no undamaged copy of it; start again "
                "with another --out, or give --mirror URI if it was mirrored"
            )
        last, source, best = max(found, key=lambda one: one[0])
        fresh = Path(scratch, "recovered.sqlite")
        shutil.copyfile(best, fresh)
        gone = max((seen or 0), *(events for events, _, _ in found)) - last
        damaged = _set_aside(path)
        result = Recovered(source, last, _candidates(fresh), gone if gone or all_seen else None, damaged)
        _note(fresh, result)
        fresh.chmod(0o600)
        os.replace(fresh, path)
    return result


def _salvaged(path: Path, scratch: Path) -> tuple[Path | None, int | None, bool]:
    """Return a fresh archive with what is consistent in a damaged one, the last event that was seen in it, and whether
    that is certainly the last that it held.
    """
    copy = scratch / "damaged.sqlite"
    for suffix in ("", "-wal", "-journal"):  # a log may hold the last commits, or undo half of one
        with suppress(OSError):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    _pad(copy)
    try:
        salvage = _read_all(copy)
    except sqlite3.Error:
        return None, None, False
    events = salvage.rows["events"]
    seen = max((int(row[0]) for row in events), default=None)
    if "config" not in salvage.whole or not salvage.rows["config"]:
        return None, seen, "events" in salvage.whole
    fresh = scratch / "salvaged.sqlite"
    _write(fresh, _consistent(salvage.rows))
    return fresh, seen, "events" in salvage.whole


def _pad(path: Path) -> None:
    """Give a truncated file the size that its header speaks of: SQLite reads no page at all of one that is shorter."""
    with open(path, "r+b") as file:
        header = file.read(100)
        page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        whole = (65536 if page_bytes == 1 else page_bytes) * pages
        size = file.seek(0, 2)
        if size < whole <= size + _MOST_MISSING:
            file.truncate(whole)  # the missing pages are zeros, and reading one of them is an error


def _read_all(path: Path) -> _Salvage:
    """Read every table from both ends, as far as that goes."""
    salvage = _Salvage()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table, key in _KEYS.items():
            forward, whole = _readable(connection, f"SELECT * FROM {table} ORDER BY {key}")
            rows = dict.fromkeys(forward)
            if whole:
                salvage.whole.add(table)
            else:
                backward, _ = _readable(connection, f"SELECT * FROM {table} ORDER BY {_descending(key)}")
                rows.update(dict.fromkeys(reversed(backward)))
            salvage.rows[table] = list(rows)
    return salvage


def _readable(connection: sqlite3.Connection, select: str) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    try:
        for row in connection.execute(select):
            rows.append(tuple(row))
    except sqlite3.Error:
        return rows, False
    return rows, True


def _descending(key: str) -> str:
    return ", ".join(f"{column.strip()} DESC" for column in key.split(","))


def _consistent(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the rows of the longest history that has everything its events speak of."""
    history = _History(rows)
    events = []
    for expected, event in enumerate(sorted(rows["events"]), start=1):
        if event[0] != expected or not history.follows(event):
            break
        events.append(event)
    return {
        "config": rows["config"],
        "candidates": [row for row in rows["candidates"] if row[0] < 0 or row[0] in history.asked],
        "events": events,
        "questions": rows["questions"],
        "answers": history.kept_answers(),
        "outcomes": [row for row in rows["outcomes"] if row[3] <= history.finished[row[1], row[2]]],
    }


class _History:
    """What the events so far say there must be, against what there is."""

    def __init__(self, rows: dict[str, list[Row]]) -> None:
        self.asked: set[int] = set()
        self.finished: Counter[tuple[int, str]] = Counter()  # (candidate, split) -> outcomes
        # (candidate, split, task) -> answers that must be there; an item has one in each of its metrics
        self._items: Counter[tuple[int, str, str]] = Counter()
        self._candidates = {int(row[0]) for row in rows["candidates"]}
        self._outcomes = {(int(row[1]), str(row[2]), int(row[3])) for row in rows["outcomes"]}
        self._questions = {int(row[0]): (str(row[1]), str(row[2])) for row in rows["questions"]}
        self._answers = [row for row in rows["answers"] if row[2] in self._questions]
        self._there = Counter((row[0], row[1], self._questions[row[2]][0]) for row in self._answers)

    def follows(self, event: Row) -> bool:
        """Take the next event in; False where something that it speaks of is missing."""
        _, _, _, kind, candidate, text = event
        try:
            payload = json.loads(text)
        except ValueError:
            return False
        if kind == "asked":
            numbers = range(payload["first"] or 0, (payload["first"] or 0) + payload["count"])
            if not self._candidates.issuperset(numbers):
                return False
            self.asked.update(numbers)
            return True
        if kind in ("answered", "part"):
            key = (candidate, payload["split"], payload["task"])
            self._items[key] += payload["items"]
            return self._there.get(key, 0) >= self._items[key]
        if kind == "same":
            return self._copied(candidate, payload)
        if kind == "finished":
            self.finished[candidate, payload["split"]] += 1
            return (candidate, payload["split"], self.finished[candidate, payload["split"]]) in self._outcomes
        return True

    def kept_answers(self) -> list[Row]:
        """Return the answers that the events speak of."""
        return [row for row in self._answers if (row[0], row[1], self._questions[row[2]][0]) in self._items]

    def _copied(self, candidate: int, payload: dict[str, Any]) -> bool:
        twin, split = payload["twin"], payload["split"]
        for (number, of, task), items in list(self._items.items()):
            if (number, of) == (twin, split):
                self._items[candidate, split, task] = items
                if self._there.get((candidate, split, task), 0) < items:
                    return False
        return True


def _write(path: Path, rows: dict[str, list[Row]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        schema.create_tables(connection)
        for table, some in rows.items():
            if some:
                connection.executemany(f"INSERT INTO {table} VALUES ({_marks(some)})", some)
        connection.execute("COMMIT")


def _marks(rows: Sequence[Row]) -> str:
    return ", ".join("?" * len(rows[0]))


def _candidates(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM candidates WHERE kind = 'search'").fetchone()[0])


def _note(path: Path, result: Recovered) -> None:
    """Record in the recovered archive where it comes from."""
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
