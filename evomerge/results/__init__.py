"""Reading a run folder: scores, fronts, finals, tables, and what to take away. Needs none of torch, ray, lm-eval."""

from evomerge.results.run import Run, open_run

__all__ = ["Run", "open_run"]
