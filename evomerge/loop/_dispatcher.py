"""The dispatcher between archive and pool: submits the items that are still unanswered, and records the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from evomerge.archive import Archive, RetryPayload, WorkerPayload
from evomerge.candidate import Answers, Candidate, Failure, Job, Outcome, Split
from evomerge.workers import Arrival, Pool, PoolEvent, Retry

Items = Mapping[str, tuple[str, ...]]  # task -> ids of items
Plan = Items | Callable[[Candidate], Items]  # what every candidate answers, or what this one does


class Dispatcher:
    """Owns the open candidates: those that were added and are not finished.

    A candidate that was partly answered before is asked only the missing items; a duplicate (the same recipe as an
    earlier candidate) shares its answers; a candidate that is finished already is returned at once.

    Where `plan` is a function, a candidate's items grow as a race promotes it: it can be added again when it has more
    to answer, and is finished when it has answered the items that its plan has by then.
    """

    def __init__(self, archive: Archive, pool: Pool, split: Split, plan: Plan) -> None:
        self._archive, self._pool, self._split, self._plan = archive, pool, split, plan
        self._queue: deque[Job] = deque()  # waiting for a worker
        self._running: dict[int, Job] = {}
        # a (candidate, task) that is partly answered -> the items that were asked together
        self._half_way: dict[tuple[int, str], tuple[str, ...]] = archive.half_way(split)
        self._duplicates: dict[int, list[int]] = {}  # open candidate -> later ones with the same recipe
        self._waiting_duplicates: dict[int, Candidate] = {}  # each runs itself if the first one's machine fails

    @property
    def queued(self) -> int:
        """How many candidates wait for a worker."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many candidates are with the pool."""
        return len(self._running)

    @property
    def open(self) -> int:
        """How many candidates are not finished."""
        return len(self._queue) + len(self._running) + len(self._waiting_duplicates)

    @property
    def parents(self) -> int:
        """How many parents are not finished."""
        return sum(job.candidate.kind == "parent" for job in self._queue) + sum(number < 0 for number in self._running)

    def add(self, candidates: Iterable[Candidate]) -> list[int]:
        """Add candidates; return the numbers of those that need no work because the archive has their answers."""
        finished = []
        for candidate in candidates:
            stored = self._archive.outcome(candidate.number, self._split)
            duplicate = self._archive.duplicate_of(candidate) if candidate.kind == "search" else None
            if stored is not None and _final(stored.failure) and not self._grown(candidate, stored.failure):
                finished.append(candidate.number)
            elif duplicate is not None and self._is_open(duplicate):
                self._duplicates.setdefault(duplicate, []).append(candidate.number)
                self._waiting_duplicates[candidate.number] = candidate
            elif duplicate is not None and self._can_copy(duplicate, candidate):
                self._archive.copy_answers(duplicate, candidate.number, self._split)
                finished.append(candidate.number)
            else:
                self._queue.append(self._job(candidate))
        return finished

    def submit(self) -> None:
        """Give the pool as many jobs as it has room for; each is recorded before it leaves."""
        jobs = [self._queue.popleft() for _ in range(min(len(self._queue), self._pool.room()))]
        if not jobs:
            return
        with self._archive.transaction():
            for job in jobs:
                self._archive.put_submitted(job.candidate.number, job.split)
        for job in jobs:
            self._running[job.candidate.number] = job
            self._pool.submit(job)

    def record(self, arrived: Iterable[Arrival]) -> list[Outcome]:
        """Record what the pool returned, inside a transaction; return the outcomes, those of duplicates among them."""
        outcomes: list[Outcome] = []
        for result in arrived:
            if isinstance(result, Answers):
                self._put_answers(result)
                continue
            if isinstance(result, Retry):
                payload: RetryPayload = {
                    "split": result.split,
                    "worker": result.worker,
                    "message": result.message,
                    "seconds": result.seconds,
                    "worked": result.worked,
                }
                self._archive.put_event("retry", result.number, payload)
                continue
            if isinstance(result, PoolEvent):
                facts = {"what": result.what, "worker": result.worker, **result.facts}
                self._archive.put_event("worker", None, cast("WorkerPayload", facts))
                continue
            self._archive.put_outcome(result)
            self._running.pop(result.number, None)
            outcomes.append(result)
            outcomes += self._share(result)
        return outcomes

    def _put_answers(self, answers: Answers) -> None:
        """Record answers; with the first portion of a task, also the items that were asked together."""
        key = (answers.number, answers.task)
        if not answers.left:
            self._archive.put_answers(answers)
            self._half_way.pop(key, None)
        elif key in self._half_way:
            self._archive.put_answers(answers)
        else:
            self._half_way[key] = self._running[answers.number].items[answers.task]
            self._archive.put_answers(answers, self._half_way[key])

    def _share(self, outcome: Outcome) -> list[Outcome]:
        """Return the outcomes of the candidates that waited for this one."""
        shared: list[Outcome] = []
        for number in self._duplicates.pop(outcome.number, []):
            candidate = self._waiting_duplicates.pop(number)
            if self._can_copy(outcome.number, candidate):
                self._archive.copy_answers(outcome.number, number, self._split)
                copied = self._archive.outcome(number, self._split)
                assert copied is not None
                shared.append(copied)
            else:
                self._queue.append(self._job(candidate))
        return shared

    def _is_open(self, number: int) -> bool:
        return number in self._running or any(job.candidate.number == number for job in self._queue)

    def _items(self, candidate: Candidate) -> Items:
        return self._plan(candidate) if callable(self._plan) else self._plan

    def _can_copy(self, earlier: int, candidate: Candidate) -> bool:
        """Return whether a duplicate's outcome and answers are all that a candidate needs."""
        stored = self._archive.outcome(earlier, self._split)
        if stored is None or not _final(stored.failure):
            return False
        return (
            stored.failure is not None or not callable(self._plan) or not self._missing(earlier, self._plan(candidate))
        )

    def _grown(self, candidate: Candidate, failure: Failure | None) -> bool:
        """Return whether a finished candidate has more to answer by now."""
        return failure is None and callable(self._plan) and bool(self._missing(candidate.number, self._plan(candidate)))

    def _missing(self, number: int, plan: Items) -> Items:
        answered = self._archive.answered(self._split, number)
        missing = {
            task: tuple(item for item in items if item not in answered.get(task, ())) for task, items in plan.items()
        }
        return {task: items for task, items in missing.items() if items}

    def _job(self, candidate: Candidate) -> Job:
        number = candidate.number
        missing = self._missing(number, self._items(candidate))
        together = {task: self._half_way[number, task] for task in missing if (number, task) in self._half_way}
        return Job(candidate, self._split, missing, together)


def _final(failure: Failure | None) -> bool:
    """True where another try would give the same: the candidate is scored, or the candidate itself is at fault."""
    return failure is None or failure.kind == "candidate"
