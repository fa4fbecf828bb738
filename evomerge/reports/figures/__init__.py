"""reports/figures"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.reports.figures._front_chart import front
    from evomerge.reports.figures._importance_chart import importance, landscape
    from evomerge.reports.figures._irt_charts import estimates, item_map
    from evomerge.reports.figures._item_matrix import held_out, item_matrix
    from evomerge.reports.figures._recipe_charts import recipe, route
    from evomerge.reports.figures._style import save
    from evomerge.reports.figures._trajectory import hypervolume, progress, utilisation

__all__ = [
    "estimates",
    "front",
    "held_out",
    "hypervolume",
    "importance",
    "item_map",
    "item_matrix",
    "landscape",
    "progress",
    "recipe",
    "route",
    "save",
    "utilisation",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
