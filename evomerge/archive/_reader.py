"""Reading an archive: plain queries, frozen values back. Safe while another process writes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import _schema as schema
from evomerge.archive._event_kinds import EventKind
from evomerge.candidate import Candidate, Failure, Kind, Outcome, Response, Split
from evomerge.errors import RunError
from evomerge.recipe import recipe_from_mapping

_CHUNK = 256  # rows read at a time: a reader holds no statement open while the loop writes


@dataclass(frozen=True)
class Event:
    """Something that happened, in the order in which it happened.

    `PAYLOADS` in `_event_kinds.py` lists the kinds, each with the keys of its payload.
    """

    seq: int
    time: float  # seconds since 1970, for people; clocks jump, so nothing is computed from it
    seconds: float  # active time of the run when it happened, over all its sessions
    kind: EventKind
    candidate: int | None  # None where the event concerns the whole run
    payload: Mapping[str, Any]


class Reader:
    """What can be asked of an archive; iterators read a chunk at a time, so a long run does not fill the memory."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @property
    def config_json(self) -> dict[str, Any]:
        """The run's configuration as given to `create`; `RunConfig.from_json` reads it."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM config")}

    def seconds(self) -> float:
        """Return the run's active time in seconds, over all its sessions, up to the last event."""
        return float(self._rows("SELECT coalesce(max(seconds), 0.0) FROM events")[0][0])

    def candidates(self, kind: Kind | None = None, first: int | None = None) -> Iterator[Candidate]:
        """Yield candidates in ascending order of number, from `first` on; parents have negative numbers."""
        where, values = ("AND kind = ?", [kind]) if kind else ("", [])
        select = f"SELECT number, kind, name, genotype, recipe FROM candidates WHERE number > ? {where} ORDER BY number"
        for number, found, name, genotype, recipe in self._chunks(
            select, -(2**62) if first is None else first - 1, values
        ):
            yield Candidate(number, recipe_from_mapping(json.loads(recipe)), tuple(json.loads(genotype)), found, name)

    def candidate(self, number: int) -> Candidate:
        """Return one candidate or parent by its number.

        Raises:
            RunError: there is none.
        """
        select = "SELECT number, kind, name, genotype, recipe FROM candidates WHERE number = ?"
        for found, kind, name, genotype, recipe in self._rows(select, (number,)):
            return Candidate(found, recipe_from_mapping(json.loads(recipe)), tuple(json.loads(genotype)), kind, name)
        raise RunError(f"{self.path}: no candidate {number}")

    def genotypes(self, first: int, count: int) -> np.ndarray:
        """Return the stored genotypes (n, d) of the search candidates first ... first + count - 1 that exist."""
        rows = self._rows(
            "SELECT genotype FROM candidates WHERE number >= ? AND number < ? ORDER BY number", (first, first + count)
        )
        return np.array([json.loads(text) for (text,) in rows], dtype=float)

    def duplicate_of(self, candidate: Candidate) -> int | None:
        """Return the parent or the first earlier search candidate with the same recipe, or None."""
        select = "SELECT min(number) FROM candidates WHERE digest = ? AND number < ?"
        number: int | None = self._rows(select, (candidate.recipe.digest, candidate.number))[0][0]
        return number

    def count(self, kind: Kind = "search") -> int:
        """Return how many candidates of this kind are recorded."""
        return int(self._rows("SELECT count(*) FROM candidates WHERE kind = ?", (kind,))[0][0])

    def events(self, *kinds: EventKind) -> Iterator[Event]:
        """Yield events in order; of these kinds, or all."""
        where = f"AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        select = f"SELECT seq, time, seconds, kind, candidate, payload FROM events WHERE seq > ? {where} ORDER BY seq"
        for *start, payload in self._chunks(select, -1, list(kinds)):
            seq, time, seconds, kind, candidate = start
            yield Event(seq, time, seconds, kind, candidate, json.loads(payload))

    def half_way(self, split: Split) -> dict[tuple[int, str], tuple[str, ...]]:
        """Return (candidate, task) -> the items that were asked together, where only some of them are answered."""
        first = self._rows("SELECT min(seq) FROM events WHERE kind = 'partial'")[0][0]
        if first is None:  # the rule: only long tasks are answered in parts
            return {}
        found: dict[tuple[int, str], tuple[str, ...]] = {}
        kinds = "('partial', 'answered')"
        select = f"SELECT seq, kind, candidate, payload FROM events WHERE seq > ? AND kind IN {kinds} ORDER BY seq"
        for _, kind, candidate, text in self._chunks(select, first - 1, []):
            payload = json.loads(text)
            if payload["split"] != split:
                continue
            if kind == "answered":
                found.pop((candidate, payload["task"]), None)
            elif "together" in payload:
                found[candidate, payload["task"]] = tuple(payload["together"])
        return found

    def responses(self, split: Split, number: int) -> tuple[Response, ...]:
        """Return the answers of one candidate, in the order in which their items were first recorded."""
        select = (
            "SELECT task, item, metric, value, answer FROM answers JOIN items ON id = item_id "
            "WHERE candidate = ? AND split = ? ORDER BY item_id"
        )
        return tuple(Response(*row) for row in self._rows(select, (number, split)))

    def response_rows(self, split: Split) -> Iterator[tuple[int, Response]]:
        """Yield (candidate, response) for every answer of a split, candidates in ascending order."""
        numbers = self._rows("SELECT number FROM candidates ORDER BY number")
        for (number,) in numbers:
            for response in self.responses(split, number):
                yield number, response

    def means(self, split: Split, metrics: Sequence[str]) -> dict[tuple[int, str, str], float]:
        """Return (candidate, task, metric) -> mean value of the stored answers in some metrics."""
        select = (
            "SELECT candidate, task, metric, avg(value) FROM answers JOIN items ON id = item_id "
            f"WHERE split = ? AND metric IN ({', '.join('?' * len(metrics))}) GROUP BY candidate, task, metric"
        )
        return {(number, task, metric): value for number, task, metric, value in self._rows(select, (split, *metrics))}

    def answered(self, split: Split, number: int) -> dict[str, set[str]]:
        """Return task -> items that this candidate has answered."""
        found: dict[str, set[str]] = {}
        select = "SELECT DISTINCT task, item FROM answers JOIN items ON id = item_id WHERE candidate = ? AND split = ?"
        for task, item in self._rows(select, (number, split)):
            found.setdefault(task, set()).add(item)
        return found

    def outcome(self, number: int, split: Split = "search") -> Outcome | None:
        """Return the last outcome of a candidate, or None where it has none yet."""
        rows = self._rows(f"{_OUTCOMES} WHERE candidate = ? AND split = ? ORDER BY id DESC LIMIT 1", (number, split))
        return _outcome(rows[0][1:]) if rows else None

    def outcomes(self) -> Iterator[Outcome]:
        """Yield every outcome in the order of recording; of several for one candidate and split the last counts."""
        for _, *row in self._chunks(f"{_OUTCOMES} WHERE id > ? ORDER BY id", -1, []):
            yield _outcome(row)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with schema.explained(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _chunks(self, select: str, last: int, values: list[Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of `select`, whose first `?` is the key of the last row seen, a chunk at a time."""
        while rows := self._rows(f"{select} LIMIT {_CHUNK}", [last, *values]):
            yield from rows
            last = rows[-1][0]


_OUTCOMES = (
    "SELECT id, candidate, split, failure, message, traceback, worker, seconds, stages, fingerprint FROM outcomes"
)


def _outcome(row: Sequence[Any]) -> Outcome:
    number, split, kind, message, trace, worker, seconds, stages, fingerprint = row
    failure = None if kind is None else Failure(kind, message, trace)
    return Outcome(number, split, failure, worker, seconds, json.loads(stages), fingerprint)
