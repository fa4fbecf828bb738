"""Scoring: tasks and items through lm-eval, batched inference, other metrics, and estimates from few answers.

A scorer turns a model in memory into per-item responses; estimators turn responses into a score with its error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.scoring._answer_cache import AnswerCache
    from evomerge.scoring._answer_flags import ANSWER_FLAGS, RESPONSE_TOKENS, SHORTENED, TRUNCATED, UNEXTRACTED
    from evomerge.scoring._paired_comparison import Difference, gain_over_best, joint_gains, paired_difference
    from evomerge.scoring._sanity_checks import SanityChecks, check_norms
    from evomerge.scoring._scorer import ModelScorer
    from evomerge.scoring.estimation._mean import estimate, metric_key, values_of
    from evomerge.scoring.lm_eval._adapter import TaskSet
    from evomerge.scoring.lm_eval._documents import Document
    from evomerge.scoring.lm_eval._item_split import ItemPlan, split
    from evomerge.scoring.lm_eval._settings import TaskSettings
    from evomerge.scoring.metrics._metric import Measure, ModelInterface, documents, version
    from evomerge.scoring.metrics._python_function import Asked
    from evomerge.scoring.metrics._sizes import TIMINGS

__all__ = [
    "ANSWER_FLAGS",
    "RESPONSE_TOKENS",
    "SHORTENED",
    "TIMINGS",
    "TRUNCATED",
    "UNEXTRACTED",
    "AnswerCache",
    "Asked",
    "Difference",
    "Document",
    "ItemPlan",
    "Measure",
    "ModelInterface",
    "ModelScorer",
    "SanityChecks",
    "TaskSet",
    "TaskSettings",
    "check_norms",
    "documents",
    "estimate",
    "gain_over_best",
    "joint_gains",
    "metric_key",
    "paired_difference",
    "split",
    "values_of",
    "version",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
