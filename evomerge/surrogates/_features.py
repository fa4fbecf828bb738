"""Polynomial features of merge coefficients in a fixed order, and the quadratic form of their coefficients.

Order for K coefficients c: squares c_1^2..c_K^2; products c_1 c_2, c_1 c_3, .., c_{K-1} c_K; c_1..c_K; 1. Simpler
complexities leave groups out and keep the order: `diagonal` has no products, `linear` no squares either, `constant`
only the 1. The same surface is written e + b'c + c'A c / 2.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, score_table
from evomerge.errors import InputError, near

Complexity = Literal["constant", "linear", "diagonal", "full"]

# From the simplest to the richest; callers rely on the order.
COMPLEXITIES: tuple[Complexity, ...] = ("constant", "linear", "diagonal", "full")


def coefficient_count(dimensions: int, complexity: Complexity = "full") -> int:
    """Return the number of features of K `dimensions`: 1, K+1, 2K+1, or (K+1)(K+2)/2.

    >>> [coefficient_count(3, complexity) for complexity in COMPLEXITIES]
    [1, 4, 7, 10]
    """
    counts = {
        "constant": 1,
        "linear": dimensions + 1,
        "diagonal": 2 * dimensions + 1,
        "full": (dimensions + 1) * (dimensions + 2) // 2,
    }
    if complexity not in counts:
        raise InputError(f"unknown complexity {complexity!r}. {near(complexity, counts)}")
    return counts[complexity]


def features(c: ArrayLike, complexity: Complexity = "full") -> Array:
    """Return the features of points `c`, (n, K) -> (n, p), float64, in the order of this module.

    Raises:
        InputError: `c` is not (n, K), or the complexity is unknown.
    """
    points = score_table(c, "c")
    count = coefficient_count(points.shape[1], complexity)
    groups = []
    if complexity in ("diagonal", "full"):
        groups.append(points**2)  # (n, K)
    if complexity == "full":
        first, second = np.triu_indices(points.shape[1], 1)
        groups.append(points[:, first] * points[:, second])  # (n, K (K - 1) / 2), row-major upper triangle
    if complexity != "constant":
        groups.append(points)
    groups.append(np.ones((len(points), 1)))
    matrix = np.concatenate(groups, axis=1)
    assert matrix.shape[1] == count
    return matrix


def unpack(coefficients: ArrayLike, dimensions: int, complexity: Complexity = "full") -> tuple[Array, Array, Array]:
    """Return (A, b, e) of e + b'c + c'A c / 2 from coefficients in feature order.

    Args:
        coefficients: (..., p); leading axes (draws, objectives) are kept.
        dimensions: K.
        complexity: which groups the coefficients hold.

    Returns:
        A (..., K, K) symmetric, b (..., K), e (...).
    """
    beta = np.asarray(coefficients, dtype=np.float64)
    count = coefficient_count(dimensions, complexity)
    if beta.shape[-1:] != (count,):
        raise InputError(f"coefficients must end in {count} values for {dimensions} dimensions, got {beta.shape}")
    lead, k = beta.shape[:-1], dimensions
    curvature, slope = np.zeros((*lead, k, k)), np.zeros((*lead, k))
    position = 0
    if complexity in ("diagonal", "full"):
        curvature[..., np.arange(k), np.arange(k)] = 2 * beta[..., :k]  # c'A c / 2 holds half of each square's
        position = k
    if complexity == "full":
        first, second = np.triu_indices(k, 1)
        products = beta[..., position : position + len(first)]
        curvature[..., first, second] = curvature[..., second, first] = products
        position += len(first)
    if complexity != "constant":
        slope = beta[..., position : position + k].copy()
    return curvature, slope, beta[..., -1].copy()


def pack(curvature: ArrayLike, slope: ArrayLike, level: ArrayLike) -> Array:
    """Return full-quadratic coefficients (..., p) in feature order from (A, b, e): the inverse of `unpack`."""
    matrix, linear = np.asarray(curvature, dtype=np.float64), np.asarray(slope, dtype=np.float64)
    first, second = np.triu_indices(linear.shape[-1], 1)
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1) / 2  # (..., K)
    constant = np.asarray(level, dtype=np.float64)[..., None]
    return np.concatenate([diagonal, matrix[..., first, second], linear, constant], axis=-1)


def uncentred(coefficients: Array, middle: Array, half: Array, complexity: Complexity) -> Array:
    """Return coefficients in c of a surface given in u = (c - middle) / half, (p,) -> (p,) of the same complexity."""
    k = len(middle)
    curvature, slope, level = unpack(coefficients, k, complexity)
    # substitute u = (c - middle) / half and collect the powers of c
    matrix = curvature / np.outer(half, half)
    linear = slope / half - matrix @ middle
    constant = level - (slope / half) @ middle + middle @ matrix @ middle / 2
    full = pack(matrix, linear, constant)  # features that the complexity lacks have coefficient 0
    pairs = k * (k - 1) // 2
    kept = {
        "constant": [],
        "linear": [slice(k + pairs, 2 * k + pairs)],
        "diagonal": [slice(0, k), slice(k + pairs, 2 * k + pairs)],
        "full": [slice(0, 2 * k + pairs)],
    }[complexity]
    return np.concatenate([*(full[part] for part in kept), full[-1:]])


def centred_features(c: Array, box: Array, complexity: Complexity) -> Array:
    """Return the features of points in `box` scaled to [-1, 1], (n, K) and (K, 2) -> (n, p)."""
    low, high = box.T
    return features((c - (low + high) / 2) / ((high - low) / 2), complexity)
