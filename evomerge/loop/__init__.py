"""The search loop: ask, record, dispatch, collect, record, tell, until there is a reason to stop.

The tell queue fixes the order of results, racing decides who answers more items, replay resumes from the archive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.loop._budget import Budget, Reserve, StopReason
    from evomerge.loop._dispatcher import Items
    from evomerge.loop._racing import Fitness, Racing
    from evomerge.loop._search_loop import Progress, Rules, evaluate, run_search

__all__ = [
    "Budget",
    "Fitness",
    "Items",
    "Progress",
    "Racing",
    "Reserve",
    "Rules",
    "StopReason",
    "evaluate",
    "run_search",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
