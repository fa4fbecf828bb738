"""Statistics shared by races and reports: paired comparisons of two models, and confidence intervals.

Pure: arrays of per-item scores in, differences, intervals and p values out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.stats._intervals import normal_interval, normal_reach
    from evomerge.stats._paired import (
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

__getattr__, __dir__ = lazy_names(__name__, __file__)
