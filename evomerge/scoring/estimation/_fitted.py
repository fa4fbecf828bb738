"""What bank, parents and merges teach about items, and how each method reads a score from a few answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evomerge.irt import (
    FEW_MODELS,
    GP_GREEDY,
    P_GREEDY,
    P_STRATIFIED,
    Array,
    Calibration,
    CrossValidationResult,
    IntArray,
    ItemParameters,
    ScoreEstimate,
    conformal_factor,
    cross_validate,
    difference,
    estimate_merges,
    estimate_scores,
    inheritance_items,
    inherited_mean,
    inherited_scores,
    mix,
    raw_variance,
)
from evomerge.scoring.estimation._calibration_data import Knowledge


@dataclass(frozen=True)
class Read:
    """Estimates with their model-based standard errors, and the method that gave each."""

    estimate: Array  # (models,)
    sd: Array  # (models,)
    method: tuple[str, ...]


@dataclass(frozen=True)
class Learnt:
    """What is learnt from some knowledge, once and when it is first needed."""

    knowledge: Knowledge
    seed: int

    @cached_property
    def weights(self) -> Array:
        """Weights of the items in the score, `(items,)`, sum 1."""
        return np.full(self.knowledge.items, 1.0 / self.knowledge.items)

    @cached_property
    def calibration(self) -> Calibration:
        """Items calibrated on all models together."""
        return self.knowledge.calibration()

    @cached_property
    def inheritance(self) -> ItemParameters:
        """Items described by the parents' answers."""
        return inheritance_items(self.knowledge.parents, self.knowledge.merges)

    @cached_property
    def guess(self) -> Array:
        """What a merge is expected to answer before it is asked, `(items,)`."""
        return inherited_mean(self.inheritance) if len(self.knowledge.parents) else self.calibration.easiness

    def read(self, method: str, answers: Array, chosen: IntArray) -> Read:
        """Return the scores that a method reads from the answers to the chosen items.

        Args:
            method: raw, difference, parents, p-irt, gp-irt or mp-irt.
            answers: `(models, n)`.
            chosen: `(n,)`, fewer than all items.
        """
        if method == "raw":  # needs to know nothing of the items, so it comes before anything is learnt of them
            sd = np.sqrt(raw_variance(answers, self.knowledge.items))
            return Read(answers.mean(axis=1), sd, ("raw",) * len(answers))
        if method == "difference":
            return self._difference(answers, chosen)
        if method == "parents":
            rows = np.full((len(answers), self.knowledge.items), np.nan)
            rows[:, chosen] = answers
            scores = inherited_scores(self.inheritance, self.weights, rows)
            return Read(scores.estimate, scores.sd, ("parents",) * len(answers))
        if method == "mp-irt":
            parents = [self.knowledge.parents] * len(answers)
            merged = estimate_merges(self.calibration.items, self.weights, chosen, answers, parents)
            methods = tuple("mp-irt" if ok else "p-irt" for ok in merged.trusted)
            return Read(merged.estimate, merged.sd, methods)
        shares = np.full(len(chosen), 1.0 / len(chosen))
        found = estimate_scores(self.calibration, "p-irt", chosen, shares, answers)
        if method == "gp-irt":
            linear = estimate_scores(self.calibration, "linear", chosen, shares, answers)
            found = mix(linear, found, self.verdict("gp-irt", len(chosen)).fraction)
        return Read(found.estimate, found.sd, (method,) * len(answers))

    def verdict(self, method: str, count: int) -> CrossValidationResult:
        """Return what left-out calibration models say about p-irt or gp-irt on `count` items.

        A bank that is too large for the run's own models to move is judged once in a run, not once per merge.
        """
        few = self.knowledge.models < FEW_MODELS
        spec = GP_GREEDY if method == "gp-irt" else P_STRATIFIED if few else P_GREEDY
        bank, key = self.knowledge.bank, ("verdict", method, count, self.seed)
        kept = bank.kept if bank is not None and not self.knowledge.refitted else self._kept
        if key not in kept:
            rng = np.random.default_rng([self.seed, count])
            kept[key] = cross_validate(self.calibration, self.knowledge.model_spec(), (spec,), count, rng)[0]
        verdict: CrossValidationResult = kept[key]
        return verdict

    def factor(self, method: str, count: int, level: float) -> float:
        """Return what standard errors of p-irt or gp-irt are multiplied with so that intervals cover at `level`."""
        verdict = self.verdict(method, count)
        return conformal_factor(verdict.errors, verdict.sds, level)

    @cached_property
    def _kept(self) -> dict[object, CrossValidationResult]:
        return {}

    def _difference(self, answers: Array, chosen: IntArray) -> Read:
        """Return the expected mean plus the mean miss on the items seen; unbiased for items drawn by chance."""
        guess, n = self.guess, len(chosen)
        estimate = difference(answers, guess, self.weights, chosen)
        miss = answers - guess[chosen]
        expected = float((guess * (1.0 - guess)).mean())
        # One item at its expected variance keeps answers that all agree from claiming certainty.
        square = ((miss**2).sum(axis=1) + expected) / (n + 1.0)
        sd = np.sqrt((1.0 - n / self.knowledge.items) * np.maximum(square, 0.0) / n)
        reading = ScoreEstimate(np.clip(estimate, 0.0, 1.0), sd)
        return Read(reading.estimate, reading.sd, ("difference",) * len(answers))
