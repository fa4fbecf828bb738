"""Figures of a run. Each function returns an Altair chart: interactive in notebooks, saved without a browser.

    from evomerge import figures, open_run

    run = open_run("runs/quickstart")
    figures.save(figures.front(run), "front.svg")
    figures.recipe(run, "knee")

Behind each figure is a frame: a method of `Run` or of `Run.tables`, or the function named in the figure's docstring.
"""

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
