"""Is a candidate behind a reference, judged from some of the items? Pure functions of paired differences.

The items asked first are a random sample, without replacement, of the pinned items, and the question is about the
mean over all of these: the standard error carries the finite population correction and is 0 once all are answered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lead:
    """By how much the reference leads, with its squared standard error and degrees of freedom."""

    value: float  # positive: the reference is better
    variance: float
    freedom: float

    def p(self) -> float:
        """Return the one-sided p value of the reference not leading; a known lead, or a known tie, is certain."""
        if self.variance == 0.0:
            return 0.0 if self.value >= 0.0 else 1.0
        if math.isinf(self.variance):
            return 1.0
        from scipy.special import stdtr  # Student's distribution function; at infinite freedom the normal one

        return float(stdtr(min(self.freedom, 1e9), -self.value / math.sqrt(self.variance)))


def lead(differences: Sequence[float] | np.ndarray, total: int) -> Lead:
    """Return the lead in one task from the differences (n,), reference minus candidate, on n of `total` items.

    Differences of right and wrong answers (-1, 0, 1) use the adjusted Wald variance of paired proportions (Bonett and
    Price 2012), whose centre is drawn towards 0 and which is never 0: few items do not prove anything by agreeing.
    Others use the sample variance with n - 1 degrees of freedom; a single one proves nothing.
    """
    pairs = np.asarray(differences, dtype=float)
    count = len(pairs)
    if count >= total:
        return Lead(float(pairs.mean()), 0.0, math.inf)
    unanswered = 1.0 - count / total
    if np.isin(pairs, (-1.0, 0.0, 1.0)).all():
        better, worse = ((int((pairs * sign > 0).sum()) + 1) / (count + 2) for sign in (1, -1))
        variance = (better + worse - (better - worse) ** 2) / (count + 2)
        return Lead(better - worse, variance * unanswered, math.inf)
    if count < 2:
        return Lead(float(pairs.mean()), math.inf, 1.0)
    return Lead(float(pairs.mean()), float(pairs.var(ddof=1)) / count * unanswered, count - 1.0)


def total_lead(leads: Sequence[tuple[float, Lead]]) -> Lead:
    """Return the weighted sum of independent leads, as (weight, lead); degrees of freedom by Welch-Satterthwaite."""
    value = math.fsum(weight * one.value for weight, one in leads)
    parts = [(weight**2 * one.variance, one.freedom) for weight, one in leads if weight]
    variance = math.fsum(part for part, _ in parts)
    spread = math.fsum(part**2 / freedom for part, freedom in parts) if math.isfinite(variance) else 0.0
    return Lead(value, variance, variance**2 / spread if spread > 0 else math.inf)
