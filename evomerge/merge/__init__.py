"""Merge methods as pure functions of tensors: tensors and coefficients in, one merged tensor out.

The catalogue has one row per method; families of methods share a file; `kernels/` holds the fast versions, equal to
the plain ones in every bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.merge._arithmetic import metagpt_weights
    from evomerge.merge._catalogue import CATALOGUE, Method, merge, method
    from evomerge.merge._consensus import weight_divisor
    from evomerge.merge._interpolate import cosine_of, slerp_shares
    from evomerge.merge._masked import energy_shares, sce_sum
    from evomerge.merge._masks import mask_key
    from evomerge.merge._parameters import Parameter, checked
    from evomerge.merge._reductions import chunks, dot, sum_of_weights, weighted_sum
    from evomerge.merge._sparsify import kept_count
    from evomerge.merge.kernels._dispatch import (
        Fill,
        adder,
        compiled,
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
    "CATALOGUE",
    "KEEP_ALL",
    "KEEP_NONE",
    "Cut",
    "Fill",
    "Method",
    "Parameter",
    "Ranking",
    "RowRanks",
    "Thin",
    "Variances",
    "adder",
    "chances",
    "checked",
    "chunks",
    "compiled",
    "cosine_of",
    "cut_at",
    "cut_once",
    "dare_block",
    "dare_factor",
    "delta_norm",
    "dot",
    "dropper",
    "energies",
    "energy_shares",
    "finish_hash",
    "hash_rows",
    "kept_count",
    "mask_key",
    "merge",
    "metagpt_weights",
    "method",
    "rank",
    "rank_rows",
    "ranked",
    "sce_sum",
    "select",
    "slerp_shares",
    "sum_block",
    "sum_of_weights",
    "taken",
    "ties_block",
    "trimmer",
    "variances",
    "weight_divisor",
    "weighted_sum",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
