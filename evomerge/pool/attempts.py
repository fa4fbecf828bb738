"""A job on its way through a pool: what is still to be answered, who failed at it, and when it may be tried again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from evomerge.candidate import Answers, Failure, Job, Outcome

MOST_TRIES = 3  # of one job, each on another worker where there is one, while machines fail under it
MOST_MOVES = 20  # away from nodes that left: no fault of the job, and no reason to go on for ever
LONGEST_WAIT = 60.0  # seconds before a further try


@dataclass
class Attempt:
    """One job, from `submit` to its outcome. It runs on one worker, or on two where the first one straggles."""

    job: Job  # what is still to be answered
    tries: int = 0  # that ended with a failure of the machine
    moves: int = 0  # that ended because a node left
    excused: bool = False  # one worker died before it said that it had begun, which may have been its own end
    not_before: float = float("-inf")  # no further try earlier
    waiting_since: float = 0.0
    runs: set[int] = field(default_factory=set)  # workers that are at it
    failed_nodes: set[str] = field(default_factory=set)
    failed_workers: set[str] = field(default_factory=set)  # by name
    ended: bool = False

    @property
    def number(self) -> int:
        """The candidate's number."""
        return self.job.candidate.number

    def take(self, answers: Answers) -> Answers | None:
        """Note answers, and return those to items that were not answered before; None where there are none."""
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

    def take_memory(self, share: float) -> None:
        """Let the next try's batches take this share of the memory."""
        self.job = replace(self.job, memory=share)

    def try_again(self, now: float, node: str, worker: str, first_wait: float, moved: bool) -> bool:
        """Note that a worker failed at the job; False where it has been tried often enough.

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

    def given_up(self, why: str, log: str, worker: str) -> Outcome:
        """Return the outcome of a job at which too many workers failed."""
        message = f"{why} (tried {self.tries} times, on {', '.join(sorted(self.failed_workers))})"
        return Outcome(self.number, self.job.split, Failure("infrastructure", message, log), worker)
