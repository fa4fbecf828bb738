"""Search files and recipe files: read, checked as a whole, and turned into plain frozen values."""

from evomerge.searchfile.load import load_plain, load_recipe, load_search_file
from evomerge.searchfile.objectives import ObjectiveRequest
from evomerge.searchfile.sections import BudgetRequest, ControllerRequest, ScoringRequest, SearchFile

__all__ = [
    "BudgetRequest",
    "ControllerRequest",
    "ObjectiveRequest",
    "ScoringRequest",
    "SearchFile",
    "load_plain",
    "load_recipe",
    "load_search_file",
]
