"""The tell queue: finished candidates, and when, in which order and with which fitness the controller observes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import Candidate, Objective
from evomerge.controllers import Controller, CountsUpdates, tell
from evomerge.loop._dispatcher import Dispatcher
from evomerge.loop._racing import Fitness, RacingPolicy
from evomerge.pareto import extend_front

Observation = tuple[int, tuple[float, ...] | None, tuple[float, ...] | None]  # candidate, fitness, its standard errors


class TellOrder:
    """The order in which finished candidates are observed: by number (synchronous) or by arrival (asynchronous).

    In synchronous order a result that arrives early waits for those before it, so what the controller learns does not
    depend on how many workers there are or on how fast they are.
    """

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.observed = 0  # number of candidates
        self.first_unobserved = 0  # candidates below this are observed
        self._ahead: set[int] = set()  # observed ones beyond it; stays small, as all before them are under way
        self._finished: dict[int, None] = {}  # not observed yet, in the order of arrival

    @property
    def ready(self) -> bool:
        """True where a candidate can be observed now."""
        return bool(self._finished) if self.asynchronous else self.first_unobserved in self._finished

    def restore(self, observed: Iterable[int]) -> None:
        """Count what was observed in earlier sessions, in any order."""
        for number in observed:
            self._count(number)

    def unobserved(self, numbers: Iterable[int]) -> list[int]:
        """Return those of `numbers` that are not observed yet."""
        return [number for number in numbers if number >= self.first_unobserved and number not in self._ahead]

    def finish(self, number: int) -> None:
        """Add a candidate whose result is final."""
        self._finished[number] = None

    def next(self) -> int | None:
        """Return the candidate to observe now, which counts as observed from here on; None where there is none."""
        if not self.ready:
            return None
        number = next(iter(self._finished)) if self.asynchronous else self.first_unobserved
        del self._finished[number]
        self._count(number)
        return number

    def _count(self, number: int) -> None:
        self.observed += 1
        self._ahead.add(number)
        while self.first_unobserved in self._ahead:
            self._ahead.discard(self.first_unobserved)
            self.first_unobserved += 1


class TellQueue:
    """Leads finished candidates through the racing rounds to the controller.

    `finish_round` and `record_due` run inside a transaction, and `tell` after it: the archive knows what the controller
    observes before the controller does.
    """

    def __init__(
        self,
        archive: Archive,
        controller: Controller,
        objectives: tuple[Objective, ...],
        fitness: Fitness,
        dispatcher: Dispatcher,
        *,
        asynchronous: bool = False,
        racing: RacingPolicy | None = None,
    ) -> None:
        self.updates_when_proposed: dict[int, int] = {}  # unobserved candidate -> the controller's updates by then
        self.best: dict[str, float] = {}  # objective -> highest score observed, in the metric's units
        self.front: np.ndarray | None = None  # (n, m) float64, the observed fitness that no other dominates
        self.failures = 0
        self._archive, self._controller, self._objectives, self._fitness = archive, controller, objectives, fitness
        self._dispatcher, self._racing = dispatcher, racing
        self._order = TellOrder(asynchronous=asynchronous)

    @property
    def observed(self) -> int:
        """How many candidates the controller has observed."""
        return self._order.observed

    def restore(self, proposed: int) -> set[int]:
        """Continue where the archive left off; return which of `proposed` candidates are not observed yet."""
        if not self._order.asynchronous:
            self.updates_when_proposed.clear()  # synchronous results are never stale
        for event in self._archive.events("observed"):
            assert event.candidate is not None
            self._order.restore([event.candidate])
            self._count(event.payload["fitness"])
        unobserved = set(self._order.unobserved(range(self._order.first_unobserved, proposed)))
        if self._racing is not None:
            self._racing.restore(unobserved)
        return unobserved

    def add(self, candidates: Sequence[Candidate], size: int) -> None:
        """Register new candidates; `size` is 0 where they are the rest of an earlier batch."""
        if self._racing is not None:
            self._racing.enter(candidates[0].number, len(candidates), new=size > 0)
        if self._order.asynchronous and isinstance(self._controller, CountsUpdates):
            numbers = (candidate.number for candidate in candidates)
            self.updates_when_proposed.update(dict.fromkeys(numbers, self._controller.updates))

    def finish_round(self, numbers: Collection[int]) -> None:
        """Note candidates that answered their items, or failed: they are finished unless a race decides about them."""
        for number in numbers:
            if self._racing is not None and self._racing.must_decide(number):
                continue
            if number >= 0:  # parents have negative numbers, and are not observed
                self._order.finish(number)

    def record_due(self) -> list[Observation]:
        """Record the candidates that can be observed now, and return them with their fitness.

        Asynchronous results are recorded one at a time: the staleness of each depends on what the controller did with
        the one before.
        """
        due: list[Observation] = []
        self._decide_races()
        while (number := self._order.next()) is not None:
            fitness, stderr = self._fitness_of(number)
            self._archive.put_observed(number, fitness, stderr, self._staleness(number))
            self._count(fitness)
            due.append((number, fitness, stderr))
            if self._racing is not None:
                self._racing.leave(number, fitness)
                self._decide_races()
            if self._order.asynchronous:
                break
        return due

    def tell(self, due: Sequence[Observation]) -> None:
        """Let the controller observe what is recorded, and all that can be observed after that."""
        while due:
            for number, fitness, stderr in due:
                tell(self._controller, number, fitness, stderr)
            due = []
            if self._order.ready:
                with self._archive.transaction():
                    due = self.record_due()

    def _decide_races(self) -> None:
        """Decide which candidates answer more items; each decision is recorded before the items are asked."""
        if self._racing is None:
            return
        before = None if self._order.asynchronous else self._order.first_unobserved
        while ready := self._racing.decidable(before):
            for number in ready:
                decision = self._racing.decide(number)
                self._archive.put_event("raced", number, decision.payload())
                if decision.promoted:  # a duplicate's answers may be there already
                    self.finish_round(self._dispatcher.add([self._archive.candidate(number)]))
                else:
                    self._order.finish(number)

    def _staleness(self, number: int) -> int | None:
        """Return the number of controller updates since this candidate was proposed, where the controller counts."""
        proposed, controller = self.updates_when_proposed.pop(number, None), self._controller
        return controller.updates - proposed if proposed is not None and isinstance(controller, CountsUpdates) else None

    def _fitness_of(self, number: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        outcome = self._archive.outcome(number)
        if outcome is None or not outcome.done:
            return None, None
        if self._racing is not None:
            return self._racing.fitness_of(number)
        return self._fitness(number, self._archive.responses("search", number)).fitness(self._objectives), None

    def _count(self, fitness: Sequence[float] | None) -> None:
        if fitness is None:
            self.failures += 1
            return
        for objective, value in zip(self._objectives, fitness, strict=True):
            before = self.best.get(objective.name)
            if before is None or value > objective.fitness(before):
                self.best[objective.name] = objective.fitness(value)  # a second change of sign: the metric's own units
        self.front = extend_front(self.front, fitness)
