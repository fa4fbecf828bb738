"""Figures of a run. Each function returns an Altair chart: interactive in notebooks, saved without a browser.

    from evomerge import figures, open_run

    run = open_run("runs/quickstart")
    figures.save(figures.front(run), "front.svg")
    figures.recipe(run, "knee")

Behind each figure is a frame: of `run.tables`, or the function named in the figure's docstring.
"""

from evomerge.figures.front import front
from evomerge.figures.genes import importance, landscape
from evomerge.figures.irt import estimates, item_map
from evomerge.figures.items import held_out, item_matrix
from evomerge.figures.progress import hypervolume, progress, utilisation
from evomerge.figures.recipes import recipe, route
from evomerge.figures.style import save

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
