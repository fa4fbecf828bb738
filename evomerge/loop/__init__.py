"""The loop that searches, and how it goes on after an end of any kind."""

from evomerge.loop.final import evaluate
from evomerge.loop.replay import replay
from evomerge.loop.search import run_search
from evomerge.loop.values import Budget, Progress, Racing, Reserve, Rules, Space, StopReason

__all__ = [
    "Budget",
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
