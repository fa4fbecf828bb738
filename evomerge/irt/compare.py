"""Is this model better than that one: paired comparison on the items that both answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from evomerge.errors import InputError
from evomerge.irt.curves import Array

DRAWS = 2000


@dataclass(frozen=True)
class Comparison:
    """Difference of two mean scores, first minus second, with an interval and a p-value."""

    difference: float
    stderr: float
    low: float
    high: float
    p_value: float  # two-sided
    items: int


def _paired(first: Array, second: Array) -> Array:
    """Return the differences on items that both answered."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(
            f"paired answers must be two rows over the same items, got {a.shape} and {b.shape}; match items by id first"
        )
    both = ~np.isnan(a) & ~np.isnan(b)
    if not both.any():
        raise InputError("the two models share no answered item; a paired comparison needs at least one")
    return a[both] - b[both]


def mcnemar(first: Array, second: Array) -> float:
    """Return the exact two-sided p-value that two models are equally good on right-or-wrong items.

    Only the items on which they differ count: of these, the number won is Binomial(n, 1/2). 1 where they never differ.

    Args:
        first: answers 0 or 1, nan where missing, `(items,)`.
        second: the same items.

    Raises:
        InputError: graded answers (use `paired_interval`), unequal lengths, or no item in common.

    Source: McNemar 1947; the exact form is the sign test.
    """
    gap = _paired(first, second)
    if not np.isin(gap, (-1.0, 0.0, 1.0)).all():
        raise InputError("McNemar's test needs answers of 0 or 1, got graded ones; use paired_interval")
    wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
    return float(min(1.0, 2.0 * binom.cdf(min(wins, losses), wins + losses, 0.5))) if wins + losses else 1.0


def paired_interval(first: Array, second: Array, level: float = 0.95) -> Comparison:
    """Return the difference of two models' means with a normal interval.

    The standard error of a mean of paired differences, with one won and one lost item added, so that few items on which
    the two never differ do not claim certainty (Agresti and Min 2005).

    Args:
        first: answers in [0, 1], nan where missing, `(items,)`.
        second: the same items.
        level: coverage, in (0, 1).
    """
    gap = _paired(first, second)
    n = len(gap)
    padded = np.concatenate([gap, [1.0, -1.0]])
    stderr = float(padded.std() / np.sqrt(n + 2))
    mean = float(gap.mean())
    centre = float(padded.mean())
    half = float(norm.ppf(0.5 + level / 2.0)) * stderr
    p = 2.0 * float(norm.sf(abs(centre) / stderr))
    return Comparison(mean, stderr, max(centre - half, -1.0), min(centre + half, 1.0), min(p, 1.0), n)


def paired_bootstrap(
    first: Array, second: Array, rng: np.random.Generator, level: float = 0.95, draws: int = DRAWS
) -> Comparison:
    """Return the difference of two models' means with a percentile bootstrap interval over items.

    Args:
        first: answers in [0, 1], nan where missing, `(items,)`.
        second: the same items.
        rng: draws items with replacement.
        level: coverage, in (0, 1).
        draws: resamples.
    """
    gap = _paired(first, second)
    means = _resampled_means(gap[None], rng, draws)[:, 0]
    low, high = np.quantile(means, [0.5 - level / 2.0, 0.5 + level / 2.0])
    # Add-one keeps the p-value above zero: a bootstrap of 2000 draws cannot show less than 1 in 2000.
    tail = (min(int((means <= 0.0).sum()), int((means >= 0.0).sum())) + 1.0) / (draws + 1.0)
    return Comparison(float(gap.mean()), float(means.std()), float(low), float(high), min(1.0, 2.0 * tail), len(gap))


def _resampled_means(rows: Array, rng: np.random.Generator, draws: int) -> Array:
    """Return means of each row over the same resampled items, `(draws, rows)`."""
    n = rows.shape[1]
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=draws)  # (draws, items)
    return counts @ rows.T / n


def holm(p_values: Array) -> Array:
    """Return p-values adjusted for testing several hypotheses, same order, by Holm's step-down rule (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1.0)
    return out


def simultaneous_intervals(
    finalists: Array, reference: Array, rng: np.random.Generator, level: float = 0.95, draws: int = DRAWS
) -> list[Comparison]:
    """Return each finalist's gain over one reference, with intervals that hold for all finalists together.

    Max-t bootstrap over items: the widest studentised deviation of any finalist sets the width of all, which uses how
    alike the finalists are and is narrower than Bonferroni. p-values are adjusted the same way.

    Args:
        finalists: complete answers on held-out items, `(models, items)`.
        reference: answers of the best parent, or whatever they are compared with, `(items,)`.
        rng: draws items with replacement.
        level: joint coverage, in (0, 1).
        draws: resamples.

    Raises:
        InputError: an answer is missing, or shapes disagree.

    Source: Romano and Wolf 2005, "Stepwise multiple testing as formalized data snooping".
    """
    rows = np.atleast_2d(np.asarray(finalists, dtype=float))
    base = np.asarray(reference, dtype=float)
    if base.shape != (rows.shape[1],):
        raise InputError(f"reference must answer the finalists' {rows.shape[1]} items, got shape {base.shape}")
    gaps = rows - base
    if np.isnan(gaps).any():
        raise InputError("simultaneous intervals need every answer of every finalist; keep the items that all answered")
    n = gaps.shape[1]
    padded = np.concatenate([gaps, np.ones((len(gaps), 1)), -np.ones((len(gaps), 1))], axis=1)
    stderr = padded.std(axis=1) / np.sqrt(n + 2)
    mean = gaps.mean(axis=1)
    deviation = np.abs(_resampled_means(gaps, rng, draws) - mean) / stderr  # (draws, models)
    widest = deviation.max(axis=1)
    critical = float(np.quantile(widest, level))
    out = []
    for k in range(len(gaps)):
        tail = (float((widest >= abs(mean[k]) / stderr[k]).sum()) + 1.0) / (draws + 1.0)
        low, high = mean[k] - critical * stderr[k], mean[k] + critical * stderr[k]
        out.append(Comparison(float(mean[k]), float(stderr[k]), float(low), float(high), min(tail, 1.0), n))
    return out


def wilson(right: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share of right answers.

    Args:
        right: sum of the answers; graded ones give an interval that is too wide rather than too narrow.
        n: answers, at least 1.
        level: coverage, in (0, 1).

    Raises:
        InputError: `n` below 1 or `right` outside [0, n].

    Source: Wilson 1927.
    """
    if n < 1 or not 0.0 <= right <= n:
        raise InputError(f"right must be in [0, n] with n at least 1, got right = {right} of n = {n}")
    z2 = float(norm.ppf(0.5 + level / 2.0)) ** 2
    share = right / n
    centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n)
    half = np.sqrt(z2 * (share * (1.0 - share) / n + z2 / (4.0 * n * n))) / (1.0 + z2 / n)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bootstrap_mean(
    answers: Array, rng: np.random.Generator, level: float = 0.95, draws: int = DRAWS
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean of answers in [0, 1], `(items,)`, nan where missing.

    Raises:
        InputError: no answer at all.
    """
    seen = np.asarray(answers, dtype=float)
    seen = seen[~np.isnan(seen)]
    if not len(seen):
        raise InputError("answers must hold at least one number, got none")
    means = _resampled_means(seen[None], rng, draws)[:, 0]
    low, high = np.quantile(means, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(low), float(high)
