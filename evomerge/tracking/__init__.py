"""A running search, shown in TensorBoard, Weights & Biases or MLflow: a copy for looking, made from the archive.

One file per tool. What is written when is decided in `feed`, for all of them alike; threads in `keeper` write it, so
that a slow or absent server never holds the search up.
"""

from evomerge.tracking.keeper import tracked
from evomerge.tracking.targets import Target, targets_of

__all__ = ["Target", "targets_of", "tracked"]
