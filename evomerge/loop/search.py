"""The loop: ask, record, submit, collect, record, tell, until there is a reason to stop.

What the loop decides is in the archive before it takes effect. Starting and resuming are one path: the stored asks and
tells are replayed into a fresh controller (at the start there are none), then the loop goes on. Who is told when is
decided in `turns`, what may still be spent in `account`, who answers more items in `race`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective, Outcome
from evomerge.controllers.protocol import Controller
from evomerge.errors import InputError, RunError
from evomerge.loop.account import Account
from evomerge.loop.final import interrupted
from evomerge.loop.race import Race
from evomerge.loop.replay import replay
from evomerge.loop.telling import Telling
from evomerge.loop.turns import Turns
from evomerge.loop.values import Budget, Fitness, Progress, Rules, Space, StopReason
from evomerge.pool.desk import Desk, Plan
from evomerge.pool.protocol import Arrival, Pool

PROGRESS_SECONDS = 0.5  # between two reports, and the longest that the loop waits for a result before it looks around
MOST_MACHINE_FAILURES = 8  # in a row: then it is not the candidates, and going on would only burn the budget


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
        archive: open for writing; the parents that it holds are scored first, and told to nobody.
        space: decodes genotypes.
        controller: freshly seeded, as at the start of the run; the archive's asks and tells are replayed into it.
        pool: who evaluates. It is left open for the final scoring, except after an interruption.
        objectives: what fitness is made of.
        plan: task -> items that every candidate answers, or a function of the candidate; with racing, a mapping: what
            every candidate answers that is promising to the end.
        budget: strict limits.
        fitness: turns responses into an evaluation; handed in by the composition root.
        progress: called now and then, and at the end.
        rules: in which order the controller is told, and whether candidates race; None: in order, without races.

    Returns:
        The reason. The first Ctrl-C is one: it is recorded, the pool is closed, and 'interrupted' comes back. A second
        one, while the pool closes, is raised as KeyboardInterrupt at once; what had arrived is safe either way.

    Raises:
        RunError: the archive cannot be written, or the controller does not repeat the stored proposals.
    """
    rules = rules or Rules()
    race = None
    if rules.racing is not None:
        if callable(plan):
            raise InputError("a race needs a plan that is the same for every candidate, got a function")
        race = Race(archive, objectives, plan, rules.racing, fitness)
    desk = Desk(archive, pool, "search", plan if race is None else race.plan_for)
    telling = Telling(archive, controller, objectives, fitness, desk, Turns(on_arrival=rules.asynchronous), race)
    search = _Search(archive, space, controller, pool, budget, desk, Account(archive, pool, budget), telling)
    try:
        search.begin()
        while (reason := search.reason_to_stop()) is None:
            search.hand_out()
            search.learn(pool.collect(search.patience()))
            if progress is not None and search.report_due():
                progress(search.progress())
    except KeyboardInterrupt:
        return interrupted(archive, pool)
    archive.put_event("stopped", None, {"reason": reason.name, "message": reason.message})
    if progress is not None:
        progress(search.progress())
    return reason


