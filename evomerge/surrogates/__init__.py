"""Surrogate models of objectives in the merge coefficients: quadratics (MAP) and Gaussian processes.

Pure: designs, fits, acquisition functions, predicted fronts, and the reasons to doubt them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.surrogates._bayesian import next_points, stop_reason
    from evomerge.surrogates._design import anchor_points, d_optimal, initial_design, sobol_points
    from evomerge.surrogates._gaussian_process import GaussianProcess, Hyperparameters, fit_process
    from evomerge.surrogates._importance import (
        binned_variance_fractions,
        partial_rank_correlation,
        path_between,
        rank_correlation,
        slice_points,
        sobol_indices,
    )
    from evomerge.surrogates._links import LinkName, guess_link
    from evomerge.surrogates._nested import NestedState
    from evomerge.surrogates._noisy_ehvi import improving
    from evomerge.surrogates._predicted_front import PredictedFront, predicted_front
    from evomerge.surrogates._quadratic import fit_objectives, points_needed, richest_complexity
    from evomerge.surrogates._reliability import check_front, reliability_warnings
    from evomerge.surrogates._surrogate import Surrogate, predict

__all__ = [
    "GaussianProcess",
    "Hyperparameters",
    "LinkName",
    "NestedState",
    "PredictedFront",
    "Surrogate",
    "anchor_points",
    "binned_variance_fractions",
    "check_front",
    "d_optimal",
    "fit_objectives",
    "fit_process",
    "guess_link",
    "improving",
    "initial_design",
    "next_points",
    "partial_rank_correlation",
    "path_between",
    "points_needed",
    "predict",
    "predicted_front",
    "rank_correlation",
    "reliability_warnings",
    "richest_complexity",
    "slice_points",
    "sobol_indices",
    "sobol_points",
    "stop_reason",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
