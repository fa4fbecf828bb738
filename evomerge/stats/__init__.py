"""Paired comparison of models that answered the same items: variances, tests and intervals.

Pure functions of numbers and arrays. Racing, held-out comparisons and reports all take their statistics from here.
"""

from evomerge.stats.intervals import normal_interval, normal_reach
from evomerge.stats.paired import (
    MeanDifference,
    Sample,
    bootstrap_means,
    is_ternary,
    max_t_deviations,
    mcnemar,
    paired_mean,
    weighted_sum,
)

__all__ = [
    "MeanDifference",
    "Sample",
    "bootstrap_means",
    "is_ternary",
    "max_t_deviations",
    "mcnemar",
    "normal_interval",
    "normal_reach",
    "paired_mean",
    "weighted_sum",
]
