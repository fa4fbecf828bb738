"""Controllers propose genotypes by `ask` and learn from fitness by `tell`; one outside library per file.

The registry has one row per controller: its factory, its options, and what it can do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.controllers._auto import auto_options, choose
    from evomerge.controllers._model_weights import model_weights_in, models_with_weights
    from evomerge.controllers._proposals import Proposals
    from evomerge.controllers._protocol import (
        Controller,
        CountsUpdates,
        Recommender,
        Replayable,
        SearchProblem,
        WarmStartPoint,
        tell,
    )
    from evomerge.controllers._registry import (
        AUTO,
        CONTROLLERS,
        ControllerInfo,
        build,
        controller_info,
        register_controller,
        warm_starting,
    )

__all__ = [
    "AUTO",
    "CONTROLLERS",
    "Controller",
    "ControllerInfo",
    "CountsUpdates",
    "Proposals",
    "Recommender",
    "Replayable",
    "SearchProblem",
    "WarmStartPoint",
    "auto_options",
    "build",
    "choose",
    "controller_info",
    "model_weights_in",
    "models_with_weights",
    "register_controller",
    "tell",
    "warm_starting",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
