"""A small evolutionary optimiser for cheap, vectorised objectives: it finds the front of a surrogate.

Elitist and generational. Offspring come from simulated binary crossover and polynomial mutation; survivors are the
best fronts, the last one thinned to an even spread. Expensive candidates are the job of controllers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from evomerge._arguments import Array
from evomerge.pareto import front_ranks, non_dominated, representatives

CROSSOVER_ETA, CROSSOVER_PROBABILITY = 20.0, 0.9
MUTATION_ETA = 20.0
# Fraction of offspring made by a short step from one parent, and its sd in widths: smooth surfaces reward short steps.
LOCAL_FRACTION, LOCAL_STEP = 0.3, 0.02

Objectives = Callable[[Array], tuple[Array, Array]]


def evolve(
    evaluate: Objectives, start: Array, box: Array, rng: Generator, *, survivors: int, generations: int
) -> Array:
    """Return the front of all feasible points evaluated, (f, K); of the least violating ones if none is feasible.

    Args:
        evaluate: points (n, K) -> scores (n, m), higher is better, and violations (n,), 0 where feasible.
        start: (s, K) first points inside the box, s at least 2.
        box: (K, 2).
        rng: parents, crossover and mutation.
        survivors: size of the population.
        generations: number of rounds of `survivors` offspring.

    Source: the variation operators of NSGA-II and NSGA-III, Deb et al. 2002 and Deb and Jain 2014.
    """
    points = start
    scores, violation = evaluate(points)
    seen = [(points, scores, violation)]
    for _ in range(generations):
        children = _offspring(points, box, rng, survivors)
        seen.append((children, *evaluate(children)))
        points = np.vstack([points, children])
        scores = np.vstack([scores, seen[-1][1]])
        violation = np.concatenate([violation, seen[-1][2]])
        kept = _survivors(scores, violation, survivors)
        points, scores, violation = points[kept], scores[kept], violation[kept]
    points, scores, violation = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    feasible = violation <= max(0.0, float(violation.min()))
    points, scores = points[feasible], scores[feasible]
    return points[non_dominated(scores, duplicates=False)]


def _survivors(scores: Array, violation: Array, count: int) -> np.ndarray:
    feasible = np.flatnonzero(violation <= 0)
    if len(feasible) < count:  # fill up with the least violating points
        order = np.argsort(violation, kind="stable")
        return order[:count]
    ranks = front_ranks(scores[feasible])
    last = int(np.sort(ranks)[count - 1])  # the first front that may not fit as a whole
    kept, border = feasible[ranks < last], feasible[ranks == last]
    return np.concatenate([kept, border[representatives(scores[border], count - len(kept))]])


def _offspring(parents: Array, box: Array, rng: Generator, count: int) -> Array:
    low, high = box.T
    first = parents[rng.integers(len(parents), size=count)]
    second = parents[rng.integers(len(parents), size=count)]
    # simulated binary crossover; a spread factor of 1 leaves a gene, or a whole pair, uncrossed
    u = rng.random(first.shape)
    spread = np.where(u < 0.5, 2 * u, 1 / (2 * (1 - u))) ** (1 / (CROSSOVER_ETA + 1))
    crossed = (rng.random(first.shape) < 0.5) & (rng.random((count, 1)) < CROSSOVER_PROBABILITY)
    spread = np.where(crossed, spread, 1.0)
    children = ((1 + spread) * first + (1 - spread) * second) / 2
    # polynomial mutation of one gene per child on average
    u = rng.random(children.shape)
    power = 1 / (MUTATION_ETA + 1)
    shift = np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    mutated = rng.random(children.shape) < 1 / children.shape[1]
    children = children + np.where(mutated, shift, 0.0) * (high - low)
    local = rng.random((count, 1)) < LOCAL_FRACTION
    near = first + LOCAL_STEP * (high - low) * rng.standard_normal(first.shape)
    return np.clip(np.where(local, near, children), low, high)
