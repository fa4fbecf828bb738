"""Figures of a run. Each function returns an Altair chart: interactive in notebooks, saved without a browser.

from evomerge import figures, open_run

chart = figures.front(open_run("runs/quickstart"))
figures.save(chart, "front.svg")
"""

from evomerge.figures.front import front
from evomerge.figures.style import save

__all__ = ["front", "save"]
