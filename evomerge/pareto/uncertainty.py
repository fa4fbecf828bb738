"""Dominance when scores carry standard errors: how surely one candidate beats another, or belongs to the front.

Errors are taken as normal and independent between objectives. Between candidates they may share a correlation:
candidates that answered the same items err together, which makes their difference surer than their scores.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from evomerge.errors import InputError
from evomerge.pareto.checks import Array, Mask, at_least, fraction, score_table, standard_errors
from evomerge.pareto.dominance import non_dominated

# A row that is certainly dominated at this many standard errors is not simulated; its probability is below 1e-6.
CERTAIN_SDS = 5.0


def dominance_probability(scores: ArrayLike, stderr: ArrayLike, *, correlation: float = 0.0) -> Array:
    """Return the probability that the true row i is at least the true row j in every objective.

    Args:
        scores: (n, m) estimates, higher is better.
        stderr: standard errors, broadcast to (n, m).
        correlation: correlation of two candidates' errors in one objective, in [0, 1). 0 is the cautious choice.

    Returns:
        (n, n) float64 of P(i dominates j). The diagonal is 0, and so are exact duplicates (zero errors, equal rows).
        Rows with a NaN dominate nobody and are dominated by nobody.

    Raises:
        InputError: shapes do not match, an error is negative, or the correlation is outside [0, 1).
    """
    table = score_table(scores)
    errors = standard_errors(stderr, table)
    if not 0 <= correlation < 1:
        raise InputError(f"correlation must be in [0, 1), got {correlation}. Use 0 if it is not known")
    probability = np.ones((len(table), len(table)))
    strict = np.zeros((len(table), len(table)), dtype=bool)  # can one be strictly better at all?
    for column, error in zip(table.T, errors.T, strict=True):
        gap = column[:, None] - column[None, :]
        variance = error[:, None] ** 2 + error[None, :] ** 2 - 2 * correlation * error[:, None] * error[None, :]
        sd = np.sqrt(np.maximum(variance, 0.0))
        exact = sd == 0
        z = np.divide(gap, sd, out=np.zeros_like(gap), where=~exact)
        probability *= np.where(exact, gap >= 0, ndtr(z))
        strict |= ~exact | (gap > 0)
    failed = np.isnan(table).any(axis=1)
    probability[failed] = 0.0
    probability[:, failed] = 0.0
    np.fill_diagonal(probability, 0.0)
    return np.where(strict, probability, 0.0)


def probably_dominates(scores: ArrayLike, stderr: ArrayLike, level: float = 0.95, *, correlation: float = 0.0) -> Mask:
    """Return whether row i dominates row j with probability of at least `level`, as an (n, n) boolean.

    Arguments and errors are those of `dominance_probability`; `level` is in (0, 1).
    """
    fraction(level, "level")
    return dominance_probability(scores, stderr, correlation=correlation) >= level


def credible_front(scores: ArrayLike, stderr: ArrayLike, level: float = 0.95, *, correlation: float = 0.0) -> Mask:
    """Return the rows that no other row probably dominates: the front that the errors do not rule out.

    Contains the measured front whenever `level` is above one half. Each pair is tested by itself at `level`; a row
    that several others nearly rule out is kept, so the set is generous.

    Returns:
        (n,) boolean; rows with a NaN are false.
    """
    table = score_table(scores)
    beaten = probably_dominates(table, stderr, level, correlation=correlation).any(axis=0)
    return np.asarray(~beaten & ~np.isnan(table).any(axis=1))


def front_probability(scores: ArrayLike, stderr: ArrayLike, rng: Generator, *, draws: int = 1000) -> Array:
    """Return the probability that each row is truly on the front, by simulating the scores.

    Args:
        scores: (n, m) estimates, higher is better.
        stderr: standard errors, broadcast to (n, m).
        rng: source of the draws.
        draws: simulated score tables. The Monte Carlo error is at most 0.5 / sqrt(draws).

    Returns:
        (n,) float64 in [0, 1]; 0 for rows with a NaN.

    Raises:
        InputError: shapes do not match, an error is negative, or `draws` is below 1.
    """
    table = score_table(scores)
    errors = standard_errors(stderr, table)
    at_least(draws, 1, "draws")
    count = np.zeros(len(table))
    contenders = np.flatnonzero(_could_be_on_front(table, errors))
    if contenders.size == 0:
        return count
    for _ in range(draws):
        simulated = rng.normal(table[contenders], errors[contenders])
        count[contenders] += non_dominated(simulated)
    return count / draws


def interval(scores: ArrayLike, stderr: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Return the (low, high) normal intervals of scores that hold with probability `level`, each (n, m)."""
    table = score_table(scores)
    reach = ndtri(0.5 + fraction(level, "level") / 2) * standard_errors(stderr, table)
    return table - reach, table + reach


def _could_be_on_front(table: Array, errors: Array) -> Mask:
    """Return which rows' optimistic values are not dominated by any row's pessimistic values."""
    usable = ~np.isnan(table).any(axis=1)
    low, high = table - CERTAIN_SDS * errors, table + CERTAIN_SDS * errors
    floor = low[usable][non_dominated(low[usable])]
    beaten = np.array([(floor >= row).all(axis=1).any() & (floor > row).all(axis=1).any() for row in high], dtype=bool)
    return np.asarray(usable & ~beaten)
