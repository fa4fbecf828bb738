"""Racing: every candidate answers a few items, and only those that may still win answer more, up to all.

After each round a candidate is compared, item by item, with references that have answered everything: the best so far
(and the parents), or the Pareto front. It is stopped where it is behind at an error rate that counts all rounds and all
references: of the candidates that would not have lost on all items, at most `error` are stopped early.

In synchronous order, the references are the candidates observed before the candidate's batch was proposed, so decisions
do not depend on the workers; asynchronous races use all that have been observed. Every decision is in the archive
before it takes effect, and is read from there on resuming.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from evomerge.archive import Archive, RacedPayload
from evomerge.candidate import Candidate, Evaluation, Objective, Response
from evomerge.loop._dispatcher import Items
from evomerge.metric_kinds import is_by_item
from evomerge.objectives import Objectives
from evomerge.pareto import non_dominated
from evomerge.scoring import values_of
from evomerge.stats import MeanDifference, paired_mean, weighted_sum

MOST_REFERENCES = 8  # points of a front: each further one costs power, as the error rate is shared among them
REMEMBERED = 64  # references whose answers are kept in memory

Fitness = Callable[[int, Sequence[Response]], Evaluation]  # a candidate's number and its responses -> its evaluation


@dataclass(frozen=True)
class Racing:
    """The settings of a race: every candidate answers a few items, and more of them only while it may still win."""

    min_items: int  # items per task that every candidate answers; each further rung doubles them, up to all
    alpha: float = 0.05  # highest chance to stop a candidate that would not have lost on all items
    against: Literal["best", "front"] = "best"  # the reference: the best overall, or each point of the front
    seed: int = 0  # fixes the order in which the items are asked


@dataclass(frozen=True)
class RaceDecision:
    """Whether a candidate answers more items, and why."""

    promoted: bool
    round: int  # the one that just ended, from 0
    incumbent: int | None  # the best reference, which an unfinished candidate's fitness is measured from
    p: float = 1.0  # the smallest over the references
    level: float = 0.0  # a p value at or below it stops the candidate

    def payload(self) -> RacedPayload:
        """Return the form in which the archive keeps it."""
        return {
            "promoted": self.promoted,
            "round": self.round,
            "incumbent": self.incumbent,
            "p": self.p,
            "level": self.level,
        }


@dataclass
class _Racer:
    """A candidate that is not observed yet."""

    batch: int  # number of the first candidate of its batch
    round: int = 0
    stopped: bool = False
    incumbent: int | None = None


@dataclass
class _References:
    """Candidates that have answered everything: those used in comparisons, and those observed since."""

    counting: dict[int, tuple[float, ...]] = field(default_factory=dict)  # the front, parents among it
    later: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def settle(self, before: int | None) -> None:
        """Let candidates with numbers below `before` count (None: all), and forget the dominated ones."""
        ready = {number: row for number, row in self.later.items() if before is None or number < before}
        if ready:
            self.later = {number: row for number, row in self.later.items() if number not in ready}
            # sorted: which of two equals is kept must not depend on which was observed first
            everyone = dict(sorted({**self.counting, **ready}.items()))
            kept = non_dominated(np.array(list(everyone.values())), duplicates=False)
            self.counting = {n: row for (n, row), keep in zip(everyone.items(), kept, strict=True) if keep}


class RacingPolicy:
    """Decides, round by round, which candidates answer more items; owns the round that each open candidate is in."""

    def __init__(
        self, archive: Archive, objectives: tuple[Objective, ...], plan: Items, racing: Racing, fitness: Fitness
    ) -> None:
        divisible = {objective.task for objective in objectives if is_by_item(objective.kind)}
        self._plans = rounds(plan, racing.min_items, divisible, racing.seed)
        self._archive, self._objectives, self._racing, self._fitness = archive, objectives, racing, fitness
        self._racers: dict[int, _Racer] = {}
        self._pending: set[int] = set()
        self._parents = {parent.number for parent in archive.candidates("parent")}  # parents without a score yet
        self._references = _References()
        self._answers: dict[int, tuple[Evaluation, list[dict[str, float]]]] = {}
        self._batch = 0
        self._weights = Objectives(objectives).weights()

    def restore(self, unobserved: Collection[int]) -> None:
        """Continue the race where the archive left off."""
        for event in self._archive.events("asked", "raced", "observed"):
            number, payload = event.candidate, event.payload
            if event.kind == "asked":
                self.enter(payload["first"], payload["count"], new=payload["size"] > 0)
            elif event.kind == "raced" and payload["promoted"]:
                self._racers[number or 0].round = payload["round"] + 1
            elif event.kind == "raced":
                racer = self._racers[number or 0]
                racer.stopped, racer.incumbent = True, payload["incumbent"]
            else:
                self.leave(number or 0, payload["fitness"])
        assert set(self._racers) == set(unobserved)  # both are read from the same events

    def plan_for(self, candidate: Candidate) -> Items:
        """Return what a candidate is to answer by now; a parent answers everything."""
        number = candidate.number
        return self._plans[self._racers[number].round] if number >= 0 else self._plans[-1]

    def enter(self, first: int, count: int, *, new: bool) -> None:
        """Add candidates; `new` where they begin a batch."""
        self._batch = first if new else self._batch
        self._racers.update({number: _Racer(self._batch) for number in range(first, first + count)})

    def leave(self, number: int, fitness: Sequence[float] | None) -> None:
        """Forget a candidate that is observed; one that has answered everything becomes a reference."""
        racer = self._racers.pop(number)
        if fitness is not None and not racer.stopped:
            self._references.later[number] = tuple(fitness)

    def must_decide(self, number: int) -> bool:
        """Take note of the end of a round; True where the race has to decide whether there is another one."""
        if number < 0:
            self._parents.discard(number)
            if (fitness := self._evaluation(number).fitness(self._objectives)) is not None:
                self._references.later[number] = fitness
            self._answers.pop(number, None)
            return False
        self._answers.pop(number, None)  # it has answered more
        racer = self._racers[number]
        outcome = self._archive.outcome(number)
        if racer.stopped or racer.round == len(self._plans) - 1 or outcome is None or not outcome.done:
            return False
        if not self._unanswered(number):
            return False
        self._pending.add(number)
        return True

    def decidable(self, first_unobserved: int | None) -> list[int]:
        """Return the candidates that can be decided about now, and count them as decided.

        Args:
            first_unobserved: the lowest candidate that is not observed; None in asynchronous order, where every
                candidate that is observed counts as a reference at once.
        """
        if self._parents:
            return []
        batches = {number: self._racers[number].batch for number in sorted(self._pending)}
        ready = [n for n, batch in batches.items() if first_unobserved is None or batch <= first_unobserved]
        self._pending.difference_update(ready)
        if ready:
            self._references.settle(None if first_unobserved is None else batches[ready[0]])
        return ready

    def decide(self, number: int) -> RaceDecision:
        """Return whether a candidate answers more items, and act as if it did."""
        racer = self._racers[number]
        verdict = self._verdict(number, racer.round)
        if verdict.promoted:
            racer.round += 1
        else:
            racer.stopped, racer.incumbent = True, verdict.incumbent
        return verdict

    def fitness_of(self, number: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Return fitness (m,) and its standard errors, about what all items would have given.

        A candidate that was stopped is measured from the reference that stopped it: the reference's score on all items
        less its lead on the common ones, which takes out how easy these happen to be. Others are known: errors of 0.
        """
        racer = self._racers[number]
        fitness = self._evaluation(number).fitness(self._objectives)
        if fitness is None:
            return None, None
        if not racer.stopped or racer.incumbent is None:
            self._answers.pop(number, None)
            return fitness, (0.0,) * len(fitness)
        reference = self._evaluation(racer.incumbent).fitness(self._objectives)
        assert reference is not None  # otherwise it would not have been one
        leads = self._leads(racer.incumbent, number)
        self._answers.pop(number, None)
        values = tuple(high - one.value for high, one in zip(reference, leads, strict=True))
        return values, tuple(one.variance**0.5 for one in leads)

    # -- comparisons ---------------------------------------------------------------------------------------------

    def _verdict(self, number: int, ended: int) -> RaceDecision:
        references = self._references.counting
        if not references:
            return RaceDecision(True, ended, None)
        ranked = sorted(references, key=lambda n: (-float(np.dot(references[n], self._weights)), n))
        chosen = ranked[:1] if self._racing.against == "best" else ranked[:MOST_REFERENCES]
        looks = len(self._plans) - 1  # at the last round there is nothing left to decide
        level = self._racing.alpha / (looks * len(chosen))
        p = min(self._p(reference, number) for reference in chosen)
        return RaceDecision(p > level, ended, ranked[0], p, level)

    def _p(self, reference: int, number: int) -> float:
        """Return the p value of the candidate not being behind: in the weighted sum, or in every objective."""
        if self._racing.against == "best":
            return self._total(reference, number).p_not_above()
        return max(one.p_not_above() for one in self._leads(reference, number))

    def _total(self, reference: int, number: int) -> MeanDifference:
        """Return the lead in the weighted sum; objectives of one task are added item by item, as they go together."""
        exact: list[tuple[float, MeanDifference]] = []
        tasks: dict[str, np.ndarray] = {}
        scales: dict[str, float] = {}
        for j, (weight, objective) in enumerate(zip(self._weights, self._objectives, strict=True)):
            if is_by_item(objective.kind):
                pairs = weight * self._differences(reference, number, j)
                tasks[objective.task] = tasks[objective.task] + pairs if objective.task in tasks else pairs
                scales[objective.task] = scales.get(objective.task, 0.0) + weight
            else:
                exact.append((weight, self._known(reference, number, j)))
        # divided by its weight, a task's difference is -1, 0 or 1 again where answers are right or wrong
        weighing = {task: pairs / scales[task] for task, pairs in tasks.items() if scales[task] > 0}
        parts = [(scales[task], paired_mean(pairs, len(self._plans[-1][task]))) for task, pairs in weighing.items()]
        return weighted_sum([*exact, *parts])

    def _leads(self, reference: int, number: int) -> list[MeanDifference]:
        """Return the reference's lead per objective."""
        return [
            paired_mean(self._differences(reference, number, j), len(self._plans[-1][objective.task]))
            if is_by_item(objective.kind)
            else self._known(reference, number, j)
            for j, objective in enumerate(self._objectives)
        ]

    def _known(self, reference: int, number: int, j: int) -> MeanDifference:
        """Return the lead in an objective that is measured as a whole, hence known."""
        objective = self._objectives[j]
        high, low = (self._evaluation(n).scores[objective.name].value for n in (reference, number))
        return MeanDifference(objective.fitness(high) - objective.fitness(low), 0.0, float("inf"))

    def _differences(self, reference: int, number: int, j: int) -> np.ndarray:
        """Return reference minus candidate, (n,), on the items that the candidate has answered, in fitness units."""
        objective = self._objectives[j]
        _, high = self._answered(reference)
        _, low = self._answered(number)
        return np.array([objective.fitness(high[j][item]) - objective.fitness(low[j][item]) for item in sorted(low[j])])

    def _evaluation(self, number: int) -> Evaluation:
        return self._answered(number)[0]

    def _answered(self, number: int) -> tuple[Evaluation, list[dict[str, float]]]:
        """Return a candidate's evaluation and, per objective, item -> value, of what it has answered by now."""
        if number not in self._answers:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            self._answers[number] = self._read(number)
        return self._answers[number]

    def _read(self, number: int) -> tuple[Evaluation, list[dict[str, float]]]:
        outcome = self._archive.outcome(number)
        if outcome is None or not outcome.done:
            return Evaluation(number, {}, outcome.failure if outcome else None), []
        responses = self._archive.responses("search", number)
        items = [values_of(responses, objective) for objective in self._objectives]
        return self._fitness(number, responses), items

    def _unanswered(self, number: int) -> bool:
        answered = self._archive.answered("search", number)
        return any(set(items) - answered.get(task, set()) for task, items in self._plans[-1].items())


def rounds(plan: Items, first: int, divisible: Collection[str], seed: int) -> list[Items]:
    """Return the plans of all rounds, each holding the one before; the last is `plan`.

    Every round doubles the items per task. The items of a round are a random sample of the pinned ones, the same for
    all candidates, so that any two can be compared item by item.

    Args:
        plan: task -> all pinned items.
        first: items per task in the first round.
        divisible: tasks that can be asked in part; the others are asked as a whole in the first round.
        seed: of the sample.
    """
    shuffled = {task: _shuffled(items, task, seed) for task, items in plan.items()}
    most = max((len(items) for task, items in plan.items() if task in divisible), default=0)
    counts = [first]
    while counts[-1] < most:
        counts.append(2 * counts[-1])
    return [
        {task: items[:count] if task in divisible else items for task, items in shuffled.items()} for count in counts
    ]


def _shuffled(items: tuple[str, ...], task: str, seed: int) -> tuple[str, ...]:
    generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
    return tuple(items[place] for place in generator.permutation(len(items)))
