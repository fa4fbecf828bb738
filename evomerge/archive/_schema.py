"""The tables of `archive.sqlite`, and how a connection to them is opened and checked.

The file can be read with any SQLite client; the view `responses` gives one row per answer in plain words. Rows are
only ever added: triggers refuse to change or to delete what was recorded.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import RunError

APPLICATION_ID = 0x65766F6D  # 'evom' in ASCII: tells the file from any other SQLite database
VERSION = 1

# statements are separated by empty lines
TABLES = """
CREATE TABLE config (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL               -- JSON
    ) WITHOUT ROWID;

CREATE TABLE candidates (
    number INTEGER PRIMARY KEY,       -- 0, 1, 2 ... for the search, -1, -2 ... for parents
    kind TEXT NOT NULL, name TEXT NOT NULL,
    genotype TEXT NOT NULL,           -- JSON; Python writes a float so that it is read back bit for bit
    recipe TEXT NOT NULL,             -- JSON, see recipe.to_mapping
    digest TEXT NOT NULL);

CREATE INDEX candidates_by_digest ON candidates (digest, number);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    time REAL NOT NULL,               -- seconds since 1970, for people
    seconds REAL NOT NULL,            -- of active time, over all sessions of this run
    kind TEXT NOT NULL, candidate INTEGER,
    payload TEXT NOT NULL             -- JSON
    );

CREATE TABLE items (                  -- each item's names are written once, not once per candidate
    id INTEGER PRIMARY KEY, task TEXT NOT NULL, item TEXT NOT NULL, metric TEXT NOT NULL,
    UNIQUE (task, item, metric));

CREATE TABLE answers (
    candidate INTEGER NOT NULL, split TEXT NOT NULL, item_id INTEGER NOT NULL,
    value REAL NOT NULL, answer TEXT NOT NULL,
    PRIMARY KEY (candidate, split, item_id)) WITHOUT ROWID;

CREATE TABLE outcomes (
    id INTEGER PRIMARY KEY, candidate INTEGER NOT NULL, split TEXT NOT NULL,
    attempt INTEGER NOT NULL,         -- 1, 2 ... of this candidate and split, the last one counts
    failure TEXT, message TEXT NOT NULL, traceback TEXT NOT NULL,
    worker TEXT NOT NULL, seconds REAL NOT NULL, stages TEXT NOT NULL, fingerprint TEXT NOT NULL,
    UNIQUE (candidate, split, attempt));

CREATE VIEW responses AS
    SELECT candidate, split, task, item, metric, value, answer FROM answers JOIN items ON id = item_id;
"""

_APPEND_ONLY = "CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'append-only'); END"
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "afs")


class ArchiveDamaged(RunError):
    """The file is an archive, or was one, and is not whole; `recovery.restore_newest` puts a good copy in its place."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Write the schema; call it inside a transaction."""
    for statement in TABLES.split("\n\n"):
        connection.execute(statement)
    for table in ("config", "candidates", "events", "items", "answers", "outcomes"):
        for verb in ("UPDATE", "DELETE"):
            connection.execute(_APPEND_ONLY.format(table=table, verb=verb))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def connect_to_write(path: Path) -> sqlite3.Connection:
    """Return a connection whose every commit is on the disk when it returns."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # SQLite gives its side files the same permissions
    # Statements outside a transaction commit at once (isolation_level None); `Archive.transaction` groups them.
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    try:
        # The write-ahead log lets readers in while we write, but its shared memory does not work across machines.
        wanted = "DELETE" if on_network(path) else "WAL"
        got = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
        if got.lower() != wanted.lower():
            connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Return a read-only connection, also where folder and file cannot be written."""
    uri = path.resolve().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, timeout=30.0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        # A closed archive in a folder where SQLite cannot put its shared memory: no process writes, so none is needed.
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise RunError unless the file is an undamaged archive of a version that we know."""
    with explained(path):
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if application != APPLICATION_ID:
        raise RunError(f"{path} is not an evomerge archive, or its search was killed before it began; start it again")
    if version != VERSION:
        raise RunError(f"{path} has schema version {version}, this evomerge reads {VERSION}; use the one that wrote it")
    if problem != "ok":
        raise ArchiveDamaged(_damaged(path, problem))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a RunError that says what to do."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        raise RunError(_operational(path, str(error))) from error
    except sqlite3.DatabaseError as error:
        raise ArchiveDamaged(_damaged(path, str(error))) from error


def _operational(path: Path, message: str) -> str:
    lower = message.lower()
    if "full" in lower or "disk i/o" in lower:
        return (
            f"{path} cannot grow: {message}. What was recorded before is safe; free some space, then: "
            f"evomerge resume {path.parent}"
        )
    if "readonly" in lower or "read-only" in lower or "unable to open" in lower:
        return f"{path} cannot be opened for writing: {message}. Make the folder writable, or choose another run folder"
    if "locked" in lower or "busy" in lower:
        return f"{path} is locked by another program ({message}); close it and run again"
    return f"{path} cannot be used: {message}"


def _damaged(path: Path, problem: str) -> str:
    return (
        f"{path} is damaged ({problem}). `evomerge resume {path.parent}` restores the newest good copy, a backup or "
        "the mirror, and goes on from there"
    )


def on_network(path: Path) -> bool:
    """Return whether the mount that holds `path` is known to be a network file system (Linux; elsewhere False)."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    folder = str(path.resolve().parent)
    best, kind = "", ""
    for line in mounts:
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind.startswith(_NETWORK)