@dataclass
class _Search:
    """The loop's state; a fresh process rebuilds all of it from the archive."""

    archive: Archive
    space: Space
    controller: Controller
    pool: Pool
    budget: Budget
    desk: Desk
    account: Account
    telling: Telling
    left: list[np.ndarray] = field(default_factory=list)  # proposed and not taken on
    asked: int = 0
    machine_failures: int = 0  # in a row
    reason: StopReason | None = None
    told_before: int = 0  # this session
    started: float = field(default_factory=time.monotonic)
    rolling: float = 0.0  # when models were loaded and the parents had answered: from here the rate is measured
    reported: float = 0.0

    def begin(self) -> None:
        """Take up the run where the archive left it: at its start, or anywhere else."""
        self.left = replay(self.archive, self.controller, self.telling.versions)
        self.asked = self.archive.count("search")
        untold = self.telling.restore(self.asked)
        self.told_before = self.telling.told
        later = self.archive.candidates("search", first=min(untold, default=self.asked))
        open_ones = [*self.archive.candidates("parent"), *(one for one in later if one.number in untold)]
        with self.archive.transaction():
            self.telling.round_over(self.desk.take(open_ones))
            due = self.telling.record_due()
        self.telling.tell(due)

    def reason_to_stop(self) -> StopReason | None:
        """Return why the loop should end now, if it should."""
        if self.reason is not None:
            return self.reason
        if not self.desk.open:
            if self.telling.told >= self.budget.candidates:
                return StopReason("candidates", f"all {self.budget.candidates} candidates are done")
            if reasons := self.controller.stop():
                return StopReason("controller", "; ".join(f"{name}: {text}" for name, text in reasons.items()))
        return self.account.exhausted() if self.desk.running else self.account.ended()

    def hand_out(self) -> None:
        """Keep every worker busy for as long as the controller has proposals and there is time for them."""
        if not self.account.worth_starting():
            return
        self.desk.submit()
        while not self.desk.queued and self.pool.room() and self._ask():
            self.desk.submit()

    def patience(self) -> float:
        """Return how many seconds to wait for a result."""
        left = self.account.seconds_left()
        return PROGRESS_SECONDS if left is None else min(PROGRESS_SECONDS, max(0.0, left))

    def learn(self, arrived: Sequence[Arrival]) -> None:
        """Record what arrived and whom the controller will be told about, in one transaction; then tell it."""
        if not arrived:
            return
        with self.archive.transaction():
            for outcome in self.desk.file(arrived):
                self._judge(outcome)
                if outcome.number < 0 or not self.rolling:
                    self.rolling = time.monotonic()
            due = self.telling.record_due()
        self.telling.tell(due)

    def report_due(self) -> bool:
        """Return whether the last report is long enough ago."""
        return time.monotonic() - self.reported > PROGRESS_SECONDS

    def progress(self) -> Progress:
        """Return how far the search is."""
        self.reported = time.monotonic()
        session = self.reported - self.started
        workers = self.pool.status()
        busy = sum(row["busy_seconds"] for row in workers) / max(len(workers) * session, 1e-9)
        told = self.telling.told
        new = told - self.told_before
        eta = (self.budget.candidates - told) * (self.reported - self.rolling) / new if new else None
        left = self.account.seconds_left()
        # a limit is no estimate: alone it is told only where nothing else will end the search
        if left is not None and (eta is not None or self.budget.candidates >= 2**31):
            eta = max(0.0, left) if eta is None else min(eta, max(0.0, left))
        return Progress(
            candidates=told,
            budget=self.budget.candidates,
            best=dict(self.telling.best),
            front=0 if self.telling.front is None else len(self.telling.front),
            parents=self.desk.parents,
            failures=self.telling.failures,
            running=self.desk.running,
            busy=min(1.0, busy),
            seconds=self.archive.seconds(),
            eta=eta,
        )

    # -- ask -----------------------------------------------------------------------------------------------------

    def _ask(self) -> bool:
        """Take on the next proposals; False where there are none now."""
        if self.asked >= self.budget.candidates or self.reason is not None or self.controller.stop():
            return False
        size = 0
        if not self.left:
            self.left = self.controller.ask()
            size = len(self.left)
        taken = self.left[: self.budget.candidates - self.asked]
        if not taken:
            if not self.desk.open and self.telling.told == self.asked:
                raise RunError("the controller proposes nothing although it was told everything; that is a bug in it")
            return False
        self.left = self.left[len(taken) :]
        candidates = [self._candidate(self.asked + i, genotype) for i, genotype in enumerate(taken)]
        with self.archive.transaction():
            self.archive.put_asked(candidates, size)
            self.telling.opened(candidates, size)
            self.telling.round_over(self.desk.take(candidates))
            due = self.telling.record_due()
        self.asked += len(taken)
        self.telling.tell(due)
        return True

    def _candidate(self, number: int, genotype: np.ndarray) -> Candidate:
        return Candidate(number, self.space.decode(genotype), tuple(float(gene) for gene in genotype))

    def _judge(self, outcome: Outcome) -> None:
        """Apply the policy of the outcome's failure kind; parents are told to nobody."""
        self.account.measured(outcome)
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
            self.telling.round_over([outcome.number])
