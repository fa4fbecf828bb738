"""The search loop, from the controller's proposals to its observations; it resumes after an end of any kind."""

from evomerge.loop.budget import Budget, BudgetMeter, Reserve, StopReason
from evomerge.loop.dispatcher import Dispatcher, Items, Plan
from evomerge.loop.loop import Progress, Rules, Space, evaluate, run_search
from evomerge.loop.racing import Fitness, Racing
from evomerge.loop.replay import replay

__all__ = [
    "Budget",
    "BudgetMeter",
    "Dispatcher",
    "Fitness",
    "Items",
    "Plan",
    "Progress",
    "Racing",
    "Reserve",
    "Rules",
    "Space",
    "StopReason",
    "evaluate",
    "replay",
    "run_search",
]
