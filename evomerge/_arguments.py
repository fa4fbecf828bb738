"""Argument checks shared by fronts and surrogates: shapes, finiteness and ranges, with messages that say what to do."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge.errors import InputError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def score_table(scores: ArrayLike, name: str = "scores") -> Array:
    """Return `scores` as an (n, m) float64 array, one row per candidate, one column per objective.

    NaN is let through (a failed candidate or a missing objective); n may be 0, m may not.

    Raises:
        InputError: not two-dimensional, no objectives, or not numbers.
    """
    table = _as_float(scores, name)
    if table.ndim != 2:  # refused, not reshaped: (n,) may be n candidates or n objectives
        raise InputError(
            f"{name} must be (n, m): one row per candidate, one column per objective; got shape {table.shape}. "
            f"A single objective is a column, {name}[:, None]; a single candidate is a row, {name}[None, :]"
        )
    if table.shape[1] == 0:
        raise InputError(f"{name} must have at least one objective (column); got shape {table.shape}")
    return table


def vector(values: ArrayLike, length: int, name: str, meaning: str = "one value per objective") -> Array:
    """Return `values` as a (length,) float64 array; a scalar is repeated.

    Raises:
        InputError: another length, or NaN.
    """
    row = _as_float(values, name)
    if row.ndim == 0:
        row = np.full(length, float(row))  # one value for all objectives
    if row.shape != (length,):
        raise InputError(f"{name} must be ({length},): {meaning}; got shape {row.shape}")
    if np.isnan(row).any():
        raise InputError(f"{name} must not be NaN; got {row.tolist()}. Leave the entry out or give its value")
    return row


def same_shape(values: ArrayLike, like: Array, name: str, like_name: str = "scores") -> Array:
    """Return `values` as float64 with the shape of `like`; a scalar or a row is broadcast.

    Raises:
        InputError: the shapes do not broadcast.
    """
    table = _as_float(values, name)
    try:
        return np.array(np.broadcast_to(table, like.shape))  # a copy: broadcast views are read-only
    except ValueError:
        raise InputError(
            f"{name} must have the shape of {like_name}, {like.shape}, or broadcast to it; got {table.shape}"
        ) from None


def fraction(value: float, name: str, *, open_ends: bool = True) -> float:
    """Return `value` if it lies in (0, 1), or in [0, 1] when `open_ends` is false.

    Raises:
        InputError: outside.
    """
    inside = 0 < value < 1 if open_ends else 0 <= value <= 1  # False for NaN
    if not inside:
        hint = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else ""  # a percentage is the usual slip
        raise InputError(f"{name} must be a fraction between 0 and 1, got {value}{hint}")
    return float(value)


def at_least(value: int, smallest: int, name: str) -> int:
    """Return `value` if it is a whole number of at least `smallest`.

    Raises:
        InputError: below, or not a whole number.
    """
    if int(value) != value or value < smallest:
        raise InputError(f"{name} must be a whole number of at least {smallest}, got {value}")
    return int(value)


def _as_float(values: ArrayLike, name: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must be numbers in a rectangular array; got {type(values).__name__}: {error}"
        ) from None
