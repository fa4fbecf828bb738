"""Search files, recipe files and cluster files: read, checked as a whole, and turned into frozen values.

Every mistake is reported at once, with its line and near names. Configuration stops here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.config._cluster_file import ClusterFile, load_cluster_file, passed_on
    from evomerge.config._draft import METHODS, Draft, comma_list, draft_text
    from evomerge.config._json_schema import search_file_schema
    from evomerge.config._mergekit_evolve import search_file_text
    from evomerge.config._objective_sections import ObjectiveRequest
    from evomerge.config._search_file import load_plain, load_recipe, load_search_file
    from evomerge.config._section_base import wrong_moment
    from evomerge.config._sections import BudgetRequest, ControllerRequest, ScoringRequest, SearchFile

__all__ = [
    "METHODS",
    "BudgetRequest",
    "ClusterFile",
    "ControllerRequest",
    "Draft",
    "ObjectiveRequest",
    "ScoringRequest",
    "SearchFile",
    "comma_list",
    "draft_text",
    "load_cluster_file",
    "load_plain",
    "load_recipe",
    "load_search_file",
    "passed_on",
    "search_file_schema",
    "search_file_text",
    "wrong_moment",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
