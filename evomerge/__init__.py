"""evomerge: a distributed evolutionary merge optimizer.

From a base language model and models fine-tuned from it, find the merge, or the whole Pareto front of merges, that
serves your tasks best. The names below are the command line's verbs; each is loaded when first used, so importing
the package costs nothing and needs none of torch, ray or lm-eval.

    import evomerge

    run = evomerge.search("search_spaces/quickstart.yaml", out="runs/quickstart")
    run = evomerge.open_run("runs/quickstart")      # any time later, also while it runs
    run.front(), run.best(), run.trials()
    run.export("merged", pick="best")
    evomerge.figures.save(evomerge.figures.front(run), "front.svg")
    evomerge.write_report(run)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names
from evomerge.version import __version__

if TYPE_CHECKING:  # what editors and type checkers see, and where `lazy_names` finds each name
    from evomerge.commands import calibrate, check, merge_recipe, replay, resume, score, search
    from evomerge.errors import EvomergeError
    from evomerge.recipe import Recipe
    from evomerge.reports import figures, write_report
    from evomerge.runs import Run, open_run

__all__ = [
    "EvomergeError",
    "Recipe",
    "Run",
    "__version__",
    "calibrate",
    "check",
    "figures",
    "merge_recipe",
    "open_run",
    "replay",
    "resume",
    "score",
    "search",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
