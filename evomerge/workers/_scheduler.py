"""The pool on a cluster: gives jobs to workers, and makes sure that every job ends whatever happens to the workers.

This is the policy alone: Ray is behind `pool.cluster.Cluster`, as are the clock and the failures of the tests.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from evomerge.candidate import Answers, Failure, Job, Outcome
from evomerge.errors import out_of_memory
from evomerge.workers._cluster import Cause, Cluster, JobStarted, ModelsLoaded, WorkerDied, WorkerEvent, WorkerStarted
from evomerge.workers._metrics import add_totals, pool_metrics
from evomerge.workers._pool_protocol import Arrival, PoolEvent, Retry
from evomerge.workers._retry import JobAttempt, MemoryFraction, Quarantine
from evomerge.workers._timeouts import LOAD, DurationModel, TimeoutSettings
from evomerge.workers._worker_set import PoolSize, WorkerSet, best_worker
from evomerge.workers._worker_state import WorkerState

LONGEST_LOOK = 0.5  # interval in seconds at which deadlines and nodes are checked
PUBLISH_SECONDS = 5.0  # interval at which metrics are published
HELD_SECONDS = 60.0  # longest wait of a job for a worker elsewhere, before it returns to one where it failed


@dataclass(frozen=True)
class Policy:
    """How the scheduler treats failures and delays; seconds."""

    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    first_wait: float = 1.0  # before the second try; doubled from try to try
    stragglers: bool = True  # run a job a second time where it takes long and a worker is idle


class Scheduler:
    """A `Pool` on a cluster.

    Answers arrive before their job ends, and are never asked again. When a worker dies, hangs or its machine
    fails, the job goes to another one, on another node if there is one, up to `retry.MOST_TRIES` times. A job that
    straggles is given to an idle worker too; of two answers to an item the first one counts. A job whose worker ran out
    of memory goes on with half as much for its batches, and so do later jobs once that has worked.
    """

    def __init__(self, cluster: Cluster, size: PoolSize | None = None, policy: Policy | None = None) -> None:
        self._cluster = cluster
        self._policy = policy or Policy()
        self._durations = DurationModel(self._policy.timeouts)
        self._quarantine = Quarantine()
        self._queue: deque[JobAttempt] = deque()
        self._open: dict[tuple[int, str], JobAttempt] = {}  # (candidate, split) -> its attempt
        self._failed_recipes: dict[str, str] = {}  # recipe digest -> why its workers died
        self._arrived: list[Arrival] = []
        self._memory = MemoryFraction()
        self._closed = False
        size = size or PoolSize()
        self._workers = WorkerSet(cluster, size)
        self._checked = self._helped = float("-inf")  # times of the last check for hanging workers, and for stragglers
        self._totals: dict[str, float] = {}
        self._published = float("-inf")
        if size.workers is not None and size.may_grow:
            cluster.request_workers(size.workers)
        self._survey()

    def room(self) -> int:
        """Return how many workers are ready and idle, and not needed for jobs that wait."""
        return max(0, len(self._workers.available(self._quarantine)) - len(self._queue))

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker, or queue it."""
        digest = job.candidate.recipe.digest
        if digest in self._failed_recipes:  # its duplicate killed one worker after another
            why = f"the same recipe failed before: {self._failed_recipes[digest]}"
            self._arrived.append(Outcome(job.candidate.number, job.split, Failure("infrastructure", why)))
            return
        attempt = JobAttempt(replace(job, memory=self._memory.value), waiting_since=self._cluster.now())
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
            for number, event in self._cluster.wait(look):
                self._handle(number, event)
            self._end_hanging()
            self._dispatch()
            if self._arrived or left <= 0 or self.room() > room or not self._expects():
                break
        arrived, self._arrived = self._arrived, []
        add_totals(arrived, self._totals)
        return arrived

    def status(self) -> list[dict[str, Any]]:
        """Return a row per worker."""
        now = self._cluster.now()
        return [worker.row(now, self._quarantine.holds(worker.device_key, now)) for worker in self._workers]

    def close(self) -> None:
        """End the workers; jobs under way are dropped."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._open.clear()
            self._workers.clear()
        self._cluster.close()

    def _survey(self) -> None:
        for worker, died in self._workers.survey():
            self._lose(worker, died)
        now = self._cluster.now()
        if now >= self._published + PUBLISH_SECONDS:
            self._published = now
            self._cluster.publish_metrics(pool_metrics(self.status(), len(self._queue), self._totals))

    def _expects(self) -> bool:
        """Return whether any event can still come."""
        return bool(self._open) or any(worker.state != "ready" for worker in self._workers) or not len(self._workers)

    def _lose(self, worker: WorkerState, died: WorkerDied, kill: bool = False) -> None:
        """Drop a worker; its job is tried again, or ends."""
        self._workers.drop(worker, kill)
        what: Literal["left", "lost"] = "left" if died.cause == "node" else "lost"
        facts = {"node": worker.node.name, "message": died.message, "log": died.log}
        self._arrived.append(PoolEvent(what, worker.name, facts))
        if died.cause != "node":
            self._workers.record_death(worker)
        if worker.attempt is not None:
            unstarted = died.cause not in ("node", "memory") and not worker.begun
            gone = unstarted and worker.attempt.excuse_start_failure()
            self._retry_or_fail(worker, replace(died, cause="gone") if gone else died)

    def _end_hanging(self) -> None:
        now = self._cluster.now()
        if now < self._checked + LONGEST_LOOK:  # all workers are checked, and events may come by the thousand
            return
        self._checked = now
        for worker in self._workers:
            if worker.state != "ready":
                limit, doing = self._durations.limit(LOAD), "started"
            elif worker.attempt is not None:
                task = next(iter(worker.left), None)
                limit, doing = self._durations.limit(task, worker.left.get(task or "", 1)), "answered"
            else:
                continue
            if now - worker.heard > limit:
                self._lose(
                    worker, WorkerDied(f"it has not {doing} for {limit:.0f} seconds: the worker hangs"), kill=True
                )

    def _dispatch(self) -> None:
        now = self._cluster.now()
        help_due = self._policy.stragglers and now >= self._helped + LONGEST_LOOK
        if not self._queue and not help_due:
            return
        idle = self._workers.available(self._quarantine)
        held: list[JobAttempt] = []
        while idle and self._queue:
            attempt = self._queue.popleft()
            worker = best_worker(idle, attempt)
            if now < attempt.not_before or self._worth_holding(attempt, worker, now):
                held.append(attempt)
                continue
            idle.remove(worker)
            self._workers.assign(worker, attempt)
        self._queue.extendleft(reversed(held))
        if idle and not self._queue and help_due:
            self._helped = now
            self._help_stragglers(idle, now)

    def _worth_holding(self, attempt: JobAttempt, best: WorkerState, now: float) -> bool:
        """Return whether to wait for a worker that suits a job better than the best idle one."""
        penalty = attempt.penalty(best.node.id, best.name)
        if not any(penalty) or now > attempt.waiting_since + HELD_SECONDS:
            return False
        others = [w for w in self._workers if not w.node.leaving and not self._quarantine.holds(w.device_key, now)]
        return any(attempt.penalty(other.node.id, other.name) < penalty for other in others)

    def _help_stragglers(self, idle: list[WorkerState], now: float) -> None:
        """Give straggling jobs to idle workers too, the longest first; one helper each."""
        for worker in sorted(self._workers, key=lambda one: one.since):
            attempt = worker.attempt
            if not idle or attempt is None or attempt.ended or len(attempt.runs) != 1 or not attempt.job.items:
                continue
            if not self._durations.straggles(worker.asked, now - worker.since):
                continue
            helper = min(idle, key=lambda one: one.node.id == worker.node.id)
            idle.remove(helper)
            facts = {"candidate": attempt.number, "seconds": now - worker.since, "helper": helper.name}
            self._arrived.append(PoolEvent("straggler", worker.name, facts))
            self._workers.assign(helper, attempt)

    def _handle(self, number: int, event: WorkerEvent) -> None:
        """Handle an event of a worker."""
        worker = self._workers.get(number)
        if worker is None:  # dropped meanwhile
            return
        now = self._cluster.now()
        if isinstance(event, WorkerDied):
            self._lose(worker, event)
        elif isinstance(event, WorkerStarted):
            self._arrived.append(self._workers.admit(worker, event))
        elif isinstance(event, ModelsLoaded):
            self._workers.loaded(worker)
            self._durations.note(LOAD, 1, event.seconds)
        elif isinstance(event, JobStarted):
            worker.job_started()
        elif isinstance(event, Answers):
            self._answered(worker, event, now)
        else:
            self._finished(worker, event)
        worker.heard_from(now)

    def _answered(self, worker: WorkerState, answers: Answers, now: float) -> None:
        attempt = worker.attempt
        assert attempt is not None
        self._durations.note(answers.task, len(answers.items), now - worker.heard)
        worker.answered(answers, now)
        fresh = attempt.add_answers(answers)
        if fresh is not None:
            self._arrived.append(fresh)
        else:
            facts = {"candidate": answers.number, "task": answers.task, "seconds": now - worker.heard}
            self._arrived.append(PoolEvent("wasted", worker.name, facts))

    def _finished(self, worker: WorkerState, outcome: Outcome) -> None:
        """End a job, or try it again where the machine failed."""
        failure = outcome.failure
        if failure is not None and failure.kind == "infrastructure":
            cause: Cause = "memory" if out_of_memory(failure.message) else "process"
            self._retry_or_fail(worker, WorkerDied(failure.message, cause, failure.traceback))
            return
        attempt, _ = self._workers.release(worker)
        if outcome.done:
            self._memory.worked(attempt.job.memory)
        self._workers.record_success(worker)
        self._quarantine.succeeded(worker.device_key)
        if not attempt.ended:
            self._end(attempt, outcome)

    def _retry_or_fail(self, worker: WorkerState, died: WorkerDied) -> None:
        """Try a job again after its worker or machine failed; end it where that happened too often."""
        now = self._cluster.now()
        lost = now - max(worker.since, worker.saved)
        attempt, worked = self._workers.release(worker)
        if attempt.ended:
            return
        if died.cause == "memory":
            attempt.limit_memory(self._memory.after_running_out(attempt.job.memory))
        moved = died.cause in ("node", "gone")
        again = attempt.try_again(now, worker.node.id, worker.name, self._policy.first_wait, moved)
        if not moved:
            self._record_failure(worker, attempt, now, died.message)
        if again or attempt.runs:  # the other worker of a straggler goes on
            message = f"{died.message}\n{died.log}".strip()
            self._arrived.append(Retry(attempt.number, attempt.job.split, worker.name, message, lost, worked))
            if not attempt.runs:
                self._queue.appendleft(attempt)
            return
        outcome = attempt.given_up(died.message, died.log, worker.name)
        assert outcome.failure is not None
        self._failed_recipes[attempt.job.candidate.recipe.digest] = outcome.failure.message
        if len(attempt.failed_workers) > 1:  # it failed on every worker: no device is at fault
            self._quarantine.forgive(attempt.number)
        self._end(attempt, outcome)

    def _record_failure(self, worker: WorkerState, attempt: JobAttempt, now: float, why: str) -> None:
        """Count a failure against the worker's device, which may put it into quarantine."""
        seconds = self._quarantine.failed(worker.device_key, attempt.number, now)
        if seconds is not None:
            facts = {"place": worker.device, "seconds": seconds, "message": f"in quarantine for {seconds:.0f} s: {why}"}
            self._arrived.append(PoolEvent("quarantined", worker.name, facts))

    def _end(self, attempt: JobAttempt, outcome: Outcome) -> None:
        attempt.end()
        self._open.pop((attempt.number, attempt.job.split), None)
        self._arrived.append(outcome)
