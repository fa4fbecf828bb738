"""Estimators fitted to bank, parents and merges: scores from few items by every method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._calibration_data import CalibrationData
from evomerge.irt._cross_validation import CrossValidationResult, cross_validate
from evomerge.irt._curves import Array, IntArray
from evomerge.irt._estimators import GP_GREEDY, P_GREEDY, P_STRATIFIED, Calibration, ScoreEstimate, estimate_scores, mix
from evomerge.irt._inheritance import inheritance_items, inherited_mean, inherited_scores
from evomerge.irt._model_selection import FEW_MODELS
from evomerge.irt._parent_predictor import estimate_merges
from evomerge.irt._performance import difference
from evomerge.irt._uncertainty import conformal_factor, raw_variance


@dataclass(frozen=True)
class MethodEstimates:
    """Estimates with their model-based standard errors, and the method used for each."""

    estimate: Array  # (models,)
    sd: Array  # (models,)
    method: tuple[str, ...]


@dataclass(frozen=True)
class FittedEstimators:
    """Everything fitted to some calibration data, each part once, when it is first needed."""

    data: CalibrationData
    seed: int

    @cached_property
    def weights(self) -> Array:
        """Weights of the items in the score, `(items,)`, sum 1."""
        return np.full(self.data.items, 1.0 / self.data.items)

    @cached_property
    def calibration(self) -> Calibration:
        """Items calibrated on all models together."""
        return self.data.calibration()

    @cached_property
    def inheritance(self) -> ItemParameters:
        """Items described by the parents' answers."""
        return inheritance_items(self.data.parents, self.data.merges)

    @cached_property
    def guess(self) -> Array:
        """Prior probability that a merge answers each item right, `(items,)`."""
        return inherited_mean(self.inheritance) if len(self.data.parents) else self.calibration.easiness

    def read(self, method: str, answers: Array, chosen: IntArray) -> MethodEstimates:
        """Return the scores that a method estimates from the answers to the chosen items.

        Args:
            method: raw, difference, parents, p-irt, gp-irt or mp-irt.
            answers: `(models, n)`.
            chosen: `(n,)`, fewer than all items.
        """
        if method == "raw":  # first, because it needs no fit
            sd = np.sqrt(raw_variance(answers, self.data.items))
            return MethodEstimates(answers.mean(axis=1), sd, ("raw",) * len(answers))
        if method == "difference":
            return self._difference(answers, chosen)
        if method == "parents":
            rows = np.full((len(answers), self.data.items), np.nan)  # (models, items)
            rows[:, chosen] = answers
            scores = inherited_scores(self.inheritance, self.weights, rows)
            return MethodEstimates(scores.estimate, scores.sd, ("parents",) * len(answers))
        if method == "mp-irt":
            parents = [self.data.parents] * len(answers)
            merged = estimate_merges(self.calibration.items, self.weights, chosen, answers, parents)
            methods = tuple("mp-irt" if ok else "p-irt" for ok in merged.trusted)
            return MethodEstimates(merged.estimate, merged.sd, methods)
        anchor_weights = np.full(len(chosen), 1.0 / len(chosen))
        found = estimate_scores(self.calibration, "p-irt", chosen, anchor_weights, answers)
        if method == "gp-irt":
            linear = estimate_scores(self.calibration, "linear", chosen, anchor_weights, answers)
            found = mix(linear, found, self.validated("gp-irt", len(chosen)).fraction)
        return MethodEstimates(found.estimate, found.sd, (method,) * len(answers))

    def validated(self, method: str, count: int) -> CrossValidationResult:
        """Return the cross-validation of p-irt or gp-irt on `count` items.

        If the run's own models are too few to refit the bank, it is validated once in a run, not once per merge.
        """
        few = self.data.models < FEW_MODELS
        spec = GP_GREEDY if method == "gp-irt" else P_STRATIFIED if few else P_GREEDY
        bank, key = self.data.bank, ("verdict", method, count, self.seed)
        kept = bank.kept if bank is not None and not self.data.refitted else self._kept
        if key not in kept:
            rng = np.random.default_rng([self.seed, count])
            kept[key] = cross_validate(self.calibration, self.data.model_spec(), (spec,), count, rng)[0]
        validated: CrossValidationResult = kept[key]
        return validated

    def factor(self, method: str, count: int, level: float) -> float:
        """Return the conformal factor on standard errors of p-irt or gp-irt, for intervals that cover at `level`."""
        validated = self.validated(method, count)
        return conformal_factor(validated.errors, validated.sds, level)

    @cached_property
    def _kept(self) -> dict[object, CrossValidationResult]:
        return {}

    def _difference(self, answers: Array, chosen: IntArray) -> MethodEstimates:
        """Return the difference estimate: expected mean plus mean residual on seen items; unbiased for random items."""
        guess, n = self.guess, len(chosen)
        estimate = difference(answers, guess, self.weights, chosen)
        miss = answers - guess[chosen]
        expected = float((guess * (1.0 - guess)).mean())
        # One pseudo-item of the expected variance: without it, answers that all agree would count as certain.
        square = ((miss**2).sum(axis=1) + expected) / (n + 1.0)
        sd = np.sqrt((1.0 - n / self.data.items) * np.maximum(square, 0.0) / n)
        reading = ScoreEstimate(np.clip(estimate, 0.0, 1.0), sd)
        return MethodEstimates(reading.estimate, reading.sd, ("difference",) * len(answers))
