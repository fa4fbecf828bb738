"""Left-out models judge the recipes: which errs least here, how to mix two of them, and how wide intervals must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.irt.adaptive import adaptive_test, believe, population
from evomerge.irt.curves import Array, IntArray
from evomerge.irt.ladder import FEW_MODELS, Rung
from evomerge.irt.performance import best_share
from evomerge.irt.readings import (
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
    Reading,
    Recipe,
    choose_items,
    learn,
    mix,
    read,
)

ADAPTIVE = Recipe("adaptive", "adaptive")
# Fewer calibration models than this cannot support adaptive choice: it picks the items whose parameters are most wrong.
ADAPTIVE_MODELS = 60
ONE_SPLIT_MODELS = 500
MAX_JUDGES = 400
# Standard errors of the paired difference by which another recipe must beat the default.
MARGIN = 0.5
FOLDS = 12
# Designs that differ from draw to draw, and how many draws one round of readings averages over.
CHANCE_DESIGNS = ("random", "stratified")
DRAWS = 100
# A batch of an adaptive test is this share of its items: ten rounds.
ROUNDS = 10

# Recipes that may answer to each method's name; the first is the default.
VARIANTS: dict[str, tuple[Recipe, ...]] = {
    "raw": (RAW,),
    "anchor": (ANCHOR,),
    "p-irt": (P_GREEDY, P_STRATIFIED),
    "gp-irt": (GP_GREEDY, GP_CLUSTERS),
    "difference": (DIFFERENCE_STRATIFIED, DIFFERENCE_CLUSTERS),
    "linear": (LINEAR,),
    "auto": (GP_GREEDY, LINEAR, P_GREEDY, P_STRATIFIED, GP_CLUSTERS, DIFFERENCE_CLUSTERS, DIFFERENCE_STRATIFIED),
}
# With a handful of models: methods that stay close to an unbiased mean of well-spread items.
FEW_VARIANTS: dict[str, tuple[Recipe, ...]] = {
    "raw": (RAW,),
    "anchor": (RAW_STRATIFIED,),
    "p-irt": (P_STRATIFIED,),
    "gp-irt": (P_STRATIFIED,),
    "difference": (DIFFERENCE_STRATIFIED,),
    "linear": (P_STRATIFIED,),
    "auto": (P_STRATIFIED,),
}


@dataclass(frozen=True)
class Verdict:
    """What left-out models say about one recipe at one number of items."""

    recipe: Recipe
    errors: Array  # (left-out models,): estimate minus truth
    sds: Array  # (left-out models,): model-based standard errors
    share: float = 0.5  # of the first part, for mixtures

    @property
    def mean_error(self) -> float:
        """Mean absolute error, in score units; infinite where nothing was left out."""
        return float(np.abs(self.errors).mean()) if len(self.errors) else float("inf")


def batch_size(n: int) -> int:
    """Return how many items an adaptive test of `n` items chooses at once."""
    return max(1, n // ROUNDS)


def folds(models: int, complete: NDArray[np.bool_], rng: np.random.Generator) -> list[IntArray]:
    """Return groups of model indices to leave out: one group of many, or every model once in some group.

    Args:
        models: number of calibration models.
        complete: which answered every item, bool `(models,)`; only these can judge.
        rng: shuffles.
    """
    order = rng.permutation(models)
    if models >= ONE_SPLIT_MODELS:
        groups = [order[: min(models // 5, MAX_JUDGES)]]
    else:
        groups = [order[k :: min(FOLDS, models)] for k in range(min(FOLDS, models))]
    return [judges for group in groups if len(judges := group[complete[group]]) and len(group) < models]


def judge(
    calibration: Calibration, rung: Rung, recipes: Sequence[Recipe], n: int, rng: np.random.Generator
) -> list[Verdict]:
    """Return each recipe's errors on models that took no part in the fit, at `n` items.

    Items, parameters, covariance and anchors are all learnt without the left-out models; only the rung is not.

    Args:
        calibration: of all models.
        rung: item structure.
        recipes: to judge; mixtures are judged at their best share.
        n: items answered.
        rng: chance.
    """
    responses, weights = calibration.responses, calibration.weights
    parts: list[Recipe] = []
    for recipe in recipes:
        parts += [p for p in MIXTURES.get(recipe, (recipe,)) if p not in parts]
    errors: dict[Recipe, list[Array]] = {part: [] for part in parts}
    sds: dict[Recipe, list[Array]] = {part: [] for part in parts}
    complete = np.logical_not(np.isnan(responses).any(axis=1))
    for out in folds(len(responses), complete, rng):
        known = learn(np.delete(responses, out, axis=0), weights, rung)
        truth = responses[out] @ weights
        for part, reading in readings(known, parts, n, responses[out], rng).items():
            errors[part].append(reading.estimate - truth)
            sds[part].append(reading.sd)
    joined = {p: (_join(errors[p]), _join(sds[p])) for p in parts}
    return [_verdict(recipe, joined) for recipe in recipes]


def _join(pieces: list[Array]) -> Array:
    return np.concatenate(pieces) if pieces else np.empty(0)


def _verdict(recipe: Recipe, joined: dict[Recipe, tuple[Array, Array]]) -> Verdict:
    if recipe not in MIXTURES:
        return Verdict(recipe, *joined[recipe])
    (e1, s1), (e2, s2) = (joined[part] for part in MIXTURES[recipe])
    share = best_share(e1, e2)
    mixed = mix(Reading(e1, s1), Reading(e2, s2), share)
    return Verdict(recipe, mixed.estimate, mixed.sd, share)


def readings(
    known: Calibration, parts: Sequence[Recipe], n: int, complete: Array, rng: np.random.Generator
) -> dict[Recipe, Reading]:
    """Return what each unmixed recipe would have said of some models after `n` items.

    Args:
        known: calibration.
        parts: recipes, no mixtures; the same design is drawn once for all its methods. Items drawn by chance are drawn
            anew for groups of models: one draw shared by all would show that draw's luck instead of the method's error.
        n: items.
        complete: answers to all items, `(models, items)`.
        rng: chance.
    """
    designs: dict[str, list[tuple[Array, IntArray, Array]]] = {}
    found = {}
    for part in parts:
        if part == ADAPTIVE:
            people = population(known.items, known.weights, rng)
            belief = believe(people, adaptive_test(people, complete, n, batch_size(n)))
            found[part] = Reading(belief.mean, belief.sd)
            continue
        if part.design not in designs:
            groups = np.array_split(complete, min(DRAWS, len(complete)) if part.design in CHANCE_DESIGNS else 1)
            designs[part.design] = [(rows, *choose_items(known, part.design, n, rng)) for rows in groups]
        read_groups = [
            read(known, part.method, chosen, shares, rows[:, chosen]) for rows, chosen, shares in designs[part.design]
        ]
        found[part] = Reading(
            np.concatenate([r.estimate for r in read_groups]), np.concatenate([r.sd for r in read_groups])
        )
    return found


def variants(method: str, models: int) -> tuple[Recipe, ...]:
    """Return the recipes that may stand for `method` with so many calibration models."""
    if models < FEW_MODELS:
        return FEW_VARIANTS["auto" if method == "adaptive" else method]
    if method == "adaptive":
        return (ADAPTIVE,) if models >= ADAPTIVE_MODELS else VARIANTS["auto"]
    if method == "auto" and models >= ADAPTIVE_MODELS:
        return (*VARIANTS["auto"], ADAPTIVE)
    return VARIANTS[method]


def best(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first verdict, unless another errs less by more than `MARGIN` standard errors of that difference.

    The left-out models are often few, and taking the smallest of several noisy errors costs something. A full standard
    error (Breiman et al. 1984) clung to the default too long on a table where it was wrong.
    """
    default = verdicts[0]
    rival = min(verdicts, key=lambda verdict: verdict.mean_error)
    if not len(default.errors):
        return default
    gain = np.abs(default.errors) - np.abs(rival.errors)
    return rival if gain.mean() > MARGIN * gain.std() / np.sqrt(len(gain)) else default
