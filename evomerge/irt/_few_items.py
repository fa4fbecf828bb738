"""Few-item estimation of merges: the choice of anchor items, the estimate, and its standard error.

One estimator serves one objective. It is a pure function of `CalibrationData`, the method and a seed, so a resumed run
repeats the estimates of the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from evomerge.errors import InputError, near
from evomerge.irt._anchors import random_items, stratified_items
from evomerge.irt._calibration_data import CalibrationData
from evomerge.irt._cross_validation import ADAPTIVE_MODELS, MARGIN
from evomerge.irt._curves import Array, IntArray
from evomerge.irt._estimators import choose_items, population_scores
from evomerge.irt._fitted import FittedEstimators
from evomerge.irt._inheritance import informative_items
from evomerge.irt._model_selection import FEW_MODELS
from evomerge.irt._performance import FEW_ITEM_METHODS
from evomerge.irt._uncertainty import conformal_factor
from evomerge.stats import normal_reach

ON_BANKS = ("p-irt", "gp-irt", "mp-irt")
# Standard errors are calibrated for this coverage, the default of `Score.interval`.
LEVEL = 0.95
# Fully evaluated merges needed to compare methods by their errors, and the most that are used (for speed).
VALIDATION_MERGES, MOST_VALIDATION_MERGES = 4, 12
# Probability of rejecting a bank although the parents fit it.
REFUSAL = 0.01
# Scores outside the middle 98% of a bank's models extrapolate its item parameters.
EXTREME = 0.01


@dataclass(frozen=True)
class FewItemEstimates:
    """Estimates for several merges."""

    value: Array  # (merges,), in [0, 1]
    stderr: Array  # (merges,), including the conformal correction from held-out merges
    method: tuple[str, ...]  # the method used for each
    beyond: tuple[bool, ...]  # whether the score extrapolates the bank's calibration scores, so that bias is likely


@dataclass(frozen=True)
class FewItemEstimator:
    """One objective's estimator.

    Raises:
        InputError: on construction, if the method is unknown, or there are no calibration data at all.
    """

    requested: str  # one of FEW_ITEM_METHODS
    data: CalibrationData
    seed: int
    pinned: tuple[int, ...] = ()  # indices of the anchor items, once they are chosen
    _kept: dict[tuple[object, ...], Any] = field(default_factory=dict, compare=False, repr=False)  # cache by subject

    def __post_init__(self) -> None:
        if self.requested not in FEW_ITEM_METHODS:
            raise InputError(f"unknown estimator {self.requested!r}. {near(self.requested, FEW_ITEM_METHODS)}")
        if not self.data.models and self.requested != "raw":
            raise InputError("an estimator needs the answers of at least one parent, or a bank")

    def after(self, merge: Array) -> FewItemEstimator:
        """Return the estimator with the full answers of one more merge, `(items,)`, in its calibration data."""
        known = self.data
        grown = CalibrationData(known.parents, np.concatenate([known.merges, merge[None]]), known.bank)  # cache shared
        return FewItemEstimator(self.requested, grown, self.seed, self.pinned, self._kept)

    @property
    def method(self) -> str:
        """The method in use, after fallbacks and the automatic choice."""
        return self._settled[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Deviations from the requested method, with reasons; empty if there are none."""
        return self._settled[1]

    def anchors(self, count: int) -> IntArray:
        """Return the `count` anchor items of all candidates, `(count,)` distinct indices in ascending order.

        With a bank: the items most informative about the score over the bank's models. Without: those most informative
        about a merge of these parents, or a sample stratified by easiness; for `raw`, a random sample.
        """
        rng = np.random.default_rng([self.seed, count])
        fitted = self._fitted
        if self.method == "raw":
            chosen = random_items(self.data.items, count, rng)
        elif self.method in ON_BANKS and self.data.models >= FEW_MODELS and self.data.even:
            chosen, _ = choose_items(fitted.calibration, "greedy", count, rng)
        elif self.method == "parents":
            chosen = informative_items(fitted.inheritance, fitted.weights, count, rng)
        else:
            chosen = stratified_items(fitted.guess, count, rng)
        return np.sort(chosen)

    def estimate(self, answers: Array) -> FewItemEstimates:
        """Return the scores of merges over all items.

        Args:
            answers: `(merges, items)` in [0, 1], nan for unseen items; each row has at least one answer.
        """
        value, stderr = np.empty(len(answers)), np.zeros(len(answers))
        methods = [self.method] * len(answers)
        # merges that answered the same items share one fit
        patterns, which = np.unique(~np.isnan(answers), axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            rows, chosen = np.flatnonzero(which.reshape(-1) == k), np.flatnonzero(pattern)
            if pattern.all():  # the exact score, with standard error 0
                value[rows] = answers[rows].mean(axis=1)
                continue
            read = self._fitted.read(self.method, answers[np.ix_(rows, chosen)], chosen)
            value[rows] = np.clip(read.estimate, 0.0, 1.0)
            stderr[rows] = self._factor(tuple(chosen.tolist())) * read.sd
            for row, method in zip(rows, read.method, strict=True):
                methods[row] = method
        low, high = self._bounds
        return FewItemEstimates(value, stderr, tuple(methods), tuple(bool(v < low or v > high) for v in value))

    # --- method selection -------------------------------------------------------------------------------------------

    @cached_property
    def _fitted(self) -> FittedEstimators:
        return FittedEstimators(self.data, self.seed)

    @cached_property
    def _settled(self) -> tuple[str, tuple[str, ...]]:
        known = self.data
        banked = known.bank is not None and known.bank.models >= FEW_MODELS and known.even
        method, notes = self.requested, list[str]()
        if method == "auto":
            method = self._chosen_method(banked)
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

    def _chosen_method(self, banked: bool) -> str:
        """Return the default method, unless another has a lower error on fully evaluated merges."""
        default, *rivals = ("mp-irt", "parents", "p-irt") if banked else ("parents", "p-irt")
        if not len(self.data.parents):
            return "p-irt"
        if not self.pinned or len(self._validation_data.merges) < VALIDATION_MERGES:
            return default
        errors = {method: np.abs(self._left_out(method, self.pinned)[0]) for method in (default, *rivals)}
        rival = min(rivals, key=lambda method: float(errors[method].mean()))
        gain = errors[default] - errors[rival]
        return rival if gain.mean() > MARGIN * gain.std() / np.sqrt(len(gain)) else default

    def _contradiction(self) -> str:
        """Return how the parents' known scores contradict the bank; '' if they do not, or cannot be compared."""
        known = self.data
        if known.bank is None or known.bank.parameters is None or not len(known.parents):
            return ""
        alone = FittedEstimators(CalibrationData(known.parents[:0], known.merges[:0], known.bank), self.seed)
        chosen, _ = choose_items(alone.calibration, "greedy", max(10, len(self.pinned)), np.random.default_rng(0))
        read = alone.read("p-irt", known.parents[:, chosen], chosen)
        truth = known.parents.mean(axis=1)
        level = 1.0 - REFUSAL / len(known.parents)  # Bonferroni over the parents
        reach = normal_reach(level) * alone.factor("p-irt", len(chosen), LEVEL) * read.sd
        worst = int(np.argmax(np.abs(read.estimate - truth) - reach))
        if abs(read.estimate[worst] - truth[worst]) <= reach[worst]:
            return ""
        return (
            f"the bank takes a parent that scores {100 * truth[worst]:.1f} for {100 * read.estimate[worst]:.1f} "
            f"± {100 * read.sd[worst]:.1f} points: it was calibrated with other prompts or on other models. The bank "
            "is not used; parents is used instead"
        )

    # --- standard errors ----------------------------------------------------------------------------------------

    def _factor(self, chosen: tuple[int, ...]) -> float:
        """Return the factor on standard errors, calibrated on held-out models."""
        if self.method not in ("p-irt", "gp-irt") or self.data.models < FEW_MODELS:
            return conformal_factor(*self._left_out(self.method, chosen), LEVEL)
        key = ("factor", self.method, len(chosen), self.data.models)
        if key not in self._kept:
            self._kept[key] = self._fitted.factor(self.method, len(chosen), LEVEL)
        return float(self._kept[key])

    def _left_out(self, method: str, chosen: tuple[int, ...]) -> tuple[Array, Array]:
        """Return leave-one-out errors and standard errors of the fully evaluated merges."""
        key = ("left out", method, chosen, len(self._validation_data.merges))
        if key not in self._kept:
            self._kept[key] = self._leave_out(method, np.array(chosen))
        errors, sds = self._kept[key]
        return errors, sds

    def _leave_out(self, method: str, chosen: IntArray) -> tuple[Array, Array]:
        known, errors, sds = self._validation_data, list[float](), list[float]()
        merges = known.merges
        for index in range(max(0, len(merges) - MOST_VALIDATION_MERGES), len(merges)):
            fitted = FittedEstimators(known.without(index), self.seed)
            read = fitted.read(method, merges[index : index + 1, chosen], chosen)
            errors.append(float(read.estimate[0] - merges[index].mean()))
            sds.append(float(read.sd[0]))
        return np.array(errors), np.array(sds)

    @property
    def _validation_data(self) -> CalibrationData:
        """Data at the last validation: after 1, 2, 3 merges, then whenever their number has grown by half.

        Validation after each merge would cost too much, and frequent changes of method make scores incomparable.
        """
        count, known = 0, self.data
        while max(count + 1, count * 3 // 2) <= len(known.merges):
            count = max(count + 1, count * 3 // 2)
        return CalibrationData(known.parents, known.merges[:count], known.bank)

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        scores = population_scores(self._fitted.calibration) if self.method in ON_BANKS else np.empty(0)
        if len(scores) < ADAPTIVE_MODELS:  # too few for quantiles: no score counts as extrapolated
            return -1.0, 2.0
        low, high = np.quantile(scores, [EXTREME, 1.0 - EXTREME])
        return float(low), float(high)


def answers_of(values: Sequence[dict[str, float]], items: Sequence[str]) -> Array:
    """Return answers by name as rows over `items`, nan where there is none, `(models, items)`."""
    return np.array([[row.get(item, np.nan) for item in items] for row in values], dtype=np.float64)
