"""The loop that searches, and how it goes on after an end of any kind."""

from evomerge.loop.replay import replay
from evomerge.loop.search import evaluate, run_search
from evomerge.loop.values import Budget, Progress, Space, StopReason

__all__ = ["Budget", "Progress", "Space", "StopReason", "evaluate", "replay", "run_search"]
