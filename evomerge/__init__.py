"""evomerge: a distributed evolutionary merge optimizer.

From a base language model and models fine-tuned from it, find the merge, or the whole Pareto front of merges, that
serves your tasks best. The names below are the command line's verbs; each is loaded when first used, so importing
the package costs nothing and needs none of torch, ray or lm-eval.

    import evomerge

    run = evomerge.search("search_spaces/quickstart.yaml", out="runs/quickstart")
    run = evomerge.open_run("runs/quickstart")      # any time later, also while it runs
    run.front(), run.best(), run.trials()
    run.export("merged", pick="best")
    evomerge.figures.save(evomerge.reports.figures._front_chart(run), "front.svg")
    evomerge.write_report(run)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evomerge.version import __version__

if TYPE_CHECKING:  # what editors and type checkers see; `_LAZY` is what happens
    from evomerge import figures as figures
    from evomerge.commands import calibrate, check, merge_recipe, replay, resume, score, search
    from evomerge.errors import EvomergeError
    from evomerge.recipe import Recipe
    from evomerge.reports import write_report
    from evomerge.runs import Run, open_run

# public name -> the module that holds it, and its name there where it has another
_LAZY = {
    "EvomergeError": "evomerge.errors",
    "Recipe": "evomerge.recipe",
    "Run": "evomerge.results",
    "calibrate": "evomerge.commands._bank_sources",
    "check": "evomerge.commands._check",
    "merge_recipe": "evomerge.commands._model_commands",
    "open_run": "evomerge.results",
    "replay": "evomerge.commands._model_commands",
    "resume": "evomerge.commands._run_search",
    "score": "evomerge.commands._model_commands",
    "search": "evomerge.commands._run_search",
    "write_report": "evomerge.report",
}

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


def __getattr__(name: str) -> Any:
    if name == "figures":
        return importlib.import_module("evomerge.figures")
    if name in _LAZY:
        module, _, there = _LAZY[name].partition(":")
        return getattr(importlib.import_module(module), there or name)
    raise AttributeError(f"module 'evomerge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
