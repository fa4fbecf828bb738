"""From finished candidates to what the controller is told: when, with which fitness, and after which races."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective
from evomerge.controllers.protocol import Controller, Versioned, tell
from evomerge.loop.race import Race
from evomerge.loop.turns import Turns
from evomerge.loop.values import Fitness
from evomerge.pareto.dominance import extend_front
from evomerge.pool.desk import Desk

Told = tuple[int, tuple[float, ...] | None, tuple[float, ...] | None]  # candidate, fitness, its standard errors


@dataclass
class Telling:
    """Owns who is told next; `round_over` and `record_due` run inside a transaction, `tell` after it."""

    archive: Archive
    controller: Controller
    objectives: tuple[Objective, ...]
    fitness: Fitness
    desk: Desk
    turns: Turns
    race: Race | None
    versions: dict[int, int] = field(default_factory=dict)  # untold candidate -> the controller's updates when asked
    best: dict[str, float] = field(default_factory=dict)  # objective -> highest score told, in the metric's units
    front: np.ndarray | None = None  # (n, objectives) float64, the fitness told that none told dominates
    failures: int = 0

    @property
    def told(self) -> int:
        """How many candidates have been told."""
        return self.turns.told

    def restore(self, asked: int) -> set[int]:
        """Take up where the archive left it, and return which of `asked` candidates are not told yet."""
        if not self.turns.on_arrival:
            self.versions.clear()  # staleness is a matter of results told on arrival
        for event in self.archive.events("told"):
            assert event.candidate is not None
            self.turns.restore([event.candidate])
            self._count(event.payload["fitness"])
        untold = set(self.turns.open(range(self.turns.first_untold, asked)))
        if self.race is not None:
            self.race.restore(untold)
        return untold

    def opened(self, candidates: Sequence[Candidate], size: int) -> None:
        """Take note of proposals that were taken on; `size` is 0 where they are the rest of an earlier batch."""
        if self.race is not None:
            self.race.enter(candidates[0].number, len(candidates), new=size > 0)
        if self.turns.on_arrival and isinstance(self.controller, Versioned):
            self.versions.update(dict.fromkeys((one.number for one in candidates), self.controller.updates))

    def round_over(self, numbers: Iterable[int]) -> None:
        """Candidates have answered what they were asked, or failed: they are done, unless a race decides about them."""
        for number in numbers:
            if self.race is not None and self.race.must_decide(number):
                continue
            if number >= 0:
                self.turns.finish([number])

    def record_due(self) -> list[Told]:
        """Record the candidates whose turn has come, and return them with their fitness.

        On arrival it is one at a time: how stale it is depends on what the controller did with the one before.
        """
        due: list[Told] = []
        self._decide()
        while (number := self.turns.next()) is not None:
            fitness, stderr = self._fitness_of(number)
            self.archive.put_told(number, fitness, stderr, self._staleness(number))
            self._count(fitness)
            due.append((number, fitness, stderr))
            if self.race is not None:
                self.race.leave(number, fitness)
                self._decide()
            if self.turns.on_arrival:
                break
        return due

    def _decide(self) -> None:
        """Let the race decide who answers more items; each decision is recorded before the items are asked."""
        if self.race is None:
            return
        while ready := self.race.decidable(self.turns):
            for number in ready:
                verdict = self.race.decide(number)
                self.archive.put_event("raced", number, verdict.payload())
                if verdict.promoted:  # the answers may be there already, as those of a twin
                    self.round_over(self.desk.take([self.archive.candidate(number)]))
                else:
                    self.turns.finish([number])

    def _staleness(self, number: int) -> int | None:
        """Return how often the controller has moved on since it proposed this candidate, where it counts that."""
        asked = self.versions.pop(number, None)
        return self.controller.updates - asked if asked is not None and isinstance(self.controller, Versioned) else None

    def tell(self, due: Sequence[Told]) -> None:
        """Tell the controller what is recorded, and whoever can be told after that."""
        while due:
            for number, fitness, stderr in due:
                tell(self.controller, number, fitness, stderr)
            due = []
            if self.turns.ready:
                with self.archive.transaction():
                    due = self.record_due()

    def _fitness_of(self, number: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        outcome = self.archive.outcome(number)
        if outcome is None or not outcome.done:
            return None, None
        if self.race is not None:
            return self.race.fitness_of(number)
        return self.fitness(number, self.archive.responses("search", number)).fitness(self.objectives), None

    def _count(self, fitness: Sequence[float] | None) -> None:
        if fitness is None:
            self.failures += 1
            return
        for objective, value in zip(self.objectives, fitness, strict=True):
            before = self.best.get(objective.name)
            if before is None or value > objective.fitness(before):
                self.best[objective.name] = objective.fitness(value)  # turning twice gives the metric's own units
        self.front = extend_front(self.front, fitness)
