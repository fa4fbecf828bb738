"""Run folders, read: candidates, scores, fronts, finalists, tables, and exports. Works while a search runs.

Needs none of torch, ray and lm-eval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.runs._coefficients import OUTSIDE, coefficients_frame
    from evomerge.runs._columns import describe, markdown
    from evomerge.runs._estimates import ItemEstimate, best_evaluation, best_evaluations
    from evomerge.runs._evaluations import (
        BEST_FINALISTS,
        answered_everything,
        best_number,
        evaluation_of,
        finalists,
        fitness_table,
        front_numbers,
    )
    from evomerge.runs._export import findings_text, write_lora, write_text
    from evomerge.runs._feasibility import (
        Constraint,
        bounds_of,
        constraint_problems,
        feasible_evaluations,
        parent_scores,
        read_constraints,
    )
    from evomerge.runs._fitted_surrogates import LEVEL, errors_of, surrogates_of
    from evomerge.runs._frame_output import plain, print_table, write_csv, write_json, write_parquet
    from evomerge.runs._fronts import FrontAnswer, FrontRequest, front_mapping, remeasured_lines
    from evomerge.runs._holdout import MEAN, Final, generalisation_frame
    from evomerge.runs._model_card import recipe_card
    from evomerge.runs._optuna_storage import write_study
    from evomerge.runs._progress_line import SECONDS_BETWEEN_LINES, progress_line
    from evomerge.runs._response_table import response_table
    from evomerge.runs._run import Run, open_run
    from evomerge.runs._summaries import clock, front_text, verdict

__all__ = [
    "BEST_FINALISTS",
    "LEVEL",
    "MEAN",
    "OUTSIDE",
    "SECONDS_BETWEEN_LINES",
    "Constraint",
    "Final",
    "FrontAnswer",
    "FrontRequest",
    "ItemEstimate",
    "Run",
    "answered_everything",
    "best_evaluation",
    "best_evaluations",
    "best_number",
    "bounds_of",
    "clock",
    "coefficients_frame",
    "constraint_problems",
    "describe",
    "errors_of",
    "evaluation_of",
    "feasible_evaluations",
    "finalists",
    "findings_text",
    "fitness_table",
    "front_mapping",
    "front_numbers",
    "front_text",
    "generalisation_frame",
    "markdown",
    "open_run",
    "parent_scores",
    "plain",
    "print_table",
    "progress_line",
    "read_constraints",
    "recipe_card",
    "remeasured_lines",
    "response_table",
    "surrogates_of",
    "verdict",
    "write_csv",
    "write_json",
    "write_lora",
    "write_parquet",
    "write_study",
    "write_text",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
