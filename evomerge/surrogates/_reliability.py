"""How far to believe a predicted front: reasons to doubt it beforehand, and the comparison once it is re-measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, score_table
from evomerge.errors import InputError
from evomerge.surrogates._predicted_front import PredictedFront
from evomerge.surrogates._surrogate import Surrogate

# Leave-one-out R2 below the first is weak; from the second on, noise no longer matters.
WEAK_R2, GOOD_R2 = 0.5, 0.9
# Errors count as mostly noise if the noise floor exceeds this fraction of the leave-one-out error.
NOISY_FRACTION = 0.9
# A p-value of the lack-of-fit test below this means that the surface is not quadratic.
WRONG_SHAPE = 0.01
ILL_CONDITIONED = 1e8


@dataclass(frozen=True)
class FrontCheck:
    """Predicted against measured scores per objective, (T,), from re-measuring a predicted front."""

    bias: Array  # mean of predicted minus measured; positive by selection, since optima are picked on predictions
    rmse: Array  # root mean squared difference
    coverage: Array  # fraction of measured scores inside the interval of the front's level


def check_front(front: PredictedFront, measured: ArrayLike, stderr: ArrayLike = 0.0) -> FrontCheck:
    """Return how the front's predictions compare with measurements of its points.

    Args:
        front: f predicted points.
        measured: (f, T) scores of the same points; rows or entries of NaN are left out.
        stderr: their standard errors, broadcast to (f, T); they widen the intervals.

    Raises:
        InputError: shapes differ, or an objective was not measured at all.
    """
    table = score_table(measured, "measured")
    if table.shape != front.scores.shape:
        raise InputError(f"measured must be {front.scores.shape}, one row per point of the front; got {table.shape}")
    if np.isnan(table).all(axis=0).any():
        raise InputError("measured must have at least one score per objective; one has none")
    gap = front.scores - table
    # The interval's width is proportional to the prediction's sd, so measurement noise widens it by this factor.
    noise = np.broadcast_to(np.asarray(stderr, dtype=np.float64), table.shape)
    widening = np.divide(np.hypot(front.sd, noise), front.sd, out=np.ones_like(gap), where=front.sd > 0)
    inside = (gap <= (front.scores - front.low) * widening) & (-gap <= (front.high - front.scores) * widening)
    known = ~np.isnan(table)
    return FrontCheck(
        bias=np.nanmean(gap, axis=0),
        rmse=np.sqrt(np.nanmean(gap**2, axis=0)),
        coverage=np.asarray((inside & known).sum(axis=0) / known.sum(axis=0)),
    )


def reliability_warnings(
    surrogates: Sequence[Surrogate], front: PredictedFront | None = None, names: Sequence[str] = ()
) -> list[str]:
    """Return reasons why the predictions may be unreliable, one sentence each; empty if there are none.

    Args:
        surrogates: T of them.
        front: their front, if there is one.
        names: (T,) names of the objectives for the warnings.
    """
    warnings = []
    for index, fit in enumerate(surrogates):
        name = names[index] if index < len(names) else f"objective {index}"
        found = fit.diagnostics
        if np.isnan(found.loo_r2):
            warnings.append(f"{name}: the metric is constant over the evaluated points, nothing can be predicted")
            continue
        if found.loo_r2 < WEAK_R2:
            warnings.append(f"{name}: leave-one-out R2 is {found.loo_r2:.2f}, close to predicting the mean")
        if (
            found.noise_floor is not None
            and found.noise_floor > NOISY_FRACTION * found.loo_sd
            and found.loo_r2 < GOOD_R2
        ):
            warnings.append(f"{name}: errors are mostly measurement noise ({found.noise_floor:.3g}); use more items")
        if found.lack_of_fit is not None and found.lack_of_fit < WRONG_SHAPE:
            warnings.append(f"{name}: repeated points show that the surface is not quadratic; shrink the box")
        if not np.isfinite(found.condition) or found.condition > ILL_CONDITIONED:
            warnings.append(f"{name}: the evaluated points leave coefficients undetermined; evaluate more directions")
    if front is not None and front.extrapolates.any():
        outside = float(front.extrapolates.mean())
        warnings.append(f"{outside:.0%} of the front is extrapolated beyond all evaluated points")
    if front is not None and len(front.c) == 1 and len(surrogates) > 1:
        warnings.append("the predicted front is a single point: no trade-off between the objectives is predicted")
    return warnings
