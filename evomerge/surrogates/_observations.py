"""Validated input of a surrogate: metrics at merge coefficients, with their noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, Mask, same_shape, score_table, vector
from evomerge.errors import InputError
from evomerge.surrogates._links import Link

# A score with standard error 0 among noisy ones weighs at most this many times the typical one.
LARGEST_WEIGHT_RATIO = 1e6


@dataclass(frozen=True)
class Observations:
    """Usable measurements of one objective: finite, checked against the link."""

    c: Array  # (n, K) coefficients
    y: Array  # (n,) metric
    items: Array | None  # (n,) number (or effective number) of items behind y
    variance: Array | None  # (n,) squared standard error of y, where it does not follow from items
    noise_known: bool  # whether the noise is known absolutely, not only relative to the other rows
    shared: bool  # whether all rows answered the same items, so that their errors are largely common
    used: Mask  # (rows given,) which of them these are

    def response_variance(self, link: Link, mean: Array) -> Array:
        """Return the variance of y around `mean`, (n,): absolute, or only relative if `noise_known` is False."""
        if link.name == "logit":
            n = np.full(len(self.y), np.inf) if self.items is None else self.items
            n = np.where(np.isinf(n), 1e9, n)
            drawn = (mean * n + 0.5) / (n + 1.0)  # a fitted 0 or 1 still leaves some variance
            return np.asarray(drawn * (1 - drawn) / (1.0 if self.items is None else n))
        if self.variance is not None:
            return self.variance
        return np.ones(len(self.y)) if self.items is None else 1.0 / self.items

    def importance(self, link: Link) -> Array:
        """Return the weight of each row in error sums on the metric's scale, (n,), sum 1."""
        if link.name == "logit":
            weight = np.ones(len(self.y)) if self.items is None else self.items
        else:
            weight = 1.0 / self.response_variance(link, self.y)
        return np.asarray(weight / weight.sum())

    @property
    def distinct(self) -> int:
        """Number of different points among the rows; repeats inform about noise, not about shape."""
        return len(np.unique(self.c, axis=0))


def observations(
    c: ArrayLike,
    y: ArrayLike,
    link: Link,
    *,
    items: ArrayLike | None = None,
    stderr: ArrayLike | None = None,
    shared_items: bool = False,
    name: str = "y",
) -> Observations:
    """Return the usable rows of one objective, checked.

    Args:
        c: (n, K) merge coefficients, finite.
        y: (n,) metric; NaN marks a failed evaluation, which is left out.
        link: the link that will be used.
        items: (n,) or scalar, number of items behind each metric. Determines the noise of a fraction; for other
            links it only gives relative weights.
        stderr: (n,) or scalar standard errors. Zeros everywhere mean that the noise is not known.
        shared_items: whether every row answered the same items.
        name: what to call `y` in messages.

    Raises:
        InputError: shapes do not match, both `items` and `stderr` are given, values outside their range, or no
            usable row.
    """
    points = score_table(c, "c")
    if not np.isfinite(points).all():
        raise InputError("c must be finite: a failed evaluation is a NaN in y, its coefficients are still known")
    metric = np.asarray(y, dtype=np.float64)
    if metric.shape != (len(points),):
        raise InputError(f"{name} must be ({len(points)},), one metric per row of c; got shape {metric.shape}")
    if items is not None and stderr is not None:
        raise InputError("give items or stderr, not both: each says how noisy y is")
    used = ~np.isnan(metric)
    if not used.any():
        raise InputError(
            f"{name} must have at least one value that is not NaN, got {len(metric)} rows without any. "
            "Every evaluation failed; look at their failure texts first"
        )
    metric = link.check(metric[used])
    count = _positive(items, points, used, "items") if items is not None else None
    errors = _errors(stderr, points, used) if stderr is not None else None
    if errors is not None and (errors == 0).all():
        errors = None  # exact everywhere: residuals are then misfit, and its size is estimated from them
    variance = None
    if errors is not None and link.name == "logit":
        count = _effective_items(metric, errors)
    elif errors is not None:
        variance = np.maximum(errors**2, np.median(errors[errors > 0] ** 2) / LARGEST_WEIGHT_RATIO)
    known = variance is not None or (link.name == "logit" and count is not None)
    return Observations(points[used], metric, count, variance, known, shared_items, used)


def box_around(c: ArrayLike, box: ArrayLike | None = None) -> Array:
    """Return the (K, 2) box of lows and highs: as given, or [0, 1] widened to hold all points.

    Raises:
        InputError: `box` is not (K, 2) or (2,), not finite, or a low is not below its high.
    """
    points = score_table(c, "c")
    k = points.shape[1]
    if box is None:
        if len(points) == 0:
            return np.tile([0.0, 1.0], (k, 1))
        return np.stack([np.minimum(points.min(axis=0), 0.0), np.maximum(points.max(axis=0), 1.0)], axis=1)
    bounds = np.asarray(box, dtype=np.float64)
    if bounds.shape == (2,):
        bounds = np.tile(bounds, (k, 1))
    if bounds.shape != (k, 2) or not np.isfinite(bounds).all() or (bounds[:, 0] >= bounds[:, 1]).any():
        raise InputError(
            f"box must be ({k}, 2): a low below a high, finite, for each of the {k} coefficients; "
            f"got {np.asarray(box).tolist()}"
        )
    return bounds


def _positive(values: ArrayLike, points: Array, used: Mask, name: str) -> Array:
    row = vector(same_shape(values, points[:, 0], name, "y"), len(points), name, "one value per row of c")[used]
    if (row <= 0).any():
        raise InputError(f"{name} must be above 0, got {row.min():g}. A candidate without items is a NaN in y")
    return row


def _errors(stderr: ArrayLike, points: Array, used: Mask) -> Array:
    row = same_shape(stderr, points[:, 0], "stderr", "y")[used]
    if not np.isfinite(row).all() or (row < 0).any():
        raise InputError("stderr must be finite and at least 0 wherever there is a metric. Use 0 if it is not known")
    return row


def _effective_items(y: Array, errors: Array) -> Array:
    """Return the numbers of binary items, (n,), whose fraction has these standard errors."""
    noisy = errors > 0
    reach = np.minimum(np.where(noisy, errors, 0.0), 0.5)
    inner = np.clip(y, reach, 1 - reach)  # a fraction of 0 or 1 with an error is not exact
    items = np.divide(inner * (1 - inner), errors**2, out=np.full(len(y), np.nan), where=noisy)
    typical = float(np.nanmedian(items))
    # An error of 0 is usually computed from a fraction of 0 or 1 itself: such a row is as certain as the others.
    at_bound = (y <= 0) | (y >= 1)
    items = np.where(noisy, items, np.where(at_bound, typical, typical * LARGEST_WEIGHT_RATIO))
    return np.maximum(items, 1e-3)
