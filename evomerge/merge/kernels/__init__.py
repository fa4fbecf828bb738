"""Merge methods over cache-sized blocks of memory, by numba where it is installed and by torch elsewhere.

`_dispatch` chooses; rankings and thresholds that do not depend on the candidate are computed once.
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
        ranked,
        select,
        taken,
        trimmer,
    )
    from evomerge.merge.kernels._row_ranks import RowRanks, chances, rank_rows
    from evomerge.merge.kernels._thresholds import KEEP_ALL, KEEP_NONE, Cut, Ranking, cut_at, cut_once, rank
    from evomerge.merge.kernels._torch_loops import Thin, dare_block, dare_factor, delta_norm, sum_block, ties_block
    from evomerge.merge.kernels._variances import Variances, energies, variances

__all__ = [
    "KEEP_ALL",
    "KEEP_NONE",
    "Cut",
    "Kernel",
    "Ranking",
    "RowRanks",
    "Thin",
    "Variances",
    "adder",
    "available",
    "chances",
    "cut_at",
    "cut_once",
    "dare_block",
    "dare_factor",
    "delta_norm",
    "dropper",
    "energies",
    "finish_hash",
    "hash_rows",
    "rank",
    "rank_rows",
    "ranked",
    "select",
    "sum_block",
    "taken",
    "ties_block",
    "trimmer",
    "variances",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
