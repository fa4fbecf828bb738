"""Item response theory: calibrated items, scores estimated from few answers, and their standard errors.

Pure: arrays in, values out. Only the `*_files` modules and `_lm_eval_logs` read or write files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.irt._backtest import as_json, estimate
    from evomerge.irt._bank import Bank, calibrate_table, require_seed
    from evomerge.irt._bank_files import read_bank, writable, write_bank
    from evomerge.irt._calibration_data import BankPart, CalibrationData, complete_row, match_bank
    from evomerge.irt._few_items import FewItemEstimator, answers_of
    from evomerge.irt._lm_eval_logs import read_lm_eval_samples
    from evomerge.irt._performance import FEW_ITEM_METHODS
    from evomerge.irt._table import ResponseTable, item_id
    from evomerge.irt._table_files import read_table
    from evomerge.irt._tiny_benchmarks import bank_from_parameters, import_tiny_benchmarks
    from evomerge.irt._uncertainty import interval

__all__ = [
    "FEW_ITEM_METHODS",
    "Bank",
    "BankPart",
    "CalibrationData",
    "FewItemEstimator",
    "ResponseTable",
    "answers_of",
    "as_json",
    "bank_from_parameters",
    "calibrate_table",
    "complete_row",
    "estimate",
    "import_tiny_benchmarks",
    "interval",
    "item_id",
    "match_bank",
    "read_bank",
    "read_lm_eval_samples",
    "read_table",
    "require_seed",
    "writable",
    "write_bank",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
