"""The pool on a cluster: gives jobs to workers, and sees to it that every job ends whatever becomes of them.

All policy and no cluster: Ray is behind `pool.cluster.Cluster`, and so are the clocks and failures of the tests.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from evomerge.candidate import Answers, Failure, Job, Outcome
from evomerge.errors import out_of_memory
from evomerge.pool.attempts import Attempt
from evomerge.pool.cluster import Begun, Cause, Cluster, Died, Greeting, Loaded, News
from evomerge.pool.gauges import count, figures
from evomerge.pool.memory import MemoryShare
from evomerge.pool.pace import LOAD, Pace, PaceSettings
from evomerge.pool.protocol import Arrival, Notice, Retry
from evomerge.pool.quarantine import Quarantine
from evomerge.pool.roster import Roster, Staff
from evomerge.pool.slots import Slot

LONGEST_LOOK = 0.5  # seconds that are waited for news before deadlines and nodes are looked at
PUBLISH_SECONDS = 5.0  # between two times that the figures are shown to the cluster's monitoring
HELD_SECONDS = 60.0  # that a job waits for a worker elsewhere, before it goes back to where it failed


@dataclass(frozen=True)
class Policy:
    """What the foreman does about trouble; seconds."""

    pace: PaceSettings = field(default_factory=PaceSettings)
    first_wait: float = 1.0  # before the second try; doubled from try to try
    stragglers: bool = True  # run a job a second time where it takes long and a worker is idle


class Foreman:
    """A `Pool` on a cluster.

    Answers arrive before their job ends, and are never asked again. When a worker dies, hangs or its machine
    fails, the job goes to another one, on another node if there is one, up to `attempts.MOST_TRIES` times. A job that
    straggles is given to an idle worker too; of two answers to an item the first one counts. A job whose worker ran out
    of memory goes on with half as much for its batches, and so do later jobs once that has worked.
    """

    def __init__(self, cluster: Cluster, staff: Staff | None = None, policy: Policy | None = None) -> None:
        self._cluster = cluster
        self._policy = policy or Policy()
        self._pace = Pace(self._policy.pace)
        self._quarantine = Quarantine()
        self._queue: deque[Attempt] = deque()
        self._open: dict[tuple[int, str], Attempt] = {}  # (candidate, split) -> its attempt
        self._hopeless: dict[str, str] = {}  # recipe digest -> why its workers died
        self._arrived: list[Arrival] = []
        self._memory = MemoryShare()
        self._closed = False
        staff = staff or Staff()
        self._roster = Roster(cluster, staff)
        self._free: dict[int, Slot] = {}  # ready and without a job, by number: a thousand slots are not searched for it
        self._looked = self._helped = float("-inf")  # when hanging workers, and stragglers, were last looked for
        self._totals: dict[str, float] = {}
        self._published = float("-inf")
        if staff.workers is not None and staff.may_grow:
            cluster.wanted(staff.workers)
        self._survey()

    def room(self) -> int:
        """Return how many workers are ready and idle, and not needed for jobs that wait."""
        return max(0, len(self._idle()) - len(self._queue))

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker, or queue it."""
        digest = job.candidate.recipe.digest
        if digest in self._hopeless:  # its twin took worker after worker down
            why = f"the same recipe failed before: {self._hopeless[digest]}"
            self._arrived.append(Outcome(job.candidate.number, job.split, Failure("infrastructure", why)))
            return
        attempt = Attempt(replace(job, memory=self._memory.value), waiting_since=self._cluster.now())
        self._open[attempt.number, job.split] = attempt
        self._queue.append(attempt)
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[Arrival]:
        """Return what has arrived, waiting for a result or for a worker to become ready."""
        until = None if timeout is None else self._cluster.now() + timeout
        while not self._closed:
            self._survey()
            self._dispatch()
            room = self.room()
            left = LONGEST_LOOK if until is None else until - self._cluster.now()
            look = 0.0 if self._arrived else max(0.0, min(left, LONGEST_LOOK))
            for number, news in self._cluster.wait(look):
                self._hear(number, news)
            self._end_hanging()
            self._dispatch()
            if self._arrived or left <= 0 or self.room() > room or not self._expects():
                break
        arrived, self._arrived = self._arrived, []
        count(arrived, self._totals)
        return arrived

    def status(self) -> list[dict[str, Any]]:
        """Return a row per worker."""
        now = self._cluster.now()
        return [slot.row(now, self._quarantine.holds(slot.key, now)) for slot in self._roster]

    def close(self) -> None:
        """End the workers; jobs under way are dropped."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._open.clear()
            self._roster.slots.clear()
            self._free.clear()
        self._cluster.close()

    # -- workers -------------------------------------------------------------------------------------------------

    def _survey(self) -> None:
        for slot, died in self._roster.survey():
            self._lose(slot, died)
        now = self._cluster.now()
        if now >= self._published + PUBLISH_SECONDS:
            self._published = now
            self._cluster.publish(figures(self.status(), len(self._queue), self._totals))

    def _expects(self) -> bool:
        """Return whether there is something to wait for."""
        return bool(self._open) or any(slot.state != "ready" for slot in self._roster) or not self._roster.slots

    def _idle(self) -> list[Slot]:
        """Return the workers that can take a job: not in quarantine, unless all are, and not on a leaving node."""
        idle = [slot for slot in self._free.values() if not slot.node.leaving]
        now = self._cluster.now()
        if not idle or self._quarantine.quiet(now):
            return idle
        sound = [slot for slot in idle if not self._quarantine.holds(slot.key, now)]
        if sound:
            return sound
        busy = (slot for slot in self._roster if not slot.node.leaving and not slot.idle)
        return idle if all(self._quarantine.holds(slot.key, now) for slot in busy) else []

    def _lose(self, slot: Slot, died: Died, kill: bool = False) -> None:
        """Drop a worker; its job is tried again, or ends."""
        self._roster.drop(slot, kill)
        self._free.pop(slot.number, None)
        what: Literal["left", "lost"] = "left" if died.cause == "node" else "lost"
        facts = {"node": slot.node.name, "message": died.message, "log": died.log}
        self._arrived.append(Notice(what, slot.name, facts))
        if died.cause != "node":
            self._roster.died(slot)
        if slot.attempt is not None:
            self._stumble(slot, Died(died.message, self._cause(slot, slot.attempt, died), died.log))

    @staticmethod
    def _cause(slot: Slot, attempt: Attempt, died: Died) -> Cause:
        """Return why a job failed: once, a worker may have died before its job reached it.

        Only once: what a process says in its last milliseconds gets lost, so a job that kills at once looks the same.
        """
        if died.cause in ("node", "memory") or slot.begun or attempt.excused:
            return died.cause
        attempt.excused = True
        return "gone"

    def _end_hanging(self) -> None:
        now = self._cluster.now()
        if now < self._looked + LONGEST_LOOK:  # all workers are looked at, and news may come by the thousand
            return
        self._looked = now
        for slot in self._roster:
            if slot.state != "ready":
                limit, doing = self._pace.limit(LOAD), "started"
            elif slot.attempt is not None:
                task = next(iter(slot.left), None)
                limit, doing = self._pace.limit(task, slot.left.get(task or "", 1)), "answered"
            else:
                continue
            if now - slot.heard > limit:
                self._lose(slot, Died(f"it has not {doing} for {limit:.0f} seconds: the worker hangs"), kill=True)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        now = self._cluster.now()
        help_due = self._policy.stragglers and now >= self._helped + LONGEST_LOOK
        if not self._queue and not help_due:
            return
        idle = self._idle()
        held: list[Attempt] = []
        while idle and self._queue:
            attempt = self._queue.popleft()
            # most jobs have failed nowhere, and then the first worker is as good as any
            slot = min(idle, key=lambda one: self._aversion(attempt, one)) if attempt.failed_workers else idle[0]
            if now < attempt.not_before or self._worth_holding(attempt, slot, now):
                held.append(attempt)
                continue
            idle.remove(slot)
            self._free.pop(slot.number)
            self._cluster.send(slot.number, slot.give(attempt, now))
        self._queue.extendleft(reversed(held))
        if idle and not self._queue and help_due:
            self._helped = now
            self._help_stragglers(idle, now)

    @staticmethod
    def _aversion(attempt: Attempt, slot: Slot) -> tuple[bool, bool]:
        """Return how little a worker suits a job: another node is better, then another worker."""
        return slot.node.id in attempt.failed_nodes, slot.name in attempt.failed_workers

    def _worth_holding(self, attempt: Attempt, best: Slot, now: float) -> bool:
        """Return whether a worker that suits a job better than the best idle one is worth waiting for."""
        if not any(self._aversion(attempt, best)) or now > attempt.waiting_since + HELD_SECONDS:
            return False
        others = [s for s in self._roster if not s.node.leaving and not self._quarantine.holds(s.key, now)]
        return any(self._aversion(attempt, other) < self._aversion(attempt, best) for other in others)

    def _help_stragglers(self, idle: list[Slot], now: float) -> None:
        """Give jobs that take suspiciously long to idle workers too, the longest first; one helper each."""
        alone = [s for s in self._roster if s.attempt is not None and not s.attempt.ended and len(s.attempt.runs) == 1]
        for slot in sorted(alone, key=lambda one: one.since):
            attempt = slot.attempt
            if not idle or attempt is None or not attempt.job.items:
                continue
            if not self._pace.straggles(slot.asked, now - slot.since):
                continue
            helper = min(idle, key=lambda one: one.node.id == slot.node.id)
            idle.remove(helper)
            facts = {"candidate": attempt.number, "seconds": now - slot.since, "helper": helper.name}
            self._arrived.append(Notice("straggler", slot.name, facts))
            self._free.pop(helper.number)
            self._cluster.send(helper.number, helper.give(attempt, now))

    def _hear(self, number: int, news: News) -> None:
        """Take in what a worker says."""
        slot = self._roster.slots.get(number)
        if slot is None:  # dropped meanwhile
            return
        now = self._cluster.now()
        if isinstance(news, Died):
            self._lose(slot, news)
        elif isinstance(news, Greeting):
            self._arrived.append(self._roster.welcome(slot, news))
        elif isinstance(news, Loaded):
            slot.state = "ready"
            if slot.attempt is None:
                self._free[number] = slot
            self._pace.note(LOAD, 1, news.seconds)
        elif isinstance(news, Begun):
            slot.begun = True
        elif isinstance(news, Answers):
            self._answered(slot, news, now)
        else:
            self._finished(slot, news, now)
        slot.heard = now

    def _answered(self, slot: Slot, answers: Answers, now: float) -> None:
        attempt = slot.attempt
        assert attempt is not None
        self._pace.note(answers.task, len(answers.items), now - slot.heard)
        slot.note(answers, now)
        fresh = attempt.take(answers)
        if fresh is not None:
            self._arrived.append(fresh)
        else:
            facts = {"candidate": answers.number, "task": answers.task, "seconds": now - slot.heard}
            self._arrived.append(Notice("wasted", slot.name, facts))

    def _finished(self, slot: Slot, outcome: Outcome, now: float) -> None:
        """End a job, or try it again where it was the machine that failed."""
        failure = outcome.failure
        if failure is not None and failure.kind == "infrastructure":
            cause: Cause = "memory" if out_of_memory(failure.message) else "process"
            self._stumble(slot, Died(failure.message, cause, failure.traceback))
            return
        attempt, _ = slot.release(now)
        if outcome.done:
            self._memory.worked(attempt.job.memory)
        self._free[slot.number] = slot
        self._roster.did_well(slot)
        self._quarantine.succeeded(slot.key)
        if not attempt.ended:
            self._end(attempt, outcome)

    def _stumble(self, slot: Slot, died: Died) -> None:
        """Try a job again after its worker or machine failed; give it up where that happened too often."""
        now = self._cluster.now()
        lost = now - max(slot.since, slot.saved)
        attempt, worked = slot.release(now)
        if slot.number in self._roster.slots:
            self._free[slot.number] = slot
        if attempt.ended:
            return
        if died.cause == "memory":
            attempt.take_memory(self._memory.after_running_out(attempt.job.memory))
        moved = died.cause in ("node", "gone")
        again = attempt.try_again(now, slot.node.id, slot.name, self._policy.first_wait, moved)
        if not moved:
            self._blame(slot, attempt, now, died.message)
        if again or attempt.runs:  # the other worker of a straggler goes on
            message = f"{died.message}\n{died.log}".strip()
            self._arrived.append(Retry(attempt.number, attempt.job.split, slot.name, message, lost, worked))
            if not attempt.runs:
                self._queue.appendleft(attempt)
            return
        outcome = attempt.given_up(died.message, died.log, slot.name)
        assert outcome.failure is not None
        self._hopeless[attempt.job.candidate.recipe.digest] = outcome.failure.message
        if len(attempt.failed_workers) > 1:  # it failed wherever it went: no place is to blame
            self._quarantine.acquit(attempt.number)
        self._end(attempt, outcome)

    def _blame(self, slot: Slot, attempt: Attempt, now: float, why: str) -> None:
        seconds = self._quarantine.failed(slot.key, attempt.number, now)
        if seconds is not None:
            facts = {"place": slot.place, "seconds": seconds, "message": f"left alone for {seconds:.0f} s: {why}"}
            self._arrived.append(Notice("quarantined", slot.name, facts))

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.ended = True
        self._open.pop((attempt.number, attempt.job.split), None)
        self._arrived.append(outcome)
