"""Scores of merges from a few answers: which items are asked, how the rest is predicted, and how sure that is.

One estimator serves one objective. It is a pure function of what is known (see `Knowledge`), the method and a seed, so
a resumed run estimates as the uninterrupted one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from evomerge.errors import InputError, near
from evomerge.irt import (
    ADAPTIVE_MODELS,
    FEW_MODELS,
    MARGIN,
    Array,
    IntArray,
    choose_items,
    conformal_factor,
    informative_items,
    population_scores,
    random_items,
    stratified_items,
)
from evomerge.scoring.estimation._calibration_data import Knowledge
from evomerge.scoring.estimation._fitted import Learnt
from evomerge.scoring.estimation._mean import METHODS
from evomerge.stats import normal_reach

ON_BANKS = ("p-irt", "gp-irt", "mp-irt")
# Standard errors are corrected for this level: what `Score.interval` gives by default.
LEVEL = 0.95
# Fewer merges answered in full than this cannot tell which method errs least; more than that need not be asked.
JUDGE_MERGES, MOST_JUDGES = 4, 12
# Chance that sound parents are taken for proof against a bank.
REFUSAL = 0.01
# Scores outside the middle 98% of a bank's models are outside what its items were calibrated on.
EXTREME = 0.01


@dataclass(frozen=True)
class Estimates:
    """Estimates for several merges."""

    value: Array  # (merges,), in [0, 1]
    stderr: Array  # (merges,), the correction from left-out merges included
    method: tuple[str, ...]  # that was used for each
    beyond: tuple[bool, ...]  # outside the scores that the bank was calibrated on, where bias must be expected


@dataclass(frozen=True)
class Estimator:
    """One objective's estimator.

    Raises:
        InputError: on construction, where the method is unknown, or nothing at all is known of the items.
    """

    asked_for: str  # one of METHODS
    knowledge: Knowledge
    seed: int
    pinned: tuple[int, ...] = ()  # the anchor items, once they are chosen
    _kept: dict[tuple[object, ...], Any] = field(default_factory=dict, compare=False, repr=False)  # by what it is about

    def __post_init__(self) -> None:
        if self.asked_for not in METHODS:
            raise InputError(f"unknown estimator {self.asked_for!r}. {near(self.asked_for, METHODS)}")
        if not self.knowledge.models and self.asked_for != "raw":
            raise InputError("an estimator needs the answers of at least one parent, or a bank")

    def after(self, merge: Array) -> Estimator:
        """Return the estimator that also knows the full answers of a merge, `(items,)`."""
        known = self.knowledge
        grown = Knowledge(known.parents, np.concatenate([known.merges, merge[None]]), known.bank)
        return Estimator(self.asked_for, grown, self.seed, self.pinned, self._kept)

    @property
    def method(self) -> str:
        """The method in use, after fallbacks and the automatic choice."""
        return self._settled[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done differently than asked for, and why; empty where nothing is."""
        return self._settled[1]

    def anchors(self, count: int) -> IntArray:
        """Return the `count` items that every candidate is asked, `(count,)` distinct indices in ascending order.

        With a bank: those whose answers tell most about the score over the bank's models. Without: those that tell
        most about a merge of these parents, or one from each stretch of the items sorted by how often they are right;
        for `raw`, a random sample.
        """
        rng = np.random.default_rng([self.seed, count])
        learnt = self._learnt
        if self.method == "raw":
            chosen = random_items(self.knowledge.items, count, rng)
        elif self.method in ON_BANKS and self.knowledge.models >= FEW_MODELS and self.knowledge.even:
            chosen, _ = choose_items(learnt.calibration, "greedy", count, rng)
        elif self.method == "parents":
            chosen = informative_items(learnt.inheritance, learnt.weights, count, rng)
        else:
            chosen = stratified_items(learnt.guess, count, rng)
        return np.sort(chosen)

    def estimate(self, answers: Array) -> Estimates:
        """Return the scores of merges over all items.

        Args:
            answers: `(merges, items)` in [0, 1], nan where not asked; each row has at least one answer.
        """
        value, stderr = np.empty(len(answers)), np.zeros(len(answers))
        methods = [self.method] * len(answers)
        patterns, which = np.unique(~np.isnan(answers), axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            rows, chosen = np.flatnonzero(which.reshape(-1) == k), np.flatnonzero(pattern)
            if pattern.all():
                value[rows] = answers[rows].mean(axis=1)
                continue
            read = self._learnt.read(self.method, answers[np.ix_(rows, chosen)], chosen)
            value[rows] = np.clip(read.estimate, 0.0, 1.0)
            stderr[rows] = self._factor(tuple(chosen.tolist())) * read.sd
            for row, method in zip(rows, read.method, strict=True):
                methods[row] = method
        low, high = self._bounds
        return Estimates(value, stderr, tuple(methods), tuple(bool(v < low or v > high) for v in value))

    # --- which method -------------------------------------------------------------------------------------------

    @cached_property
    def _learnt(self) -> Learnt:
        return Learnt(self.knowledge, self.seed)

    @cached_property
    def _settled(self) -> tuple[str, tuple[str, ...]]:
        known = self.knowledge
        banked = known.bank is not None and known.bank.models >= FEW_MODELS and known.even
        method, notes = self.asked_for, list[str]()
        if method == "auto":
            method = self._judged(banked)
        if not len(known.parents) and method in ("parents", "difference", "mp-irt"):
            notes.append(f"{method} needs the parents' answers, and no parent could be scored: p-irt is used")
            return "p-irt", tuple(notes)
        if method == "mp-irt" and not banked:
            notes.append(f"mp-irt needs a bank of {FEW_MODELS} models or more that knows every item: parents is used")
            return "parents", tuple(notes)
        if method == "gp-irt" and known.models < FEW_MODELS:
            notes.append(f"gp-irt needs {FEW_MODELS} models answered in full, fewer are known: p-irt is used")
            method = "p-irt"
        if banked and method in ON_BANKS and (contradiction := self._contradiction()):
            notes.append(contradiction)
            return "parents", tuple(notes)
        return method, tuple(notes)

    def _judged(self, banked: bool) -> str:
        """Return the default, unless merges that were answered in full say that another method errs less."""
        default, *rivals = ("mp-irt", "parents", "p-irt") if banked else ("parents", "p-irt")
        if not len(self.knowledge.parents):
            return "p-irt"
        if not self.pinned or len(self._judges.merges) < JUDGE_MERGES:
            return default
        errors = {method: np.abs(self._left_out(method, self.pinned)[0]) for method in (default, *rivals)}
        rival = min(rivals, key=lambda method: float(errors[method].mean()))
        gain = errors[default] - errors[rival]
        return rival if gain.mean() > MARGIN * gain.std() / np.sqrt(len(gain)) else default

    def _contradiction(self) -> str:
        """Return how the parents' known scores contradict the bank; '' where they do not, or nothing can be said."""
        known = self.knowledge
        if known.bank is None or known.bank.parameters is None or not len(known.parents):
            return ""
        alone = Learnt(Knowledge(known.parents[:0], known.merges[:0], known.bank), self.seed)
        chosen, _ = choose_items(alone.calibration, "greedy", max(10, len(self.pinned)), np.random.default_rng(0))
        read = alone.read("p-irt", known.parents[:, chosen], chosen)
        truth = known.parents.mean(axis=1)
        level = 1.0 - REFUSAL / len(known.parents)
        reach = normal_reach(level) * alone.factor("p-irt", len(chosen), LEVEL) * read.sd
        worst = int(np.argmax(np.abs(read.estimate - truth) - reach))
        if abs(read.estimate[worst] - truth[worst]) <= reach[worst]:
            return ""
        return (
            f"the bank takes a parent that scores {100 * truth[worst]:.1f} for {100 * read.estimate[worst]:.1f} "
            f"± {100 * read.sd[worst]:.1f} points: it was calibrated with other prompts or on other models. The bank "
            "is not used; parents is used instead"
        )

    # --- how sure -----------------------------------------------------------------------------------------------

    def _factor(self, chosen: tuple[int, ...]) -> float:
        """Return what standard errors are multiplied with, learnt from models that were left out."""
        if self.method not in ("p-irt", "gp-irt") or self.knowledge.models < FEW_MODELS:
            return conformal_factor(*self._left_out(self.method, chosen), LEVEL)
        key = ("factor", self.method, len(chosen), self.knowledge.models)
        if key not in self._kept:
            self._kept[key] = self._learnt.factor(self.method, len(chosen), LEVEL)
        return float(self._kept[key])

    def _left_out(self, method: str, chosen: tuple[int, ...]) -> tuple[Array, Array]:
        """Return errors and standard errors for merges answered in full, each estimated as if it were not."""
        key = ("left out", method, chosen, len(self._judges.merges))
        if key not in self._kept:
            self._kept[key] = self._leave_out(method, np.array(chosen))
        errors, sds = self._kept[key]
        return errors, sds

    def _leave_out(self, method: str, chosen: IntArray) -> tuple[Array, Array]:
        known, errors, sds = self._judges, list[float](), list[float]()
        merges = known.merges
        for place in range(max(0, len(merges) - MOST_JUDGES), len(merges)):
            learnt = Learnt(known.without(place), self.seed)
            read = learnt.read(method, merges[place : place + 1, chosen], chosen)
            errors.append(float(read.estimate[0] - merges[place].mean()))
            sds.append(float(read.sd[0]))
        return np.array(errors), np.array(sds)

    @property
    def _judges(self) -> Knowledge:
        """What was known at the last judging: after 1, 2, 3 merges, then whenever they are half as many again.

        Judging after each merge would cost more than it tells, and a method that changes often makes scores unequal.
        """
        judged, known = 0, self.knowledge
        while max(judged + 1, judged * 3 // 2) <= len(known.merges):
            judged = max(judged + 1, judged * 3 // 2)
        return Knowledge(known.parents, known.merges[:judged], known.bank)

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        scores = population_scores(self._learnt.calibration) if self.method in ON_BANKS else np.empty(0)
        if len(scores) < ADAPTIVE_MODELS:
            return -1.0, 2.0
        low, high = np.quantile(scores, [EXTREME, 1.0 - EXTREME])
        return float(low), float(high)


def answers_of(values: Sequence[dict[str, float]], items: Sequence[str]) -> Array:
    """Return answers by name as rows over `items`, nan where there is none, `(models, items)`."""
    return np.array([[row.get(item, np.nan) for item in items] for row in values], dtype=np.float64)
