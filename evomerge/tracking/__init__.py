"""A running search, shown in TensorBoard, Weights & Biases or MLflow: a copy for looking, made from the archive.

One file per tool. What is written when is decided in `metrics`, for all of them alike; threads in `writer` write it, so
that a slow or absent server never holds the search up.
"""

from evomerge.tracking.targets import TrackerTarget, targets_of
from evomerge.tracking.writer import tracked

__all__ = ["TrackerTarget", "targets_of", "tracked"]
