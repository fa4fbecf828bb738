"""evomerge: a distributed evolutionary merge optimizer.

From a base language model and models fine-tuned from it, find the merge, or the whole Pareto front of merges, that
serves your tasks best. The names below are the command line's verbs; each is loaded when first used, so importing
the package costs nothing and needs none of torch, ray or lm-eval.

    import evomerge

    run = evomerge.search("search_spaces/quickstart.yaml", out="runs/quickstart")
    run = evomerge.open_run("runs/quickstart")      # any time later, also while it runs
    run.front(), run.best(), run.trials()
    run.export("merged", pick="best")
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> the module that holds it, and its name there where it has another
_DOORS = {
    "search": "evomerge.run.session",
    "resume": "evomerge.run.session",
    "check": "evomerge.run.check",
    "score": "evomerge.run.verbs",
    "replay": "evomerge.run.verbs",
    "calibrate": "evomerge.run.calibration:calibrate_sources",
    "merge_recipe": "evomerge.run.verbs",
    "open_run": "evomerge.results",
    "Run": "evomerge.results",
    "Recipe": "evomerge.recipe",
    "EvomergeError": "evomerge.errors",
}

__all__ = sorted([*_DOORS, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        module, _, there = _DOORS[name].partition(":")
        return getattr(importlib.import_module(module), there or name)
    raise AttributeError(f"module 'evomerge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
