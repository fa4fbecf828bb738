"""Shapes over depth: coefficients as functions of the layer, instead of one number per layer to search.

A shape gives numbers, not tensors. LiNeS factors multiply `lambda` of any task-vector method; layer-swap shares are the
`share` of `layer_swap`. Depth is t = layer / (layers - 1), from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.errors import MergeError


def depth(layer: int, layers: int) -> float:
    """Return the depth of a layer in [0, 1]; 1 in a model or slice of one layer, as in mergekit."""
    return layer / (layers - 1) if layers > 1 else 1.0


def gradient(values: Sequence[float], t: float) -> float:
    """Return mergekit's list-valued ("gradient") parameter at depth `t`: piecewise linear, knots evenly spaced.

    >>> gradient([0.0, 1.0, 0.5], 0.75)
    0.75
    """
    if not values:
        raise MergeError("a gradient needs at least one value, got none")
    place = max(0.0, min(1.0, t)) * (len(values) - 1)
    left = min(int(place), len(values) - 1)
    right = min(left + 1, len(values) - 1)
    fraction = place - left
    return (1 - fraction) * values[left] + fraction * values[right]


def lines(layer: int | None, layers: int, alpha: float, beta: float) -> float:
    """Return the LiNeS factor of a layer's task vectors: alpha + beta * depth; alpha outside the layers.

    Args:
        layer: index from 0, or None for embeddings, the final norm and the head.
        layers: number of layers; a single one gets alpha.
        alpha: factor of the first layer.
        beta: what the last layer gets on top.

    >>> [lines(layer, 4, 0.25, 0.75) for layer in range(4)]
    [0.25, 0.5, 0.75, 1.0]

    Source: LiNeS, Wang et al. 2024, arXiv:2410.17146.
    """
    return alpha if layer is None or layers < 2 else alpha + beta * layer / (layers - 1)


def lines_alpha(summed_norm: float, merged_norm: float, models: int) -> float:
    """Return LiNeS's alpha for a merge of several models: L1 norm of the sum of deltas over models times the merge's.

    It is 1 / models for task arithmetic with unit weights; 1 where nothing was merged.
    """
    return summed_norm / (models * merged_norm) if merged_norm > 0 else 1.0


def layer_swap(layer: int | None, layers: int, bottom: int, top: int, transition: int = 0) -> float:
    """Return the language model's share in a layer: 1 at both ends, 0 in the middle, 0.5 in transition layers.

    Args:
        layer: index from 0, or None for tensors outside the layers, which the language model gives.
        layers: number of layers.
        bottom: number of first layers from the language model.
        top: number of last layers from it.
        transition: number of half-and-half layers on the middle's side of each boundary that exists.

    Raises:
        MergeError: bottom + top exceeds the number of layers, or a count is negative.

    >>> [layer_swap(layer, 6, bottom=1, top=1, transition=1) for layer in range(6)]
    [1.0, 0.5, 0.0, 0.0, 0.5, 1.0]

    Source: Bandarkar et al. 2024, arXiv:2410.01335; the paper leaves embeddings and one-sided swaps open.
    """
    if min(bottom, top, transition) < 0 or bottom + top > layers:
        raise MergeError(f"layer_swap: bottom {bottom} + top {top} must be 0 to {layers} layers, transition at least 0")
    if layer is None:
        return 1.0 if bottom + top else 0.0
    if layer < bottom or layer >= layers - top:
        return 1.0
    after_bottom = bottom > 0 and layer < bottom + transition
    before_top = top > 0 and layer >= layers - top - transition
    return 0.5 if after_bottom or before_top else 0.0
