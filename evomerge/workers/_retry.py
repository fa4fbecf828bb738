"""What happens to a job when its worker or machine fails: further tries, quarantine of a device, smaller batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from evomerge.candidate import Answers, Failure, Job, Outcome

MOST_TRIES = 3  # failures of machines under one job, each on another worker where there is one
MOST_MOVES = 20  # changes of worker because a node left: the job is not at fault, but there has to be an end
LONGEST_WAIT = 60.0  # seconds before a further try

QUARANTINE_FAILURES = 3  # failures of different candidates without a success between them: the device is at fault
FIRST_SECONDS = 300.0  # length of the first quarantine; each further one is twice as long
LONGEST_SECONDS = 3600.0

LEAST = 1 / 16  # the smallest fraction of a batch's usual memory; less saves nothing
REGAIN = 1000  # jobs without trouble, after which twice as much is tried again: others may have used the memory


@dataclass
class JobAttempt:
    """One job, from `submit` to its outcome. It runs on one worker, or on two where the first one straggles."""

    job: Job  # the items that are still unanswered
    waiting_since: float = 0.0
    not_before: float = float("-inf")  # no further try earlier
    runs: set[int] = field(default_factory=set)  # workers that run it now
    failed_nodes: set[str] = field(default_factory=set)
    failed_workers: set[str] = field(default_factory=set)  # names of the workers on which it failed
    ended: bool = False
    start_failure_used: bool = False  # a worker died before it reported the start of the job; allowed once
    tries: int = 0  # failures of machines
    moves: int = 0  # nodes that left

    @property
    def number(self) -> int:
        """The candidate's number."""
        return self.job.candidate.number

    def add_answers(self, answers: Answers) -> Answers | None:
        """Add answers; return those to items that were not answered before, or None where there are none."""
        asked = self.job.items.get(answers.task)
        if self.ended or asked is None:
            return None
        open_items = set(asked)
        fresh = tuple(response for response in answers.responses if response.item in open_items)
        if not fresh:
            return None
        open_items.difference_update(response.item for response in fresh)
        items, together = dict(self.job.items), dict(self.job.together)
        if open_items:
            items[answers.task] = tuple(item for item in asked if item in open_items)
            together.setdefault(answers.task, asked)
        else:
            del items[answers.task]
            together.pop(answers.task, None)
        self.job = replace(self.job, items=items, together=together)
        return replace(answers, responses=fresh, left=len(open_items))

    def limit_memory(self, fraction: float) -> None:
        """Limit the next try's batches to this fraction of the memory."""
        self.job = replace(self.job, memory=fraction)

    def excuse_start_failure(self) -> bool:
        """Return whether a worker's death before the start of the job is excused: once per job.

        The last messages of a dying process get lost, so a job that kills its worker at once looks the same.
        """
        excused, self.start_failure_used = not self.start_failure_used, True
        return excused

    def started_on(self, worker: int) -> None:
        """Note that a worker runs it."""
        self.runs.add(worker)

    def ended_on(self, worker: int) -> None:
        """Note that a worker runs it no longer."""
        self.runs.discard(worker)

    def end(self) -> None:
        """Note that the job has its outcome."""
        self.ended = True

    def try_again(self, now: float, node: str, worker: str, first_wait: float, moved: bool) -> bool:
        """Record that a worker failed; return False where the job has been tried often enough.

        A try whose node left is repeated at once; others after `first_wait` seconds, doubled from try to try.
        """
        self.failed_nodes.add(node)
        self.failed_workers.add(worker)
        self.waiting_since = now
        if moved:
            self.moves += 1
            return self.moves < MOST_MOVES
        self.tries += 1
        self.not_before = now + min(LONGEST_WAIT, first_wait * 2.0 ** (self.tries - 1))
        return self.tries < MOST_TRIES

    def penalty(self, node: str, worker: str) -> tuple[bool, bool]:
        """Return how badly a worker suits the job: another node is better, then another worker."""
        return node in self.failed_nodes, worker in self.failed_workers

    def given_up(self, why: str, log: str, worker: str) -> Outcome:
        """Return the outcome of a job at which too many workers failed."""
        message = f"{why} (tried {self.tries} times, on {', '.join(sorted(self.failed_workers))})"
        return Outcome(self.number, self.job.split, Failure("infrastructure", message, log), worker)


@dataclass
class _FailureCount:
    failed: set[int] = field(default_factory=set)  # candidates, since the last success
    count: int = 0  # quarantines so far
    until: float = float("-inf")


class Quarantine:
    """Counts failures per device: a GPU of a node, or the node where workers use no GPU.

    After a quarantine one more failure is enough for the next, which is twice as long; a success resets the count.
    """

    def __init__(self) -> None:
        self._devices: dict[str, _FailureCount] = {}
        self._latest = float("-inf")  # end of the latest quarantine

    def failed(self, device: str, candidate: int, now: float) -> float | None:
        """Record a failure; return how many seconds the device gets no jobs, None where it goes on."""
        record = self._devices.setdefault(device, _FailureCount())
        record.failed.add(candidate)
        needed = QUARANTINE_FAILURES if not record.count else 1
        if len(record.failed) < needed or record.until > now:
            return None
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**record.count)
        record.count += 1
        record.until = now + seconds
        self._latest = max(self._latest, record.until)
        record.failed.clear()
        return seconds

    def succeeded(self, device: str) -> None:
        """Record that a job ended well there."""
        self._devices.pop(device, None)

    def forgive(self, candidate: int) -> None:
        """Remove the failures of a candidate that fails on every device."""
        for record in self._devices.values():
            record.failed.discard(candidate)

    def quiet(self, now: float) -> bool:
        """Return whether no device is in quarantine now."""
        return now >= self._latest

    def holds(self, device: str, now: float) -> bool:
        """Return whether a device is in quarantine now."""
        record = self._devices.get(device)
        return record is not None and now < record.until


class MemoryFraction:
    """The fraction of memory that the batches of new jobs may take.

    A job that ran out goes on with half; the fraction with which it succeeds holds for all later jobs.
    """

    def __init__(self) -> None:
        self.value = 1.0
        self._quiet = 0  # jobs that went well since the last trouble

    def after_running_out(self, fraction: float) -> float:
        """Return the fraction for the next try of a job that ran out of memory with `fraction`."""
        self._quiet = 0
        return max(LEAST, fraction / 2)

    def worked(self, fraction: float) -> None:
        """Record that a job went well with `fraction`."""
        self._quiet += 1
        if fraction < self.value:
            self.value, self._quiet = fraction, 0
        elif self._quiet >= REGAIN:
            self.value, self._quiet = min(1.0, 2 * self.value), 0
