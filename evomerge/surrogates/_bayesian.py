"""Where to evaluate next to improve the front (Bayesian MAP), and when to stop.

One proposal serves all objectives: every evaluation scores the merged model on all of them. Rules:

- hypervolume: the expected gain over draws of all surrogates' coefficients; points are chosen greedily, each given the
  gains of the earlier ones in each draw. The baseline is the front of the evaluated points under the draw, so a lucky
  measurement is not mistaken for a good point.
- uncertainty: the largest summed predictive sd among points that may still be on the front, each choice lowering the
  sd around it.
- thompson: the front of one draw per point, the member farthest from everything evaluated.

Source: adaptive rounds are from MAP, Li et al. 2024; the rules are ours, after noisy expected hypervolume improvement
(Daulton et al. 2021) and Thompson sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from evomerge._arguments import Array, at_least, score_table, vector
from evomerge.errors import InputError
from evomerge.pareto import Bounds
from evomerge.surrogates._acquisition import by_draws, by_hypervolume, by_uncertainty, distance, farthest
from evomerge.surrogates._design import sobol_points
from evomerge.surrogates._predicted_front import predicted_front, same_space
from evomerge.surrogates._surrogate import Surrogate

Rule = Literal["hypervolume", "uncertainty", "thompson"]

# Pool of candidate points: Sobol points, points of the predicted front, and copies of these moved by STEP of the box.
SOBOL_POINTS, FRONT_POINTS, STEP = 256, 100, 0.05


@dataclass(frozen=True)
class Proposal:
    """Points to evaluate next."""

    c: Array  # (q, K), all different and none evaluated before
    gain: Array  # (q,) expected hypervolume that each adds to the ones before it, metric units; 0 if not computed
    volume: float  # expected hypervolume of the evaluated points; 0 if not computed
    rules: tuple[str, ...]  # (q,) the rule that chose each point: the requested one, or a fallback


def next_points(
    surrogates: Sequence[Surrogate],
    evaluated: ArrayLike,
    count: int,
    rng: Generator,
    *,
    rule: Rule = "hypervolume",
    reference: ArrayLike | None = None,
    weights: ArrayLike = 1.0,
    draws: int = 64,
    bounds: Bounds | None = None,
) -> Proposal:
    """Return the points to evaluate next.

    If a rule cannot rank points, the rest of the batch falls back: hypervolume to uncertainty once no gain is expected;
    every rule to 'space' (farthest from the evaluated points) while all surrogates are constants or have no error
    estimate.

    Args:
        surrogates: T, fitted to the evaluated points.
        evaluated: (n, K) points evaluated or being evaluated, n may be 0.
        count: q, points wanted.
        rng: source of the pool and the draws.
        rule: see the module.
        reference: (T,) reference point of the hypervolume rule; default the worst fitted metric of evaluated points.
        weights: (T,) or scalar, importance of each objective in the uncertainty rule.
        draws: coefficient draws of the hypervolume rule.
        bounds: constraints on the fitted metrics; only feasible points add volume (hypervolume rule).

    Raises:
        InputError: shapes do not match, an unknown rule, or `count` below 1.
    """
    fits = same_space(surrogates)
    known = score_table(evaluated, "evaluated")
    at_least(count, 1, "count")
    if rule not in ("hypervolume", "uncertainty", "thompson"):
        raise InputError(f"rule must be 'hypervolume', 'uncertainty' or 'thompson', got {rule!r}")
    importance = vector(weights, len(fits), "weights")
    pool = _pool(fits, known, rng)
    if count > len(pool):
        raise InputError(f"count must be at most {len(pool)}, the points considered at once, got {count}")
    # a constant surface, or one without an error estimate, ranks all points alike
    learned = [fit.complexity != "constant" and fit.dof > 0 for fit in fits]
    if not any(learned):
        return Proposal(pool[farthest(pool, known, count)], np.zeros(count), 0.0, ("space",) * count)
    if rule == "thompson":
        return Proposal(pool[by_draws(fits, pool, known, count, rng)], np.zeros(count), 0.0, ("thompson",) * count)
    chosen: list[int] = []
    gain: list[float] = []
    volume = 0.0
    if rule == "hypervolume" and len(known):
        chosen, gain, volume = by_hypervolume(fits, pool, known, count, rng, reference, draws, bounds)
    by_gain = len(chosen)
    if by_gain < count:
        chosen += by_uncertainty(fits, pool, chosen, count - by_gain, importance)
    return Proposal(
        c=pool[chosen],
        gain=np.array([*gain, *[0.0] * (count - by_gain)]),
        volume=volume,
        rules=("hypervolume",) * by_gain + ("uncertainty",) * (count - by_gain),
    )


def stop_reason(
    gains: Sequence[float], volumes: Sequence[float], *, tolerance: float = 1e-3, patience: int = 2
) -> str | None:
    """Return why sampling should stop, or None to go on.

    Args:
        gains: summed expected gain of each proposal so far, oldest first.
        volumes: expected hypervolume at the same moments.
        tolerance: smallest gain, as a fraction of the volume, that is worth a round.
        patience: number of rounds in a row below it before stopping.
    """
    if len(gains) != len(volumes):
        raise InputError(f"gains and volumes must have the same length, got {len(gains)} and {len(volumes)}")
    recent = list(zip(gains, volumes, strict=True))[-at_least(patience, 1, "patience") :]
    if len(recent) < patience or any(volume <= 0 or gain > tolerance * volume for gain, volume in recent):
        return None
    gain, volume = recent[-1]
    return (
        f"expected hypervolume gain below {tolerance:g} of the volume for {patience} rounds (last {gain / volume:.2g})"
    )


def _pool(fits: Sequence[Surrogate], known: Array, rng: Generator) -> Array:
    """Return candidate points, (N, K), none of them evaluated."""
    box = fits[0].box
    front = predicted_front(fits, rng, size=FRONT_POINTS, population=FRONT_POINTS, generations=20, trust_region=False).c
    moved = np.repeat(front, 2, axis=0)  # two perturbed copies per front point explore beside the predicted front
    moved = np.clip(moved + STEP * (box[:, 1] - box[:, 0]) * rng.standard_normal(moved.shape), *box.T)
    pool = np.unique(np.vstack([sobol_points(SOBOL_POINTS, len(box), rng, box), front, moved]), axis=0)
    return pool[distance(pool, known, box) > 1e-6] if len(known) else pool  # never propose a point twice
