"""Consistent copies of an archive, taken while it is written to, and checked before they are trusted."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from evomerge.archive import _schema as schema
from evomerge.errors import RunError


def snapshot(source: Path, target: Path) -> int:
    """Copy an archive, as it is after its last commit, to `target`, and return the number of its last event.

    The copy is one plain file. It is checked, so that a damaged archive never takes the place of its last good copy.
    `target` is replaced in one step: it is the old copy or the new one, whole.

    Raises:
        RunError: the archive is damaged or cannot be read, or the copy cannot be written.
    """
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    with schema.explained(source), closing(schema.connect_to_read(source)) as origin:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                origin.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # the copy's header says WAL, as the original's does
                schema.check(copy, source)
                last = int(copy.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
            _replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return last


def newest_event(path: Path) -> int:
    """Return the number of an archive's last event, without a look at the rest of the file."""
    with schema.explained(path), closing(schema.connect_to_read(path)) as connection:
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])


def last_event(path: Path) -> int | None:
    """Return the number of an archive's last event; None where there is no undamaged archive at `path`."""
    if not path.is_file():
        return None
    try:
        with schema.explained(path), closing(schema.connect_to_read(path)) as connection:
            schema.check(connection, path)
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    except RunError:
        return None


def _replace(part: Path, target: Path) -> None:
    """Put the whole of `part` in the place of `target`; the disk has it before the name points to it."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(part, target)
