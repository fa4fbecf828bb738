"""Merge methods as pure functions of tensors: tensors and coefficients in, one merged tensor out.

The catalogue has one row per method; families of methods share a file; `kernels` (a facade of its own)
holds the fast versions, equal to the plain ones in every bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.merge._apply import merge
    from evomerge.merge._arithmetic import metagpt_weights
    from evomerge.merge._catalogue import CATALOGUE, Method, method
    from evomerge.merge._consensus import weight_divisor
    from evomerge.merge._interpolate import slerp_coefficients
    from evomerge.merge._masked import energy_fractions, sce_sum
    from evomerge.merge._masks import mask_key
    from evomerge.merge._parameters import Parameter, checked
    from evomerge.merge._reductions import chunks, sum_of_weights, weighted_sum

__all__ = [
    "CATALOGUE",
    "Method",
    "Parameter",
    "checked",
    "chunks",
    "energy_fractions",
    "mask_key",
    "merge",
    "metagpt_weights",
    "method",
    "sce_sum",
    "slerp_coefficients",
    "sum_of_weights",
    "weight_divisor",
    "weighted_sum",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
