"""Backtest: estimate scores from a few items of complete answers, and compare with the full scores.

Also `calibrate`, which makes an item bank of a response table. Both take files or values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from evomerge.errors import InputError, listed, near
from evomerge.irt._bank import Bank, calibrate_table, require_seed
from evomerge.irt._bank_files import read_bank, write_bank
from evomerge.irt._cross_validation import (
    ADAPTIVE,
    ADAPTIVE_MODELS,
    VARIANTS,
    CrossValidationResult,
    best_result,
    cross_validate,
    estimate_each,
    variants,
)
from evomerge.irt._curves import Array, IntArray
from evomerge.irt._estimators import (
    MIXTURES,
    RAW,
    Calibration,
    ScoreEstimate,
    choose_items,
    mix,
    population_scores,
    restrict,
)
from evomerge.irt._model_selection import FEW_MODELS
from evomerge.irt._parent_predictor import estimate_merges
from evomerge.irt._table import ResponseTable
from evomerge.irt._table_files import read_parents, read_table
from evomerge.irt._uncertainty import conformal_factor, interval

METHODS = (*VARIANTS, "mp-irt", "adaptive")
# Scores outside the middle 98% of the calibration models extrapolate the item parameters.
EXTREME = 0.01


class BacktestEstimate(TypedDict):
    """Estimate of one model in a backtest; scores are fractions of right answers in [0, 1]."""

    model: str
    estimate: float
    stderr: float
    low: float
    high: float
    truth: float  # mean of all its answers
    items: int  # answered by this model
    method: str  # the method used, after `auto` and fallbacks
    warnings: list[str]


def calibrate(
    responses: ResponseTable | str | Path, dims: str | int = "auto", seed: int = 0, out: str | Path | None = None
) -> Bank:
    """Return the item bank of a response table, and write it if `out` is given.

    Args:
        responses: table, or the path of one (`.npz`, `.csv`, `.parquet`).
        dims: ability dimensions, or `auto`.
        seed: draws the held-out models that choose the dimensions.
        out: `.json` or `.parquet`, must not exist.

    Raises:
        InputError: the table, `dims` or `out` cannot be used; the message says why.
    """
    table = responses if isinstance(responses, ResponseTable) else read_table(responses)
    bank = calibrate_table(table, dims, seed)
    if not isinstance(responses, ResponseTable):
        bank = replace(bank, provenance={**bank.provenance, "source": Path(responses).name})
    if out is not None:
        write_bank(bank, out)
    return bank


def estimate(
    bank: Bank | str | Path,
    answers: ResponseTable | str | Path,
    items: int,
    method: str = "auto",
    parents: Mapping[str, Sequence[str]] | str | Path | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> list[BacktestEstimate]:
    """Return estimates of each model's score from `items` of its answers, beside the full score.

    Cross-validation on the calibration models chooses among the variants of a method, tunes the mixture of gp-IRT and
    calibrates the width of intervals.

    Args:
        bank: bank, or the path of one.
        answers: complete answers of other models, or the path of a table. A model with missing answers is estimated
            on the items that it has, and its truth is their mean.
        items: answered per model, 1 to the number of items.
        method: one of `METHODS`. `mp-irt` needs `parents`; `auto` uses them where there are any.
        parents: merge -> its parents, or the path of a `.csv` with columns child, parent_1, parent_2, ...; the rows of
            the parents are in either table.
        level: nominal coverage of the intervals, in (0, 1).
        seed: all random choices derive from it.

    Returns:
        One entry per model, in the table's order.

    Raises:
        InputError: unknown method, impossible `items` or `level`, or items of another version of the task.
    """
    held = bank if isinstance(bank, Bank) else read_bank(bank)
    table = answers if isinstance(answers, ResponseTable) else read_table(answers)
    every = len(held.items)
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}. {near(method, METHODS)}")
    if isinstance(items, bool) or not isinstance(items, int | np.integer) or not 1 <= items <= every:
        raise InputError(f"items must be a whole number from 1 to {every}, the items of the bank, got {items!r}")
    if not 0.0 < level < 1.0:
        raise InputError(f"level must be above 0 and below 1, got {level!r}; 0.9 is a 90% interval")
    if method == "mp-irt" and parents is None:
        raise InputError("method 'mp-irt' needs parents: a file with columns child, parent_1, parent_2; or use 'auto'")
    require_seed(seed)
    known_parents = read_parents(parents) if isinstance(parents, str | Path) else dict(parents or {})
    replayed = table.for_items(held.items)
    # checked before any fit, which may take minutes
    silent = [m for m, row in zip(replayed.models, replayed.responses, strict=True) if np.isnan(row).all()]
    if silent:
        raise InputError(f"every model needs at least one answer to the bank's items; none for {listed(silent)}")
    return _Replay(held, replayed, int(items), level, seed).run(method, known_parents)


@dataclass(frozen=True)
class _Replay:
    """One call of `estimate`, split into steps."""

    bank: Bank
    table: ResponseTable
    n: int
    level: float
    seed: int

    def run(self, method: str, parents: Mapping[str, Sequence[str]]) -> list[BacktestEstimate]:
        found: dict[str, BacktestEstimate] = {}
        calibration = self.bank.calibration()
        known = self._parent_rows(parents) if method in ("auto", "mp-irt") else {}
        merges = [m for m in self.table.models if m in known]
        others = [m for m in self.table.models if m not in known]
        if others:
            plain = "p-irt" if method == "mp-irt" else method  # without parents, mp-IRT is p-IRT
            rng = np.random.default_rng([self.seed, 0])  # a stream per step: parents must not change other estimates
            specs = (RAW,) if self.bank.table.alike else variants(plain, len(self.bank.table.models))
            results = cross_validate(calibration, self.bank.model_spec, specs, self.n, rng)
            validated = best_result(results)
            for rows, part, n in self._groups(others, calibration):
                self._static(found, rows, part, n, validated, plain)
        for rows, part, n in self._groups(merges, calibration):
            self._merges(found, rows, part, n, known)
        there = {*self.table.models, *self.bank.table.models}
        for name in self.table.models:
            if name in parents and name not in known and method in ("auto", "mp-irt"):
                lacking = listed(parent for parent in parents[name] if parent not in there)
                found[name]["warnings"].append(f"{name}: no answers of its parents {lacking}: estimated without them")
        return [found[name] for name in self.table.models]

    def _parent_rows(self, parents: Mapping[str, Sequence[str]]) -> dict[str, Array]:
        """Return the answers of each merge's parents, `(parents, items)`, for merges whose parents are all known."""
        row_of = {m: r for m, r in zip(self.bank.table.models, self.bank.table.responses, strict=True)}
        row_of.update(zip(self.table.models, self.table.responses, strict=True))  # fresh answers win over the bank's
        wanted = set(self.table.models)
        return {
            child: np.stack([row_of[p] for p in known])
            for child, known in parents.items()
            if child in wanted and known and all(p in row_of for p in known)
        }

    def _groups(
        self, names: Sequence[str], calibration: Calibration
    ) -> list[tuple[IntArray, tuple[IntArray, Calibration], int]]:
        """Return groups of models that answered the same items: rows, items with their calibration, number of items."""
        index = {m: i for i, m in enumerate(self.table.models)}
        rows = np.array([index[name] for name in names], dtype=int)
        if not len(rows):
            return []
        answered = ~np.isnan(self.table.responses[rows])
        patterns, which = np.unique(answered, axis=0, return_inverse=True)
        groups = []
        for k, pattern in enumerate(patterns):
            columns = np.flatnonzero(pattern)
            part = calibration if pattern.all() else restrict(calibration, columns)  # no refit: parameters are per item
            groups.append((rows[which.reshape(-1) == k], (columns, part), min(self.n, len(columns))))
        return groups

    def _static(
        self,
        found: dict[str, BacktestEstimate],
        rows: IntArray,
        where: tuple[IntArray, Calibration],
        n: int,
        validated: CrossValidationResult,
        requested: str,
    ) -> None:
        columns, part = where
        complete = self.table.responses[np.ix_(rows, columns)]
        rng = np.random.default_rng([self.seed, 1])  # the same for every group, so that designs agree
        spec = validated.spec
        parts = MIXTURES.get(spec, (spec,))
        read = estimate_each(part, parts, n, complete, rng)
        scores = mix(read[parts[0]], read[parts[1]], validated.fraction) if len(parts) == 2 else read[parts[0]]
        # identical models count as one, which gives no estimate of how widely errors spread
        factor = 1.0 if self.bank.table.alike else conformal_factor(validated.errors, validated.sds, self.level)
        notes = self._fallback(requested, spec.method)
        self._write(
            found, rows, part, n, ScoreEstimate(scores.estimate, factor * scores.sd), [spec.method] * len(rows), notes
        )

    def _fallback(self, requested: str, used: str) -> list[str]:
        models = len(self.bank.table.models)
        if self.bank.table.alike and requested != used:
            return [
                f"all {models} models of the bank gave identical responses, so the bank does not discriminate: "
                f"{used} was used"
            ]
        if requested in ("auto", used):
            return []
        need = ADAPTIVE_MODELS if requested == ADAPTIVE.method else FEW_MODELS
        return [f"{requested} needs {need} calibration models, the bank has {models}: {used} was used"]

    def _merges(
        self,
        found: dict[str, BacktestEstimate],
        rows: IntArray,
        where: tuple[IntArray, Calibration],
        n: int,
        known: Mapping[str, Array],
    ) -> None:
        columns, part = where
        design = "greedy" if len(self.bank.table.models) >= FEW_MODELS else "stratified"
        chosen, _ = choose_items(part, design, n, np.random.default_rng([self.seed, 2]))
        answers = self.table.responses[np.ix_(rows, columns)][:, chosen]
        of_parents = [known[self.table.models[i]][:, columns] for i in rows]
        scores = estimate_merges(part.items, part.weights, chosen, answers, of_parents)
        methods = ["mp-irt" if ok else "p-irt" for ok in scores.trusted]
        self._write(found, rows, part, n, ScoreEstimate(scores.estimate, scores.sd), methods, [])
        for i, ok in zip(rows, scores.trusted, strict=True):
            if not ok:
                found[self.table.models[i]]["warnings"].append(
                    "its answers contradict its parents: p-irt without them was used"
                )

    def _write(
        self,
        found: dict[str, BacktestEstimate],
        rows: IntArray,
        part: Calibration,
        n: int,
        estimates: ScoreEstimate,
        methods: Sequence[str],
        notes: Sequence[str],
    ) -> None:
        exact = n == len(part.weights)  # every item was answered: the score is known
        answers = self.table.responses[rows]
        truth = np.where(np.isnan(answers), 0.0, answers) @ self.bank.weights
        truth = truth / ((~np.isnan(answers)) @ self.bank.weights)
        mean = truth if exact else np.clip(estimates.estimate, 0.0, 1.0)
        sd = np.zeros(len(rows)) if exact else estimates.sd
        low, high = interval(mean, sd, self.level)
        known = population_scores(part)
        # too few scores have no quantiles; these bounds never warn
        bounds = np.quantile(known, [EXTREME, 1.0 - EXTREME]) if len(known) >= ADAPTIVE_MODELS else (-1.0, 2.0)
        in_bank = set(self.bank.table.models)
        for k, i in enumerate(rows):
            name = self.table.models[i]
            warnings = list(notes)
            if name in in_bank:
                warnings.append("is one of the bank's calibration models: its error is biased downward")
            if not exact and not bounds[0] <= mean[k] <= bounds[1]:
                warnings.append("scores beyond 98% of the calibration models: expect bias, use more items")
            found[name] = BacktestEstimate(
                model=name,
                estimate=float(mean[k]),
                stderr=float(sd[k]),
                low=float(low[k]),
                high=float(high[k]),
                truth=float(truth[k]),
                items=n,
                method=methods[k],
                warnings=warnings,
            )


def as_json(estimates: Sequence[BacktestEstimate]) -> str:
    """Return the estimates as JSON text, one list."""
    return json.dumps(list(estimates), allow_nan=False)
