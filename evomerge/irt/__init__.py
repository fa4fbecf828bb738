"""Item response theory: calibrated items, scores estimated from few answers, and their standard errors.

Pure: arrays in, values out. Only the `*_files` modules and `_lm_eval_logs` read or write files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.irt._anchors import random_items, stratified_items
    from evomerge.irt._backtest import as_json, estimate
    from evomerge.irt._bank import Bank, calibrate_table, require_seed
    from evomerge.irt._bank_files import read_bank, writable, write_bank
    from evomerge.irt._calibrate import ItemParameters
    from evomerge.irt._cross_validation import ADAPTIVE_MODELS, MARGIN, CrossValidationResult, cross_validate
    from evomerge.irt._curves import Array, IntArray
    from evomerge.irt._estimators import (
        GP_GREEDY,
        P_GREEDY,
        P_STRATIFIED,
        Calibration,
        ScoreEstimate,
        choose_items,
        estimate_scores,
        fit_calibration,
        mix,
        population_scores,
    )
    from evomerge.irt._inheritance import informative_items, inheritance_items, inherited_mean, inherited_scores
    from evomerge.irt._lm_eval_logs import read_lm_eval_samples
    from evomerge.irt._model_selection import FEW_MODELS, NEAR_RASCH_SPEC, IRTModelSpec, select_irt_model
    from evomerge.irt._parent_predictor import estimate_merges
    from evomerge.irt._performance import difference
    from evomerge.irt._table import ResponseTable, item_id, listed
    from evomerge.irt._table_files import read_table
    from evomerge.irt._tiny_benchmarks import bank_from_parameters, import_tiny_benchmarks
    from evomerge.irt._uncertainty import conformal_factor, interval, raw_variance

__all__ = [
    "ADAPTIVE_MODELS",
    "FEW_MODELS",
    "GP_GREEDY",
    "MARGIN",
    "NEAR_RASCH_SPEC",
    "P_GREEDY",
    "P_STRATIFIED",
    "Array",
    "Bank",
    "Calibration",
    "CrossValidationResult",
    "IRTModelSpec",
    "IntArray",
    "ItemParameters",
    "ResponseTable",
    "ScoreEstimate",
    "as_json",
    "bank_from_parameters",
    "calibrate_table",
    "choose_items",
    "conformal_factor",
    "cross_validate",
    "difference",
    "estimate",
    "estimate_merges",
    "estimate_scores",
    "fit_calibration",
    "import_tiny_benchmarks",
    "informative_items",
    "inheritance_items",
    "inherited_mean",
    "inherited_scores",
    "interval",
    "item_id",
    "listed",
    "mix",
    "population_scores",
    "random_items",
    "raw_variance",
    "read_bank",
    "read_lm_eval_samples",
    "read_table",
    "require_seed",
    "select_irt_model",
    "stratified_items",
    "writable",
    "write_bank",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
