"""Pareto dominance, hypervolume, and the choice of one point of a front. All for maximisation.

Pure: `(n, m)` float64 arrays of scores in, masks, numbers and indices out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.pareto._constraints import Bounds, not_dominated_by_any
    from evomerge.pareto._dominance import crowding_distance, dominates, extend_front, front_ranks, non_dominated
    from evomerge.pareto._hypervolume import hypervolume, hypervolume_history
    from evomerge.pareto._reference_directions import representatives, simplex_weights
    from evomerge.pareto._selection import (
        AUGMENTATION,
        choose_by_preference,
        desirability,
        knee,
        overall_desirability,
        preference_weights,
    )

__all__ = [
    "AUGMENTATION",
    "Bounds",
    "choose_by_preference",
    "crowding_distance",
    "desirability",
    "dominates",
    "extend_front",
    "front_ranks",
    "hypervolume",
    "hypervolume_history",
    "knee",
    "non_dominated",
    "not_dominated_by_any",
    "overall_desirability",
    "preference_weights",
    "representatives",
    "simplex_weights",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
