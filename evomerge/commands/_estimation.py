"""Few items per candidate: who is asked what, and what the answers are worth; the composition root of estimators.

Parents answer all search items once, at the start. Then every candidate answers the same anchor items, and every so
many candidates one answers all of them: it tells how far the estimates can be trusted, and teaches the next ones.
What is decided here is in the archive before it takes effect, so a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.archive import Archive
from evomerge.candidate import FIRST_REMEASURED, Candidate, Evaluation, Objective, Response
from evomerge.commands._item_sampler import ItemSampler
from evomerge.commands._prepare import Preparation
from evomerge.controllers import Controller, Recommender
from evomerge.irt import BankPart, CalibrationData, FewItemEstimator, answers_of, complete_row, match_bank, read_bank
from evomerge.loop import Items
from evomerge.runs import ItemEstimate, best_evaluation
from evomerge.scoring import values_of

# Where the file does not say, candidates answered in full cost this share of what the anchor items cost.
FULL_SHARE = 0.25


@dataclass
class _Estimated:
    """One objective with its estimator, and the full answers that the estimator leans on."""

    objective: Objective
    items: tuple[str, ...]
    estimator: FewItemEstimator
    noted: tuple[str, ...] = ()  # method and notes that are recorded
    seen: FewItemEstimator | None = None  # the estimator last recorded with its method and notes

    def learn(self, merge: NDArray[np.float64]) -> None:
        """Add a merge's full answers to what is known."""
        self.estimator = self.estimator.after(merge)


