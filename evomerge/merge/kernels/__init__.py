"""Merge methods over cache-sized blocks of memory, by numba where it is installed and by torch elsewhere.

`_dispatch` chooses; rankings and thresholds that do not depend on the candidate are computed once, in `TensorStats`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.merge.kernels._dispatch import (
        Kernel,
        adder,
        available,
        dropper,
        finish_hash,
        hash_rows,
        taken,
        trimmer,
    )
    from evomerge.merge.kernels._row_ranks import chances
    from evomerge.merge.kernels._tensor_stats import Read, TensorStats
    from evomerge.merge.kernels._torch_loops import Thin, dare_block, dare_factor, sum_block, ties_block
    from evomerge.merge.kernels._variances import energies

__all__ = [
    "Kernel",
    "Read",
    "TensorStats",
    "Thin",
    "adder",
    "available",
    "chances",
    "dare_block",
    "dare_factor",
    "dropper",
    "energies",
    "finish_hash",
    "hash_rows",
    "sum_block",
    "taken",
    "ties_block",
    "trimmer",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
