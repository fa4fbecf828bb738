"""Links between a metric and the scale on which it is quadratic: logit for fractions, softplus for losses, identity.

A link maps a metric y to z, where the surrogate is a polynomial and may take any value; its inverse maps back into
the metric's range, so a predicted accuracy never leaves [0, 1]. All three rise with y: dominance is the same on
either scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from evomerge._arguments import Array, same_shape
from evomerge.errors import InputError, near

LinkName = Literal["logit", "softplus", "identity"]

# An exact fraction (no number of items) is kept this far from 0 and 1, where the logit is infinite.
MARGIN = 1e-9


@dataclass(frozen=True)
class Link:
    """One link function, by name; stateless."""

    name: LinkName

    def inverse(self, z: ArrayLike) -> Array:
        """Return the metric at link-scale values `z`, same shape."""
        z = np.asarray(z, dtype=np.float64)
        if self.name == "logit":
            return np.asarray(expit(z))
        if self.name == "softplus":
            return np.logaddexp(0.0, z)  # log(1 + exp(z)) without overflow
        return z.copy()

    def slope(self, z: ArrayLike) -> Array:
        """Return the derivative of `inverse` at `z`, same shape; positive except where it underflows."""
        z = np.asarray(z, dtype=np.float64)
        if self.name == "logit":
            return np.asarray(expit(z) * expit(-z))  # 1 - expit(z) would cancel to 0 for large z
        if self.name == "softplus":
            return np.asarray(expit(z))
        return np.ones_like(z)

    def forward(self, y: ArrayLike, items: ArrayLike | None = None) -> Array:
        """Return link-scale values of metrics `y`.

        Args:
            y: any shape; fractions in [0, 1] for logit, positive for softplus. NaN stays NaN.
            items: number of items behind each fraction (logit only). With it, y is shrunk towards one half as
                (y n + 1/2) / (n + 1), so that 0 and 1 are finite; without it, y counts as exact and is only kept
                `MARGIN` away from 0 and 1.

        Raises:
            InputError: a metric outside the link's range.
        """
        values = self.check(y)
        if self.name == "logit":
            if items is not None:
                n = same_shape(items, values, "items", "y")  # inf marks an exact fraction
                values = np.where(np.isinf(n), values, (values * np.where(np.isinf(n), 1.0, n) + 0.5) / (n + 1.0))
            return np.asarray(logit(np.clip(values, MARGIN, 1 - MARGIN)))
        if self.name == "softplus":
            # log(exp(y) - 1), written so that a large y does not overflow
            return values + np.log(-np.expm1(-values))
        return values

    def check(self, y: ArrayLike) -> Array:
        """Return `y` as float64, refusing metrics outside the link's range; NaN passes."""
        values = np.array(y, dtype=np.float64)
        if np.isinf(values).any():
            raise InputError("y must be finite or NaN (a failed evaluation), got inf")
        if self.name == "logit" and ((values < 0) | (values > 1)).any():
            wrong = float(values[(values < 0) | (values > 1)].flat[0])
            raise InputError(
                f"y must be in [0, 1] for the logit link, got {wrong:g}. "
                "Divide percentages by 100, or use link 'identity' for unbounded metrics"
            )
        if self.name == "softplus" and (values <= 0).any():
            wrong = float(values[values <= 0].flat[0])
            raise InputError(f"y must be above 0 for the softplus link, got {wrong:g}. Use link 'identity'")
        return values


LINKS: dict[str, Link] = {"logit": Link("logit"), "softplus": Link("softplus"), "identity": Link("identity")}


def link_named(name: str) -> Link:
    """Return the link of that name.

    Raises:
        InputError: no such link.
    """
    if name not in LINKS:
        raise InputError(f"unknown link {name!r}. {near(name, LINKS)}")
    return LINKS[name]


def guess_link(y: ArrayLike) -> LinkName:
    """Return 'logit' if every metric lies in [0, 1], else 'identity'; NaN is ignored.

    Losses turned for maximisation are negative and get the identity; softplus is never guessed.

    >>> guess_link([0.2, float("nan"), 1.0]), guess_link([-1.3, 0.4])
    ('logit', 'identity')
    """
    values = np.asarray(y, dtype=np.float64)
    values = values[~np.isnan(values)]
    return "logit" if values.size and float(values.min()) >= 0 and float(values.max()) <= 1 else "identity"
