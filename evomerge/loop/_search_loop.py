"""The search loop: ask, record, submit, collect, record, tell, until there is a reason to stop.

What the loop decides is in the archive before it takes effect. Starting and resuming are one path: the stored proposals
and observations are replayed into a fresh controller (at the start there are none), then the loop goes on. `tell_queue`
decides the order in which results reach the controller, `racing` which candidates answer more items, and `budget`
whether there is time for another job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective, Outcome, Split
from evomerge.controllers import Controller
from evomerge.errors import InputError, RunError
from evomerge.loop._budget import Budget, BudgetMeter, StopReason
from evomerge.loop._dispatcher import Dispatcher, Plan
from evomerge.loop._racing import Fitness, Racing, RacingPolicy
from evomerge.loop._replay import replay
from evomerge.loop._tell_queue import TellQueue
from evomerge.recipe import Recipe
from evomerge.workers import Arrival, Pool

PROGRESS_SECONDS = 0.5  # interval of progress reports; no wait for a result is longer
MOST_MACHINE_FAILURES = 8  # after so many in a row the machine is at fault, and the rest of the budget would be wasted


class Space(Protocol):
    """What the loop needs of a search space."""

    def decode(self, genotype: np.ndarray) -> Recipe:
        """Return the recipe of a genotype (d,) in [0, 1]; total and deterministic."""
        ...


@dataclass(frozen=True)
class Rules:
    """How a search treats its candidates."""

    asynchronous: bool = False  # the controller observes results as they arrive, not by candidate number
    racing: Racing | None = None


@dataclass(frozen=True)
class Progress:
    """The progress of a search."""

    candidates: int  # finished and observed
    budget: int
    best: Mapping[str, float]  # objective -> best score so far, in the metric's units
    front: int  # number of candidates on the Pareto front
    parents: int  # number that still have to answer the search items, before candidates begin to finish
    failures: int
    running: int
    busy: float  # fraction of the workers' time that went into jobs, in this session
    seconds: float  # active time, over all sessions
    eta: float | None  # seconds left; None while nothing is known


def run_search(
    archive: Archive,
    space: Space,
    controller: Controller,
    pool: Pool,
    objectives: tuple[Objective, ...],
    plan: Plan,
    budget: Budget,
    fitness: Fitness,
    progress: Callable[[Progress], None] | None = None,
    rules: Rules | None = None,
) -> StopReason:
    """Search until the budget ends or there is another reason to stop.

    Args:
        archive: open for writing; its parents are scored first, and the controller does not observe them.
        space: decodes genotypes.
        controller: freshly seeded, as at the start of the run; the archive's events are replayed into it.
        pool: evaluates candidates. It is left open for the final scoring, except after an interruption.
        objectives: the components of the fitness.
        plan: task -> items that every candidate answers, or a function of the candidate; with racing, a mapping: the
            items that a candidate answers unless a race stops it.
        budget: strict limits.
        fitness: turns responses into an evaluation; handed in by the composition root.
        progress: called now and then, and at the end.
        rules: the order of observation, and whether candidates race; None: synchronous, without races.

    Returns:
        The reason. The first Ctrl-C is one: it is recorded, the pool is closed, and 'interrupted' comes back. A second
        one, while the pool closes, is raised as KeyboardInterrupt at once; what had arrived is safe either way.

    Raises:
        RunError: the archive cannot be written, or the controller does not repeat the stored proposals.
    """
    rules = rules or Rules()
    racing = None
    if rules.racing is not None:
        if callable(plan):
            raise InputError("a race needs a plan that is the same for every candidate, got a function")
        racing = RacingPolicy(archive, objectives, plan, rules.racing, fitness)
    dispatcher = Dispatcher(archive, pool, "search", plan if racing is None else racing.plan_for)
    queue = TellQueue(
        archive, controller, objectives, fitness, dispatcher, asynchronous=rules.asynchronous, racing=racing
    )
    search = _Search(archive, space, controller, pool, dispatcher, queue, BudgetMeter(archive, pool, budget))
    try:
        search.begin()
        while (reason := search.reason_to_stop()) is None:
            search.submit()
            search.record(pool.collect(search.patience()))
            if progress is not None and search.report_due():
                progress(search.progress())
    except KeyboardInterrupt:
        return _interrupted(archive, pool)
    archive.put_event("stopped", None, {"reason": reason.name, "message": reason.message})
    if progress is not None:
        progress(search.progress())
    return reason


def evaluate(
    archive: Archive,
    pool: Pool,
    candidates: Sequence[Candidate],
    split: Split,
    plan: Plan,
    budget: Budget | None = None,
) -> StopReason:
    """Let candidates answer the items of `plan`, as in the final held-out scoring; stored answers are kept.

    Args:
        archive: open for writing.
        pool: evaluates the candidates.
        candidates: they are evaluated in this order.
        split: the answers are recorded under it.
        plan: task -> items.
        budget: limits that hold for this too; None: no limit.

    Returns:
        'done', or why not: the limit that was reached, 'configuration', or 'interrupted' as in `run_search`.
    """
    dispatcher = Dispatcher(archive, pool, split, plan)
    meter = BudgetMeter(archive, pool, budget or Budget(0), final=True)
    try:
        with archive.transaction():
            dispatcher.add(candidates)
        while dispatcher.open:
            if (reason := meter.exhausted()) is not None:
                text = f"{reason.message} before the {split} scoring was complete; go on with a larger budget"
                return StopReason(reason.name, text)
            dispatcher.submit()
            left = meter.seconds_left()
            arrived = pool.collect(PROGRESS_SECONDS if left is None else min(PROGRESS_SECONDS, max(0.0, left)))
            with archive.transaction():
                outcomes = dispatcher.record(arrived)
            for outcome in outcomes:
                if outcome.failure is not None and outcome.failure.kind == "configuration":
                    return StopReason("configuration", outcome.failure.message)
    except KeyboardInterrupt:
        return _interrupted(archive, pool)
    return StopReason("done", f"{len(candidates)} candidates have answered the {split} items")


def _interrupted(archive: Archive, pool: Pool) -> StopReason:
    """Record the interruption, close the pool, and return the reason."""
    archive.put_event("interrupted")
    pool.close()
    return StopReason("interrupted", f"everything is saved; go on with: evomerge resume {archive.path.parent}")


@dataclass
class _Search:
    """The loop's state; a fresh process rebuilds all of it from the archive."""

    archive: Archive
    space: Space
    controller: Controller
    pool: Pool
    dispatcher: Dispatcher
    queue: TellQueue
    meter: BudgetMeter
    remaining: list[np.ndarray] = field(default_factory=list)  # proposals of the last batch that no candidate has yet
    proposed: int = 0  # number of candidates
    machine_failures: int = 0  # consecutive failures
    reason: StopReason | None = None
    observed_before: int = 0  # number of candidates observed before this session
    started: float = field(default_factory=time.monotonic)
    rate_since: float = 0.0  # when models were loaded and the parents scored: the rate is measured from here on
    reported: float = 0.0

    def begin(self) -> None:
        """Continue the run where the archive left off: at its start, or anywhere else."""
        self.remaining = replay(self.archive, self.controller, self.queue.updates_when_proposed)
        self.proposed = self.archive.count("search")
        unobserved = self.queue.restore(self.proposed)
        self.observed_before = self.queue.observed
        later = self.archive.candidates("search", first=min(unobserved, default=self.proposed))
        open_ones = [*self.archive.candidates("parent"), *(one for one in later if one.number in unobserved)]
        with self.archive.transaction():
            self.queue.finish_round(self.dispatcher.add(open_ones))
            due = self.queue.record_due()
        self.queue.tell(due)

    def reason_to_stop(self) -> StopReason | None:
        """Return why the loop should end now, if it should."""
        if self.reason is not None:
            return self.reason
        if not self.dispatcher.open:
            limit = self.meter.budget.candidates
            if self.queue.observed >= limit:
                return StopReason("candidates", f"all {limit} candidates are done")
            if reasons := self.controller.stop():
                return StopReason("controller", "; ".join(f"{name}: {text}" for name, text in reasons.items()))
        return self.meter.exhausted() if self.dispatcher.running else self.meter.used_up()

    def submit(self) -> None:
        """Keep every worker busy for as long as the controller has proposals and there is time for them."""
        if not self.meter.worth_starting():
            return
        self.dispatcher.submit()
        while not self.dispatcher.queued and self.pool.room() and self._propose():
            self.dispatcher.submit()

    def patience(self) -> float:
        """Return how many seconds to wait for a result."""
        left = self.meter.seconds_left()
        return PROGRESS_SECONDS if left is None else min(PROGRESS_SECONDS, max(0.0, left))

    def record(self, arrived: Sequence[Arrival]) -> None:
        """Record results and the observations that follow from them in one transaction; then tell the controller."""
        if not arrived:
            return
        with self.archive.transaction():
            for outcome in self.dispatcher.record(arrived):
                self._finish(outcome)
                if outcome.number < 0 or not self.rate_since:
                    self.rate_since = time.monotonic()
            due = self.queue.record_due()
        self.queue.tell(due)

    def report_due(self) -> bool:
        """Return whether the last report is long enough ago."""
        return time.monotonic() - self.reported > PROGRESS_SECONDS

    def progress(self) -> Progress:
        """Return the progress of the search."""
        self.reported = time.monotonic()
        session = self.reported - self.started
        workers = self.pool.status()
        busy = sum(row["busy_seconds"] for row in workers) / max(len(workers) * session, 1e-9)
        limit, observed = self.meter.budget.candidates, self.queue.observed
        new = observed - self.observed_before
        eta = (limit - observed) * (self.reported - self.rate_since) / new if new else None
        left = self.meter.seconds_left()
        # a limit is no estimate: it stands alone only where nothing else will end the search
        if left is not None and (eta is not None or limit >= 2**31):
            eta = max(0.0, left) if eta is None else min(eta, max(0.0, left))
        return Progress(
            candidates=observed,
            budget=limit,
            best=dict(self.queue.best),
            front=0 if self.queue.front is None else len(self.queue.front),
            parents=self.dispatcher.parents,
            failures=self.queue.failures,
            running=self.dispatcher.running,
            busy=min(1.0, busy),
            seconds=self.archive.seconds(),
            eta=eta,
        )

    # -- one candidate ---------------------------------------------------------------------------------------------

    def _propose(self) -> bool:
        """Ask the controller and add its proposals as candidates; False where there are none now."""
        limit = self.meter.budget.candidates
        if self.proposed >= limit or self.reason is not None or self.controller.stop():
            return False
        size = 0
        if not self.remaining:
            self.remaining = self.controller.ask()
            size = len(self.remaining)
        taken = self.remaining[: limit - self.proposed]
        if not taken:
            if not self.dispatcher.open and self.queue.observed == self.proposed:
                raise RunError("the controller proposes nothing although it observed everything; that is a bug in it")
            return False
        self.remaining = self.remaining[len(taken) :]
        candidates = [self._candidate(self.proposed + i, genotype) for i, genotype in enumerate(taken)]
        with self.archive.transaction():
            self.archive.put_asked(candidates, size)
            self.queue.add(candidates, size)
            self.queue.finish_round(self.dispatcher.add(candidates))
            due = self.queue.record_due()
        self.proposed += len(taken)
        self.queue.tell(due)
        return True

    def _candidate(self, number: int, genotype: np.ndarray) -> Candidate:
        return Candidate(number, self.space.decode(genotype), tuple(float(gene) for gene in genotype))

    def _finish(self, outcome: Outcome) -> None:
        """Pass an outcome on, or stop the search where its kind of failure asks for that."""
        self.meter.record(outcome)
        kind = outcome.failure.kind if outcome.failure else None
        self.machine_failures = self.machine_failures + 1 if kind == "infrastructure" else 0
        if outcome.failure and kind == "configuration":
            self.reason = StopReason("configuration", outcome.failure.message)
        elif outcome.failure and self.machine_failures >= MOST_MACHINE_FAILURES:
            text = (
                f"{self.machine_failures} evaluations in a row failed for reasons of the machine, the last one with: "
            )
            self.reason = StopReason("infrastructure", text + outcome.failure.message)
        else:
            self.queue.finish_round([outcome.number])
