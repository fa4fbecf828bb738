"""Intervals from a value and its standard error."""

from __future__ import annotations

from statistics import NormalDist


def normal_reach(level: float = 0.95) -> float:
    """Return the half-width of a two-sided normal interval of this level, in (0, 1), in standard errors."""
    return NormalDist().inv_cdf(0.5 + level / 2)  # the standard library's: scipy.stats takes half a second to import


def normal_interval(value: float, stderr: float, level: float = 0.95) -> tuple[float, float]:
    """Return the normal-theory interval of a value.

    Args:
        value: estimate.
        stderr: its standard error, at least 0.
        level: coverage, in (0, 1).

    >>> low, high = normal_interval(0.5, 0.1)
    >>> round(low, 3), round(high, 3)
    (0.304, 0.696)
    """
    reach = normal_reach(level) * stderr
    return value - reach, value + reach
