"""Cross-validate the estimators on held-out models: pick the most accurate, tune mixtures, calibrate intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.irt._adaptive import adaptive_test, population, score_posterior
from evomerge.irt._curves import Array, IntArray
from evomerge.irt._estimators import (
    ANCHOR,
    DIFFERENCE_CLUSTERS,
    DIFFERENCE_STRATIFIED,
    GP_CLUSTERS,
    GP_GREEDY,
    LINEAR,
    MIXTURES,
    P_GREEDY,
    P_STRATIFIED,
    RAW,
    RAW_STRATIFIED,
    Calibration,
    EstimatorSpec,
    ScoreEstimate,
    choose_items,
    estimate_scores,
    fit_calibration,
    mix,
)
from evomerge.irt._model_selection import FEW_MODELS, IRTModelSpec
from evomerge.irt._performance import best_fraction

ADAPTIVE = EstimatorSpec("adaptive", "adaptive")
# Fewer calibration models than this cannot support adaptive choice: it picks the items whose parameters are most wrong.
ADAPTIVE_MODELS = 60
SINGLE_SPLIT_MODELS = 500  # one held-out group of so many models is large enough, and folds would be slow
MAX_VALIDATION_MODELS = 400
# Standard errors of the paired difference by which another estimator must beat the default.
MARGIN = 0.5
FOLDS = 12
# Random designs differ from draw to draw, so one round averages over several draws.
CHANCE_DESIGNS = ("random", "stratified")
DRAWS = 100
# An adaptive test takes its items in this many batches.
ROUNDS = 10

# Estimators that each method name stands for; the first is the default.
VARIANTS: dict[str, tuple[EstimatorSpec, ...]] = {
    "raw": (RAW,),
    "anchor": (ANCHOR,),
    "p-irt": (P_GREEDY, P_STRATIFIED),
    "gp-irt": (GP_GREEDY, GP_CLUSTERS),
    "difference": (DIFFERENCE_STRATIFIED, DIFFERENCE_CLUSTERS),
    "linear": (LINEAR,),
    "auto": (GP_GREEDY, LINEAR, P_GREEDY, P_STRATIFIED, GP_CLUSTERS, DIFFERENCE_CLUSTERS, DIFFERENCE_STRATIFIED),
}
# With a handful of models: methods that stay close to an unbiased mean of well-spread items.
FEW_VARIANTS: dict[str, tuple[EstimatorSpec, ...]] = {
    "raw": (RAW,),
    "anchor": (RAW_STRATIFIED,),
    "p-irt": (P_STRATIFIED,),
    "gp-irt": (P_STRATIFIED,),
    "difference": (DIFFERENCE_STRATIFIED,),
    "linear": (P_STRATIFIED,),
    "auto": (P_STRATIFIED,),
}


@dataclass(frozen=True)
class CrossValidationResult:
    """Errors of one estimator on held-out models at one number of items."""

    spec: EstimatorSpec
    errors: Array  # (held-out models,): estimate minus truth
    sds: Array  # (held-out models,): model-based standard errors
    fraction: float = 0.5  # weight of the first estimator in a mixture

    @property
    def mean_error(self) -> float:
        """Mean absolute error, in score units; infinite if no model was held out."""
        return float(np.abs(self.errors).mean()) if len(self.errors) else float("inf")


def batch_size(n: int) -> int:
    """Return how many items an adaptive test of `n` items chooses at once."""
    return max(1, n // ROUNDS)


def folds(models: int, complete: NDArray[np.bool_], rng: np.random.Generator) -> list[IntArray]:
    """Return groups of model indices to leave out: one group of many, or every model once in some group.

    Args:
        models: number of calibration models.
        complete: which answered every item, bool `(models,)`; only these have a known score.
        rng: shuffles.
    """
    order = rng.permutation(models)
    if models >= SINGLE_SPLIT_MODELS:
        groups = [order[: min(models // 5, MAX_VALIDATION_MODELS)]]
    else:
        groups = [order[k :: min(FOLDS, models)] for k in range(min(FOLDS, models))]
    # a fold needs a model with a known score, and at least one model left to fit to
    return [held_out for group in groups if len(held_out := group[complete[group]]) and len(group) < models]


def cross_validate(
    calibration: Calibration, model: IRTModelSpec, specs: Sequence[EstimatorSpec], n: int, rng: np.random.Generator
) -> list[CrossValidationResult]:
    """Return the errors of each estimator on held-out models at `n` items, in the order of `specs`.

    Items, parameters, covariance and anchors are fitted without the held-out models; only `model` was chosen with them.

    Args:
        calibration: fitted to all models.
        model: IRT model to fit in each fold.
        specs: estimators; a mixture is validated at its best fraction.
        n: number of items answered.
        rng: shuffles the folds and draws items.
    """
    responses, weights = calibration.responses, calibration.weights
    parts: list[EstimatorSpec] = []  # unmixed estimators, each evaluated once even if several mixtures use it
    for spec in specs:
        parts += [p for p in MIXTURES.get(spec, (spec,)) if p not in parts]
    errors: dict[EstimatorSpec, list[Array]] = {part: [] for part in parts}
    sds: dict[EstimatorSpec, list[Array]] = {part: [] for part in parts}
    complete = np.logical_not(np.isnan(responses).any(axis=1))
    for out in folds(len(responses), complete, rng):
        known = fit_calibration(np.delete(responses, out, axis=0), weights, model)
        truth = responses[out] @ weights  # (held-out models,)
        for part, scores in estimate_each(known, parts, n, responses[out], rng).items():
            errors[part].append(scores.estimate - truth)
            sds[part].append(scores.sd)
    joined = {p: (_join(errors[p]), _join(sds[p])) for p in parts}
    return [_combined(spec, joined) for spec in specs]


def _join(pieces: list[Array]) -> Array:
    return np.concatenate(pieces) if pieces else np.empty(0)


def _combined(spec: EstimatorSpec, joined: dict[EstimatorSpec, tuple[Array, Array]]) -> CrossValidationResult:
    if spec not in MIXTURES:
        return CrossValidationResult(spec, *joined[spec])
    (e1, s1), (e2, s2) = (joined[part] for part in MIXTURES[spec])
    fraction = best_fraction(e1, e2)
    mixed = mix(ScoreEstimate(e1, s1), ScoreEstimate(e2, s2), fraction)
    return CrossValidationResult(spec, mixed.estimate, mixed.sd, fraction)


def estimate_each(
    known: Calibration, parts: Sequence[EstimatorSpec], n: int, complete: Array, rng: np.random.Generator
) -> dict[EstimatorSpec, ScoreEstimate]:
    """Return the estimates of each unmixed estimator for some models from `n` items, each `(models,)`.

    Args:
        known: calibration.
        parts: estimators, no mixtures. A design is drawn once for all methods that use it; random items are drawn
            anew for groups of models, because a single draw would show its own luck and not the method's error.
        n: number of items.
        complete: answers to all items, `(models, items)`.
        rng: draws the items.
    """
    designs: dict[str, list[tuple[Array, IntArray, Array]]] = {}
    found = {}
    for part in parts:
        if part == ADAPTIVE:
            prior = population(known.items, known.weights, rng)
            posterior = score_posterior(prior, adaptive_test(prior, complete, n, batch_size(n)))
            found[part] = ScoreEstimate(posterior.mean, posterior.sd)
            continue
        if part.design not in designs:
            groups = np.array_split(complete, min(DRAWS, len(complete)) if part.design in CHANCE_DESIGNS else 1)
            designs[part.design] = [(rows, *choose_items(known, part.design, n, rng)) for rows in groups]
        read_groups = [
            estimate_scores(known, part.method, chosen, anchor_weights, rows[:, chosen])
            for rows, chosen, anchor_weights in designs[part.design]
        ]
        found[part] = ScoreEstimate(
            np.concatenate([r.estimate for r in read_groups]), np.concatenate([r.sd for r in read_groups])
        )
    return found


def variants(method: str, models: int) -> tuple[EstimatorSpec, ...]:
    """Return the estimators that `method` stands for with `models` calibration models, the default first."""
    if models < FEW_MODELS:
        return FEW_VARIANTS["auto" if method == "adaptive" else method]
    if method == "adaptive":
        return (ADAPTIVE,) if models >= ADAPTIVE_MODELS else VARIANTS["auto"]
    if method == "auto" and models >= ADAPTIVE_MODELS:
        return (*VARIANTS["auto"], ADAPTIVE)
    return VARIANTS[method]


def best_result(results: Sequence[CrossValidationResult]) -> CrossValidationResult:
    """Return the first result, unless another beats it by more than `MARGIN` standard errors of the difference.

    With few held-out models the minimum of several noisy errors is biased. A margin of one standard error (Breiman et
    al. 1984) kept the default too long on a table where it was wrong.
    """
    default = results[0]
    rival = min(results, key=lambda result: result.mean_error)
    if not len(default.errors):
        return default
    gain = np.abs(default.errors) - np.abs(rival.errors)
    return rival if gain.mean() > MARGIN * gain.std() / np.sqrt(len(gain)) else default
