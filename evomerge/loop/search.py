"""The loop: ask, record, submit, collect, record, tell, until there is a reason to stop.

What the loop decides is in the archive before it takes effect. Starting and resuming are one path: the stored asks and
tells are replayed into a fresh controller (at the start there are none), then the loop goes on.

Candidates are told in the order of their numbers, so the trace does not depend on how many workers there are or on how
fast they are: a result that arrives early waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective, Outcome, Split
from evomerge.controllers.protocol import Controller
from evomerge.errors import RunError
from evomerge.loop.replay import replay
from evomerge.loop.values import Budget, Fitness, Progress, Space, StopReason
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
) -> StopReason:
    """Search until the budget ends or there is another reason to stop.

    Args:
        archive: open for writing; the parents that it holds are scored first, and told to nobody.
        space: decodes genotypes.
        controller: freshly seeded, as at the start of the run; the archive's asks and tells are replayed into it.
        pool: who evaluates. It is left open for the final scoring, except after an interruption.
        objectives: what fitness is made of.
        plan: task -> items that every candidate answers, or a function of the candidate.
        budget: strict limits.
        fitness: turns responses into an evaluation; handed in by the composition root.
        progress: called now and then, and at the end.

    Returns:
        The reason. The first Ctrl-C is one: it is recorded, the pool is closed, and 'interrupted' comes back. A second
        one, while the pool closes, is raised as KeyboardInterrupt at once; what had arrived is safe either way.

    Raises:
        RunError: the archive cannot be written, or the controller does not repeat the stored proposals.
    """
    search = _Search(archive, space, controller, pool, objectives, budget, fitness, Desk(archive, pool, "search", plan))
    try:
        search.begin()
        while (reason := search.reason_to_stop()) is None:
            search.hand_out()
            search.learn(pool.collect(search.patience()))
            if progress is not None and search.report_due():
                progress(search.progress())
    except KeyboardInterrupt:
        return _interrupted(archive, pool)
    archive.put_event("stopped", None, {"reason": reason.name, "message": reason.message})
    if progress is not None:
        progress(search.progress())
    return reason


def evaluate(archive: Archive, pool: Pool, candidates: Sequence[Candidate], split: Split, plan: Plan) -> StopReason:
    """Let candidates answer the items of `plan`, as for the final scoring on held-out items; what is stored is kept.

    Returns:
        'done', or why not: 'configuration', or 'interrupted' as in `run_search`.
    """
    desk = Desk(archive, pool, split, plan)
    try:
        with archive.transaction():
            desk.take(candidates)
        while desk.open:
            desk.submit()
            arrived = pool.collect(PROGRESS_SECONDS)
            with archive.transaction():
                outcomes = desk.file(arrived)
            for outcome in outcomes:
                if outcome.failure is not None and outcome.failure.kind == "configuration":
                    return StopReason("configuration", outcome.failure.message)
    except KeyboardInterrupt:
        return _interrupted(archive, pool)
    return StopReason("done", f"{len(candidates)} candidates have answered the {split} items")


def _interrupted(archive: Archive, pool: Pool) -> StopReason:
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
    objectives: tuple[Objective, ...]
    budget: Budget
    fitness: Fitness
    desk: Desk
    left: list[np.ndarray] = field(default_factory=list)  # proposed and not taken on
    asked: int = 0
    told: int = 0  # in order, so these are candidates 0 ... told - 1
    waiting: set[int] = field(default_factory=set)  # finished, to be told once those before them are
    best: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    machine_failures: int = 0  # in a row
    reason: StopReason | None = None
    told_before: int = 0  # this session
    started: float = field(default_factory=time.monotonic)
    reported: float = 0.0

    def begin(self) -> None:
        """Take up the run where the archive left it: at its start, or anywhere else."""
        self.left = replay(self.archive, self.controller)
        self.asked = self.archive.count("search")
        for event in self.archive.events("told"):
            self._count(event.payload["fitness"])
            self.told += 1
        self.told_before = self.told
        open_ones = [*self.archive.candidates("parent"), *self.archive.candidates("search", first=self.told)]
        with self.archive.transaction():
            self.waiting.update(number for number in self.desk.take(open_ones) if number >= 0)
            ready = self._record_told()
        self._tell(ready)

    def reason_to_stop(self) -> StopReason | None:
        """Return why the loop should end now, if it should."""
        if self.reason is not None:
            return self.reason
        if not self.desk.open:
            if self.asked >= self.budget.candidates:
                return StopReason("candidates", f"all {self.budget.candidates} candidates are done")
            if reasons := self.controller.stop():
                return StopReason("controller", "; ".join(f"{name}: {text}" for name, text in reasons.items()))
        if self.budget.seconds is not None and self.archive.seconds() >= self.budget.seconds:
            return StopReason("seconds", f"the budget of {self.budget.seconds:.0f} seconds is used up")
        return None

    def hand_out(self) -> None:
        """Keep every worker busy for as long as the controller has proposals."""
        self.desk.submit()
        while not self.desk.queued and self.pool.room() and self._ask():
            self.desk.submit()

    def patience(self) -> float:
        """Return how many seconds to wait for a result."""
        if self.budget.seconds is None:
            return PROGRESS_SECONDS
        return min(PROGRESS_SECONDS, max(0.0, self.budget.seconds - self.archive.seconds()))

    def learn(self, arrived: Sequence[Arrival]) -> None:
        """Record what arrived and whom the controller will be told about, in one transaction; then tell it."""
        if not arrived:
            return
        with self.archive.transaction():
            for outcome in self.desk.file(arrived):
                self._judge(outcome)
            ready = self._record_told()
        self._tell(ready)

    def report_due(self) -> bool:
        """Return whether the last report is long enough ago."""
        return time.monotonic() - self.reported > PROGRESS_SECONDS

    def progress(self) -> Progress:
        """Return how far the search is."""
        self.reported = time.monotonic()
        session = self.reported - self.started
        workers = self.pool.status()
        busy = sum(row["busy_seconds"] for row in workers) / max(len(workers) * session, 1e-9)
        new = self.told - self.told_before
        eta = (self.budget.candidates - self.told) * session / new if new else None
        if self.budget.seconds is not None:
            left = max(0.0, self.budget.seconds - self.archive.seconds())
            eta = left if eta is None else min(eta, left)
        return Progress(
            *(self.told, self.budget.candidates, dict(self.best), self.failures, self.desk.running),
            *(min(1.0, busy), self.archive.seconds(), eta),
        )

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
            if not self.desk.open:
                raise RunError("the controller proposes nothing although it was told everything; that is a bug in it")
            return False
        self.left = self.left[len(taken) :]
        candidates = [self._candidate(self.asked + i, genotype) for i, genotype in enumerate(taken)]
        with self.archive.transaction():
            self.archive.put_asked(candidates, size)
            self.waiting.update(self.desk.take(candidates))
            ready = self._record_told()
        self.asked += len(taken)
        self._tell(ready)
        return True

    def _candidate(self, number: int, genotype: np.ndarray) -> Candidate:
        return Candidate(number, self.space.decode(genotype), tuple(float(gene) for gene in genotype))

    def _judge(self, outcome: Outcome) -> None:
        """Apply the policy of the outcome's failure kind; parents are told to nobody."""
        kind = outcome.failure.kind if outcome.failure else None
        self.machine_failures = self.machine_failures + 1 if kind == "infrastructure" else 0
        if outcome.failure and kind == "configuration":
            self.reason = StopReason("configuration", outcome.failure.message)
        elif outcome.failure and self.machine_failures >= MOST_MACHINE_FAILURES:
            text = (
                f"{self.machine_failures} evaluations in a row failed for reasons of the machine, the last one with: "
            )
            self.reason = StopReason("infrastructure", text + outcome.failure.message)
        elif outcome.number >= 0:
            self.waiting.add(outcome.number)

    def _record_told(self) -> list[tuple[int, tuple[float, ...] | None]]:
        """Record, in the order of their numbers, the candidates whose turn has come; return them with their fitness."""
        ready = []
        while self.told in self.waiting:
            self.waiting.discard(self.told)
            fitness = self._fitness_of(self.told)
            self.archive.put_told(self.told, fitness)
            self._count(fitness)
            ready.append((self.told, fitness))
            self.told += 1
        return ready

    def _tell(self, ready: list[tuple[int, tuple[float, ...] | None]]) -> None:
        for number, fitness in ready:
            self.controller.tell(number, fitness)

    def _fitness_of(self, number: int) -> tuple[float, ...] | None:
        outcome = self.archive.outcome(number)
        if outcome is None or not outcome.done:
            return None
        return self.fitness(number, self.archive.responses("search", number)).fitness(self.objectives)

    def _count(self, fitness: Sequence[float] | None) -> None:
        if fitness is None:
            self.failures += 1
            return
        for objective, value in zip(self.objectives, fitness, strict=True):
            before = self.best.get(objective.name)
            if before is None or value > objective.fitness(before):
                self.best[objective.name] = objective.fitness(value)  # turning twice gives the metric's own units
