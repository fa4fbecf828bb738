"""Paired comparison: the mean of paired differences, its standard error, tests and bootstrap.

A difference is one model's score on an item minus another's on the same item. Pairing removes the items' own
difficulty, so it resolves much smaller differences of means than two separate error bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]
Sample = tuple[float, Array]  # weight in a sum over tasks, and the task's differences per item

DRAWS_AT_ONCE = 500  # bootstrap draws per block; bounds the memory to this many times n indices


@dataclass(frozen=True)
class MeanDifference:
    """Estimate of a mean difference with its squared standard error and degrees of freedom.

    A variance of 0 means that the mean is known exactly, an infinite one that the error is unbounded.
    """

    value: float
    variance: float
    freedom: float  # degrees of freedom of Student's t; infinite for the normal distribution

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval of this level, in (0, 1)."""
        quantile = 0.5 + level / 2  # two-sided
        # SciPy's stdtrit has no infinite degrees of freedom
        reach = float(ndtri(quantile) if math.isinf(self.freedom) else stdtrit(self.freedom, quantile))
        error = math.sqrt(self.variance)
        return self.value - reach * error, self.value + reach * error

    def p_two_sided(self) -> float:
        """Return the p value of the mean difference being 0."""
        if self.variance == 0.0:
            return float(self.value == 0.0)
        return 2.0 * self._upper_tail(abs(self.value))

    def p_not_above(self) -> float:
        """Return the p value of the mean difference being at most 0; small values say that it is above.

        A known difference is certain: 0 for one of at least 0 (a known tie counts as above), else 1.
        """
        if self.variance == 0.0:  # every item was answered: nothing is left to chance
            return 0.0 if self.value >= 0.0 else 1.0
        if math.isinf(self.variance):
            return 1.0
        return self._upper_tail(self.value)

    def _upper_tail(self, value: float) -> float:
        score = -value / math.sqrt(self.variance)
        return float(ndtr(score) if math.isinf(self.freedom) else stdtr(self.freedom, score))


def is_ternary(differences: ArrayLike) -> bool:
    """Return whether all differences are -1, 0 or 1, as those of right and wrong answers are."""
    return bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())


def paired_mean(differences: ArrayLike, population: int | None = None) -> MeanDifference:
    """Return the estimated mean of paired differences.

    If all differences are -1, 0 or 1: the adjusted Wald estimate for paired proportions, whose centre is shrunk
    towards 0 and whose variance is never 0, so that agreement on a few items is no certainty. Otherwise the sample
    mean and variance with n - 1 degrees of freedom (Student); a single difference has an infinite variance.

    Args:
        differences: (n,), at least one.
        population: number of items that the mean is about, of which the n are a random sample without replacement;
            the variance then carries the finite population correction 1 - n / population, and is 0 once n reaches it.
            None for an infinite population.

    Source: Bonett and Price 2012, 'Adjusted Wald confidence interval for a difference of binomial proportions based on
        paired data', Journal of Educational and Behavioral Statistics 37:479.
    """
    pairs = np.asarray(differences, dtype=np.float64)
    count = len(pairs)
    mean = float(pairs.mean())
    if population is not None and count >= population:
        return MeanDifference(mean, 0.0, math.inf)
    # finite population correction: the unseen fraction of the items
    unseen = 1.0 if population is None else 1.0 - count / population
    if is_ternary(pairs):
        # one pseudo-item for either sign, two in total (Bonett and Price)
        better, worse = ((int((pairs == sign).sum()) + 1) / (count + 2) for sign in (1.0, -1.0))
        variance = (better + worse - (better - worse) ** 2) / (count + 2)
        return MeanDifference(better - worse, variance * unseen, math.inf)
    if count < 2:
        return MeanDifference(mean, math.inf, 1.0)
    return MeanDifference(mean, float(pairs.var(ddof=1)) / count * unseen, count - 1.0)


def weighted_sum(parts: Sequence[tuple[float, MeanDifference]]) -> MeanDifference:
    """Return the weighted sum of independent mean differences, given as (weight, difference).

    Variances add; the degrees of freedom are those of Welch and Satterthwaite. Parts of weight 0 have no influence.
    """
    value = math.fsum(weight * one.value for weight, one in parts)
    variances = [(weight**2 * one.variance, one.freedom) for weight, one in parts if weight]  # 0 * inf is NaN
    variance = math.fsum(part for part, _ in variances)
    spread = math.fsum(part**2 / freedom for part, freedom in variances) if math.isfinite(variance) else 0.0
    return MeanDifference(value, variance, variance**2 / spread if spread > 0 else math.inf)


def mcnemar(better: int, worse: int) -> float:
    """Return McNemar's exact two-sided p value for `better` against `worse` discordant items (binomial, p = 1/2).

    1 where no item is discordant.

    >>> round(mcnemar(5, 0), 6)
    0.0625
    """
    if better + worse == 0:
        return 1.0
    from scipy.stats import binomtest  # scipy.stats takes half a second to import; only final comparisons need it

    return float(binomtest(better, better + worse, 0.5).pvalue)


def bootstrap_means(samples: Sequence[Sample], rng: np.random.Generator, draws: int) -> Array:
    """Return the weighted sum of the tasks' mean differences per resample of the items, (draws,).

    Args:
        samples: (weight, differences (n,)) per task; items are resampled within their task.
        rng: draws items with replacement.
        draws: resamples.
    """
    means = np.zeros(draws)
    for weight, pairs in samples:
        for start in range(0, draws, DRAWS_AT_ONCE):
            chosen = rng.integers(len(pairs), size=(min(DRAWS_AT_ONCE, draws - start), len(pairs)))
            means[start : start + DRAWS_AT_ONCE] += weight * pairs[chosen].mean(axis=1)
    return means


def max_t_deviations(samples: Sequence[Sample], errors: ArrayLike, rng: np.random.Generator, draws: int) -> Array:
    """Return the largest studentised deviation of any model per resample of the items, (draws,).

    Its `level` quantile times each model's standard error gives intervals that hold for all models together. Models
    use the same resampled items, so similar models need hardly more width than one alone.

    Args:
        samples: (weight, differences (models, n)) per task.
        errors: (models,) standard errors of the weighted sums; models whose error is 0 or not finite are left out.
        rng: draws items with replacement.
        draws: resamples.

    Source: Romano and Wolf 2005, 'Stepwise multiple testing as formalized data snooping', Econometrica 73.
    """
    widths = np.asarray(errors, dtype=np.float64)
    means = np.zeros((draws, len(widths)))  # deviations from the observed weighted sums
    for weight, rows in samples:
        count = rows.shape[1]
        # counts per item instead of indices: all models share one draw, and the mean is a matrix product
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=draws)  # (draws, n)
        means += weight * (drawn @ rows.T / count - rows.mean(axis=1))
    usable = np.isfinite(widths) & (widths > 0)
    if not usable.any():
        return np.zeros(draws)
    return np.asarray(np.abs(means[:, usable] / widths[usable]).max(axis=1))
