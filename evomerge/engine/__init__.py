"""Parents in, weights out: recipes become merge plans, carried out in memory (resident model) or to disk (export).

One assembly of a tensor serves both, so that what is scored and what is exported agree in every bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.engine._chat_template import template_problem
    from evomerge.engine._lora import LoraReport, export_lora, rank_of
    from evomerge.engine._model_export import export
    from evomerge.engine._parents import find_parents
    from evomerge.engine._resident import ResidentModel
    from evomerge.engine._task_vector_similarity import task_vector_products
    from evomerge.engine._time_estimate import TimeEstimate, estimate_time, export_bytes
    from evomerge.engine._vocabulary import Alignment, aligned_layouts, alignment_of, merge_of
    from evomerge.engine.route._mergekit import route_to_mergekit

__all__ = [
    "Alignment",
    "LoraReport",
    "ResidentModel",
    "TimeEstimate",
    "aligned_layouts",
    "alignment_of",
    "estimate_time",
    "export",
    "export_bytes",
    "export_lora",
    "find_parents",
    "merge_of",
    "rank_of",
    "route_to_mergekit",
    "task_vector_products",
    "template_problem",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
