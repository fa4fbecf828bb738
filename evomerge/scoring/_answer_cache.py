"""Answers kept across runs: what a model said once, it need not say again.

One SQLite file in a folder that the user named; any number of workers and runs share it. It holds answers under the
hash of everything that determines them, so nothing is ever out of date and nothing needs to be removed. It is a
convenience: whatever is wrong with it is said once, and the answers are computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from evomerge.candidate import Response

T = TypeVar("T")

FILE_NAME = "answers.sqlite"
VERSION = 1  # version of the stored format and of the keys: raising it forgets every stored answer
_AT_ONCE = 500  # keys per query
_WAIT = 30.0  # seconds for another writer
# Packages whose versions can change an answer.
_PACKAGES = ("evomerge", "torch", "transformers", "lm-eval")


def digest(*facts: Any) -> str:
    """Return 64 hexadecimal digits over JSON-ready facts; the order of a mapping's keys does not count."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def identity(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> str:
    """Return a hash of what determines a model's answers beside its weights and the prompt.

    Equal weights under another configuration (such as the base of its rotary positions), tokenizer, end-of-text
    token, device type or version of torch are another model.
    """
    configuration = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("_name_or_path", "transformers_version")
    }
    generation = getattr(model, "generation_config", None)
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return digest(
        VERSION,
        configuration,
        None if generation is None else generation.to_dict(),
        _tokenizer_facts(tokenizer),
        {key: value for key, value in settings.items() if key != "batch_size"},
        next(model.parameters()).device.type,
        versions,
    )


def _tokenizer_facts(tokenizer: Any) -> list[Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # How to cut and pad is set anew by every call; it is no part of what the tokenizer is.
    known = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    parts = {key: value for key, value in known.items() if key not in ("truncation", "padding")}
    return [type(tokenizer).__name__, parts, tokenizer.special_tokens_map]


class AnswerCache:
    """Responses by key; made by a worker, used from one thread. Other processes may use the same folder."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self._said: set[str] = set()
        self._open()

    def get(self, keys: Mapping[str, str]) -> dict[str, list[Response]]:
        """Return item -> responses of the items that are known.

        Args:
            keys: item -> key.
        """
        rows = self._guarded(lambda connection: _select(connection, list(keys.values()))) or {}
        found = {}
        for item, key in keys.items():
            responses = _read(rows.get(key))
            if responses is not None:
                found[item] = responses
        return found

    def put(self, rows: Iterable[tuple[str, Sequence[Response]]]) -> None:
        """Keep the responses to one item per key; what is there already stays."""
        texts = [(key, _written(responses)) for key, responses in rows]
        filled = [(key, text, zlib.crc32(text.encode())) for key, text in texts]
        self._guarded(lambda connection: _insert(connection, filled))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
        except (OSError, sqlite3.OperationalError) as error:
            self._say(f"{self.path} cannot be used ({error}); answers are computed and not kept")
        except sqlite3.DatabaseError as error:
            self._rebuild(error)

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what `work` does with the file, or None where the file is of no use."""
        if self._connection is None:
            return None
        try:
            return work(self._connection)
        except sqlite3.OperationalError as error:  # full, locked for long, taken away
            self._say(f"{self.path} could not be used ({error}); answers are computed instead")
        except sqlite3.DatabaseError as error:
            self._rebuild(error)
        return None

    def _rebuild(self, error: sqlite3.DatabaseError) -> None:
        """Put a damaged file aside and begin a new one."""
        self.close()
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm", "-journal"):  # they belong to the damaged file
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self._connection = _connect(self.path)
        except (OSError, sqlite3.Error) as second:
            self._say(f"{self.path} is damaged ({error}) and cannot be replaced ({second}); answers are not kept")
            return
        self._say(f"{self.path} was damaged ({error}); it is now {aside.name}, and a new one was begun")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            warnings.warn(f"answer cache: {text}", RuntimeWarning, stacklevel=2)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_WAIT)
    try:
        # Losing the last answers with the power is no loss; waiting for the disk at each candidate would be.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)"
            " WITHOUT ROWID"
        )
        connection.execute("SELECT value, crc FROM answers LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _select(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
    found = {}
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        select = f"SELECT key, value, crc FROM answers WHERE key IN ({', '.join('?' * len(part))})"
        found.update({key: (value, crc) for key, value, crc in connection.execute(select, part)})
    return found


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, int]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # A row that does not read back is replaced; any other is what would be written.
        connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _written(responses: Sequence[Response]) -> str:
    return json.dumps([[r.task, r.item, r.metric, r.value, r.answer] for r in responses])


def _read(row: tuple[str, int] | None) -> list[Response] | None:
    """Return the responses of a row; None where there is none, or it is not what was written."""
    if row is None or not isinstance(row[0], str) or zlib.crc32(row[0].encode()) != row[1]:
        return None
    try:
        return [Response(*fields) for fields in json.loads(row[0])]
    except (ValueError, TypeError):
        return None
