"""The archive itself: `put_*` adds rows, everything else reads them back as frozen values.

The archive is the checkpoint. What the loop decides is committed here before it takes effect, so a process may be
killed between any two lines and a fresh one continues from what is stored.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from evomerge.archive import _schema as schema
from evomerge.archive._event_kinds import (
    AnsweredPayload,
    EventKind,
    EventPayload,
    ObservedPayload,
    RemeasuredPayload,
)
from evomerge.archive._lock import FILE_NAME as LOCK_NAME
from evomerge.archive._lock import WriterLock
from evomerge.archive._reader import Reader
from evomerge.candidate import Answers, Candidate, Outcome, Response, Split
from evomerge.errors import RunError

FILE_NAME = "archive.sqlite"


class Archive(Reader):
    """One run's record in `archive.sqlite`; made by `create` or `open`, closed by `close` or by `with`.

    One process writes, any number read. Every `put_*` is on the disk when it returns; `transaction` makes several of
    them one, which costs one wait for the disk.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: WriterLock | None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(path, connection)
        self._lock = lock
        self._watch = watch  # called with the name of each event before, and with 'commit' after, it is on the disk
        self._depth = 0
        self._item_ids: dict[tuple[str, str, str], int] = {}
        self._opened = time.monotonic()
        self._seconds_before = 0.0

    @classmethod
    def create(
        cls, folder: str | Path, config: Mapping[str, Any], watch: Callable[[str], None] | None = None
    ) -> Archive:
        """Return a new archive in `folder`, which is made (private to its owner) where it does not exist.

        Args:
            folder: the run folder; it may hold other files but no archive.
            config: JSON-ready values that hold for the whole run, see `RunConfig.to_json`.
            watch: a callback for tests, which end the process at a moment of their choice.

        Raises:
            RunError: the folder holds an archive, is in use, or cannot be written.
        """
        return _created(Path(folder), config, watch)

    @classmethod
    def open(cls, folder: str | Path, read_only: bool = True, watch: Callable[[str], None] | None = None) -> Archive:
        """Return the archive in `folder`; for writing it is locked, for reading it never is.

        Raises:
            RunError: there is none, it is damaged or of another version, or another process writes to it.
        """
        return _opened(Path(folder), read_only, watch)

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Return whether `folder` holds a search. One that was killed before its first record is none.

        Raises:
            RunError: there is a file in the archive's place, and it is no archive.
        """
        return _has_tables(Path(folder) / FILE_NAME)

    def close(self) -> None:
        """Close the file, and give the folder free for another writer; a second call does nothing."""
        if self._lock is not None and self._lock.held:
            # one plain file, easy to copy; where a reader is in the way the log stays beside it
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is put inside is recorded at the end, or nothing of it. Transactions nest; the outermost counts."""
        if self._lock is None:
            raise RunError(f"{self.path} was opened for reading only")
        self._depth += 1
        try:
            with schema.explained(self.path):
                if self._depth == 1:
                    self._connection.execute("BEGIN IMMEDIATE")
                yield
                if self._depth == 1:
                    self._connection.execute("COMMIT")
                    self._notify("commit")
        except BaseException:
            if self._depth == 1:
                self._item_ids.clear()  # ids that were given inside are gone
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def put_event(self, kind: EventKind, candidate: int | None = None, payload: EventPayload | None = None) -> None:
        """Record that something happened now; each kind has its payload, see `_event_kinds.PAYLOADS`."""
        row = (time.time(), self.seconds(), kind, candidate, _dumps(payload or {}))
        with self.transaction():
            self._connection.execute(
                "INSERT INTO events (time, seconds, kind, candidate, payload) VALUES (?, ?, ?, ?, ?)", row
            )
            self._notify(kind)

    def put_asked(self, candidates: Sequence[Candidate], size: int) -> None:
        """Record proposals, with consecutive numbers, before anything is done with them.

        Args:
            candidates: the proposals that are taken on.
            size: how many the controller's `ask` gave; more than were taken where the budget ends inside a batch, and
                0 where these are the rest of such a batch.
        """
        with self.transaction():
            self._put_candidates(candidates)
            first = candidates[0].number if candidates else None
            self.put_event("asked", None, {"first": first, "count": len(candidates), "size": size})

    def put_parents(self, parents: Sequence[Candidate]) -> None:
        """Record the models that are scored beside the search, numbered -1, -2, ..."""
        with self.transaction():
            self._put_candidates(parents)

    def put_remeasured(self, candidates: Sequence[Candidate], predicted: Mapping[str, Any]) -> None:
        """Record points of a predicted front that are now to be measured, with what was predicted of them."""
        with self.transaction():
            self._put_candidates(candidates)
            numbers = [candidate.number for candidate in candidates]
            self.put_event("remeasured", None, cast("RemeasuredPayload", {"numbers": numbers, **predicted}))

    def put_recommended(self, candidates: Sequence[Candidate], observed: int) -> None:
        """Record points recommended after `observed` candidates; they are measured beside the budget."""
        with self.transaction():
            self._put_candidates(candidates)
            numbers = [candidate.number for candidate in candidates]
            self.put_event("recommended", None, {"numbers": numbers, "observed": observed})

    def put_submitted(self, number: int, split: Split) -> None:
        """Record that a candidate was handed to a worker."""
        self.put_event("submitted", number, {"split": split})

    def put_answers(self, answers: Answers, together: Sequence[str] = ()) -> None:
        """Record responses to one task.

        Args:
            answers: to all items of the task that were asked, or to some where others are still to come.
            together: with the first ones of several: all items that were asked, see `half_way`.

        Raises:
            RunError: an answer is there already, or is not a finite number; nothing of these answers is recorded.
        """
        if bad := [response.item for response in answers.responses if not math.isfinite(response.value)]:
            raise RunError(f"candidate {answers.number}, task {answers.task}: item {bad[0]!r} has no finite value")
        rows = [
            (answers.number, answers.split, self._item_id(response), float(response.value), response.answer)
            for response in answers.responses
        ]
        with self.transaction():
            try:
                self._connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", rows)
            except sqlite3.IntegrityError as error:
                raise RunError(
                    f"candidate {answers.number}, task {answers.task} ({answers.split}): an item was answered twice"
                ) from error
            size = len(answers.responses)
            payload: AnsweredPayload = {"split": answers.split, "task": answers.task, "items": size}
            if together:
                payload["together"] = list(together)
            self.put_event("partial" if answers.left else "answered", answers.number, payload)

    def put_outcome(self, outcome: Outcome) -> None:
        """Record the end of a job; a candidate has a second outcome only where it was tried again after a resume."""
        failure = outcome.failure
        count = "SELECT count(*) FROM outcomes WHERE candidate = ? AND split = ?"
        with self.transaction():
            attempt = 1 + self._connection.execute(count, (outcome.number, outcome.split)).fetchone()[0]
            key = (outcome.number, outcome.split, attempt)
            reason = (failure.kind, failure.message, failure.traceback) if failure else (None, "", "")
            work = (outcome.worker, outcome.seconds, _dumps(dict(outcome.stages)), outcome.fingerprint)
            row = (*key, *reason, *work)
            self._connection.execute(f"INSERT INTO outcomes VALUES (NULL{', ?' * len(row)})", row)
            kind = failure.kind if failure else None
            self.put_event("finished", outcome.number, {"split": outcome.split, "failure": kind})

    def put_observed(
        self,
        number: int,
        fitness: Sequence[float] | None,
        stderr: Sequence[float] | None = None,
        staleness: int | None = None,
    ) -> None:
        """Record what the controller is about to observe, before it does; stderr and staleness where known."""
        payload: ObservedPayload = {"fitness": None if fitness is None else list(fitness)}
        if stderr is not None:
            payload["stderr"] = list(stderr)
        if staleness is not None:
            payload["staleness"] = staleness
        self.put_event("observed", number, payload)

    def copy_answers(self, original: int, number: int, split: Split = "search") -> None:
        """Give candidate `number` the answers and the outcome of `original`, whose recipe is the same."""
        with self.transaction():
            self.put_event("duplicate", number, {"of": original, "split": split})
            self._connection.execute(
                "INSERT OR IGNORE INTO answers SELECT ?, split, item_id, value, answer FROM answers "
                "WHERE candidate = ? AND split = ?",
                (number, original, split),
            )
            outcome = self.outcome(original, split)
            if outcome is None:
                raise RunError(f"candidate {original} is not finished; its answers cannot stand for candidate {number}")
            self.put_outcome(Outcome(number, split, outcome.failure, f"as {original}", 0.0, {}, outcome.fingerprint))

    def seconds(self) -> float:
        """Return the run's active time in seconds: what earlier sessions used, and this one since it was opened."""
        if self._lock is None:
            return super().seconds()
        return self._seconds_before + time.monotonic() - self._opened

    def _put_candidates(self, candidates: Sequence[Candidate]) -> None:
        rows = [
            (
                candidate.number,
                candidate.kind,
                candidate.name,
                _dumps(list(candidate.genotype)),
                _dumps(candidate.recipe.to_mapping()),
                candidate.recipe.digest,
            )
            for candidate in candidates
        ]
        try:
            self._connection.executemany("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError as error:
            raise RunError(f"{self.path}: a candidate's number is taken: {error}") from error

    def _item_id(self, response: Response) -> int:
        key = (response.task, response.item, response.metric)
        if key not in self._item_ids:
            with self.transaction():
                self._connection.execute("INSERT OR IGNORE INTO items (task, item, metric) VALUES (?, ?, ?)", key)
                select = "SELECT id FROM items WHERE task = ? AND item = ? AND metric = ?"
                self._item_ids[key] = self._connection.execute(select, key).fetchone()[0]
        return self._item_ids[key]

    def _notify(self, moment: str) -> None:
        if self._watch is not None:
            self._watch(moment)


# NaN is not JSON: every reader but Python's would refuse the row
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _created(folder: Path, config: Mapping[str, Any], watch: Callable[[str], None] | None) -> Archive:
    """Return a new archive; a creation that fails leaves the folder as it was."""
    new = not folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"run folder {folder} cannot be made: {error.strerror}; choose another one") from error
    lock = WriterLock(folder)
    path = folder / FILE_NAME
    archive = None
    try:
        if Archive.exists(folder):
            raise RunError(f"{folder} already holds a search; continue it with: evomerge resume {folder}")
        with schema.explained(path):
            archive = Archive(path, schema.connect_to_write(path), lock, watch)
            with archive.transaction():
                schema.create_tables(archive._connection)
                rows = [(key, _dumps(value)) for key, value in config.items()]
                archive._connection.executemany("INSERT INTO config VALUES (?, ?)", rows)
    except BaseException:
        if archive is not None:
            archive._connection.close()
        if new:
            _remove_made(folder)
        lock.release()
        raise
    return archive


def _opened(folder: Path, read_only: bool, watch: Callable[[str], None] | None) -> Archive:
    """Return an archive whose file has been checked; what was taken on the way is given back where it fails."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise RunError(f"{folder} holds no run: {FILE_NAME} is missing; a run folder is what `evomerge search` made")
    lock = None if read_only else WriterLock(folder)
    try:
        with schema.explained(path):
            connection = schema.connect_to_read(path) if read_only else schema.connect_to_write(path)
        try:
            schema.check(connection, path)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    archive = Archive(path, connection, lock, watch)
    archive._seconds_before = Reader.seconds(archive)
    return archive


def _has_tables(path: Path) -> bool:
    """Return whether a search was recorded in `path`; an empty file was made by a process killed at once."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with schema.explained(path):
        connection = schema.connect_to_read(path)
        try:
            tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            connection.close()
    return tables > 0


def _remove_made(folder: Path) -> None:
    """Remove what a failed creation left in a folder that did not exist before it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / (FILE_NAME + suffix)).unlink(missing_ok=True)
    (folder / LOCK_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # another process may have put a file there meanwhile
        folder.rmdir()