class Estimation:
    """The estimators of one run; lives as long as a session and is rebuilt from the archive."""

    def __init__(self, archive: Archive, preparation: Preparation) -> None:
        self._archive = archive
        self._objectives = preparation.objectives
        self._full: Items = preparation.plan.search
        config = preparation.config
        assert config.estimation is not None  # otherwise scores are plain means
        self._config = config.estimation
        self._seed = config.seed
        self._space = preparation.space
        self._sampler: ItemSampler | None = None
        if self._config.anchors == "resample":
            self._sampler = ItemSampler(archive, self._full, self._counts(), self._seed)
        self._item_hashes = config.item_hashes
        self._estimated: list[_Estimated] = []
        self._anchors: dict[str, tuple[str, ...]] = {}
        self._learnt: set[int] = set()  # candidates

    @property
    def asks_parents(self) -> bool:
        """Whether the parents answer all search items before anything else: all methods but `raw` lean on that."""
        return self._config.estimator != "raw"

    def begin(self) -> None:
        """Choose the anchor items, or take up those that were chosen, and learn from what was answered since.

        Call it once the parents have answered, where they do.
        """
        stored = next(iter(self._archive.events("anchors")), None)
        if stored is not None and self._sampler is None:
            self._anchors = {task: tuple(ids) for task, ids in stored.payload["tasks"].items()}
        self._estimated = [found for objective in self._objectives if (found := self._prepared(objective))]
        if stored is None:
            methods = {one.objective.name: one.estimator.method for one in self._estimated}
            with self._archive.transaction():
                self._archive.put_event("anchors", None, {"tasks": self._anchors, "methods": methods})
        for event in self._archive.events("observed"):
            if event.candidate is not None:
                self._learn(event.candidate, self._archive.responses("search", event.candidate))
        for one in self._estimated:
            self._note_changes(one)

    def plan(self, candidate: Candidate) -> Items:
        """Return what a candidate is asked during the search; parents all, unless nothing is made of their answers."""
        every = self._full_every
        if candidate.kind == "parent":
            return self._full if self.asks_parents else {**self._full, **self._asked(candidate.number)}
        if candidate.kind == "remeasured" or (every and candidate.number % every == 0):
            return self._full
        return {**self._full, **self._asked(candidate.number)}

    def recommended(self, controller: Controller) -> list[Candidate]:
        """Return what the controller recommends at the end, recorded; [] where it does not recommend anything."""
        observed = self._archive.count("search")
        for event in self._archive.events("recommended"):
            if event.payload["observed"] == observed:
                return [self._archive.candidate(number) for number in event.payload["numbers"]]
        if not self._estimated or not isinstance(controller, Recommender):
            return []
        points = controller.recommended()
        first, candidates = FIRST_REMEASURED + self._archive.count("remeasured"), list[Candidate]()
        for point in points:
            genotype = tuple(float(gene) for gene in point)
            candidates.append(Candidate(first + len(candidates), self._space.decode(point), genotype, "remeasured"))
        self._archive.put_recommended(candidates, observed)
        return candidates

    def rest(self, candidate: Candidate) -> Items:
        """Return the search items that a candidate has not answered."""
        answered = self._archive.answered("search", candidate.number)
        left = {
            task: tuple(item for item in items if item not in answered.get(task, ()))
            for task, items in self._full.items()
        }
        return {task: items for task, items in left.items() if items}

    def fitness(self, number: int, responses: Sequence[Response]) -> Evaluation:
        """Return what is known of a candidate, record its score by anchor items alone, and learn from full answers."""
        estimates = {one.objective.name: self._estimate(one, number, responses) for one in self._estimated}
        known = {name: estimate for name, estimate in estimates.items() if estimate is not None}
        if known:
            scores = {name: estimate.to_mapping() for name, estimate in known.items()}
            self._archive.put_event("estimated", number, {"scores": scores})
        self._learn(number, responses)
        for one in self._estimated:
            self._note_changes(one)
        if self._sampler is not None:  # full answers beside estimates from one lucky draw could not be compared
            plain = best_evaluation(number, responses, {}, self._objectives, self._full)
            return Evaluation(number, {**plain.scores, **{name: known[name].as_score() for name in known}})
        return best_evaluation(number, responses, known, self._objectives, self._full)

    # --- private ------------------------------------------------------------------------------------------------

    @property
    def _full_every(self) -> int:
        """How many candidates there are for one that is answered in full; 0 for none."""
        given = self._config.full_evaluation_every
        if given is None and not self.asks_parents:
            return 0  # the error of a random sample is known without
        if given is not None:
            return given
        ratios = [len(self._full[task]) / len(ids) for task, ids in self._asked(0).items()]
        return int(np.ceil(max(ratios) / FULL_SHARE)) if ratios else 0

    def _counts(self) -> dict[str, int]:
        """Return task -> items per candidate, for the tasks of which not all are asked."""
        count, tasks = self._config.items, {o.task for o in self._objectives if o.kind == "task"}
        return {task: count for task, items in self._full.items() if task in tasks and len(items) > count}

    def _asked(self, number: int) -> Mapping[str, tuple[str, ...]]:
        """Return what a candidate is asked of the tasks that are not asked in full."""
        if self._sampler is None:
            return self._anchors
        return {task: items for task, items in self._sampler.items(number).items() if task in self._anchors}

    def _prepared(self, objective: Objective) -> _Estimated | None:
        """Return an objective with its estimator; None, with a note, where it is asked in full or by the plain mean."""
        items, count = tuple(self._full[objective.task]), self._config.items
        if objective.kind != "task" or len(items) <= count:
            return None
        parents = self._parents(objective, items)
        bank = self._bank(objective.task, items)
        if parents is None or (self.asks_parents and not len(parents) and bank is None):
            self._note(
                f"objective {objective.name!r}: values outside [0, 1], or no parent that could be scored and no bank; "
                "it is not estimated, and every candidate answers all its items"
            )
            return None
        data = CalibrationData(parents, np.empty((0, len(items))), bank)
        seed = int(np.random.SeedSequence([self._seed, *objective.task.encode()]).generate_state(1)[0])
        if objective.task not in self._anchors:
            self._anchors[objective.task] = self._chosen(objective.task, data, seed, count)
        pinned = tuple(items.index(item) for item in self._anchors[objective.task])
        found = _Estimated(objective, items, FewItemEstimator(self._config.estimator, data, seed, pinned))
        return found

    def _chosen(self, task: str, data: CalibrationData, seed: int, count: int) -> tuple[str, ...]:
        """Return a task's anchor items; where they are drawn anew, those of the first generation stand for all."""
        if self._sampler is not None:
            return self._sampler.items(0)[task]
        return tuple(
            self._full[task][place] for place in FewItemEstimator(self._config.estimator, data, seed).anchors(count)
        )

    def _parents(self, objective: Objective, items: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the parents' full answers; None where one is outside [0, 1]."""
        rows = []
        for parent in self._archive.candidates("parent"):
            values = values_of(self._archive.responses("search", parent.number), objective)
            row = complete_row(values, items)
            if row is not None:
                rows.append(row)
            elif values.keys() >= set(items):
                return None
        return np.array(rows).reshape(-1, len(items))

    def _bank(self, task: str, items: Sequence[str]) -> BankPart | None:
        bank = self._config.banks.get(task)
        if bank is None:
            return None
        hashes = self._item_hashes[task]
        return match_bank(read_bank(bank.path), [hashes[item] for item in items], task)

    def _estimate(self, one: _Estimated, number: int, responses: Sequence[Response]) -> ItemEstimate | None:
        """Return what a candidate's answers to the anchor items tell; None where a value is outside [0, 1]."""
        values = values_of(responses, one.objective)
        anchors = [item for item in self._asked(number)[one.objective.task] if item in values]
        asked = anchors if len(values) == len(one.items) else [item for item in one.items if item in values]
        row = answers_of([{item: values[item] for item in asked}], one.items)
        seen = row[~np.isnan(row)]
        if not len(seen) or not bool(((seen >= 0.0) & (seen <= 1.0)).all()):
            self._note(f"objective {one.objective.name!r}: a value outside [0, 1]; the plain mean of answers is used")
            return None
        found = one.estimator.estimate(row)
        value, stderr = float(found.value[0]), float(found.stderr[0])
        return ItemEstimate(value, stderr, len(asked), len(one.items), found.method[0], found.beyond[0])

    def _learn(self, number: int, responses: Sequence[Response]) -> None:
        if number in self._learnt:
            return
        for one in self._estimated:
            row = complete_row(values_of(responses, one.objective), one.items)
            if row is not None:
                one.learn(row)
                self._learnt.add(number)

    def _note_changes(self, one: _Estimated) -> None:
        """Record how an objective is estimated where that is not what was asked for, or has changed."""
        if one.seen is one.estimator:
            return
        one.seen = one.estimator
        now = (one.estimator.method, *one.estimator.notes)
        if now != one.noted:
            for text in one.estimator.notes:
                if text not in one.noted:
                    self._note(f"objective {one.objective.name!r}: {text}")
            if one.noted and now[0] != one.noted[0]:
                self._note(f"objective {one.objective.name!r}: estimated by {now[0]} from here on, was {one.noted[0]}")
            one.noted = now

    def _note(self, text: str) -> None:
        """Record a note once in a run."""
        if all(event.payload.get("text") != text for event in self._archive.events("note")):
            self._archive.put_event("note", None, {"text": text})
