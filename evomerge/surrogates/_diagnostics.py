"""Diagnostics of a surrogate: in-sample and leave-one-out errors, noise floor, conditioning, lack of fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from evomerge._arguments import Array, Mask
from evomerge.surrogates._links import Link
from evomerge.surrogates._observations import Observations
from evomerge.surrogates._regression import RidgeFit


@dataclass(frozen=True)
class Diagnostics:
    """Quality of a surrogate's fit. Sds and predictions are in the metric's unit."""

    used: Mask  # (rows given,) False where the metric was NaN
    parameters: int  # coefficients of the chosen complexity
    effective_parameters: float  # fewer with a ridge
    ridge: float  # relative to the mean weight
    r2: float  # fraction of the metric's variance explained; NaN if the metric is constant
    loo_r2: float  # the same under leave-one-out, against the mean of the others; NaN as above or for one row
    residual_sd: float  # root mean squared residual, degrees of freedom not corrected
    loo_sd: float  # root mean squared leave-one-out error; inf if some row cannot be left out
    noise_floor: float | None  # root mean squared standard error of the measurements; None if not known
    misfit_sd: float  # sd that no quadratic explains, near the middle of the metric's values; inf if not estimable
    condition: float  # condition number of the weighted, penalised design; inf if its rank is short
    lack_of_fit: float | None  # p-value of the lack-of-fit F test; None without repeated points
    fitted: Array  # (used rows,) fitted metric
    left_out: Array  # (used rows,) metric predicted from the other rows; NaN if they cannot
    notes: tuple[str, ...]  # decisions of the fit, as sentences


def diagnose(
    data: Observations,
    link: Link,
    fit: RidgeFit,
    mean: Array,
    working: Array,
    ridge: float,
    misfit_sd: float,
    notes: tuple[str, ...],
) -> Diagnostics:
    """Return the diagnostics of one fit.

    Args:
        data: what was fitted, n rows.
        link: its link.
        fit: the last weighted least-squares step, on the link scale.
        mean: (n,) fitted metric.
        working: (n,) link-scale target of that step.
        ridge: relative penalty.
        misfit_sd: link-scale misfit.
        notes: decisions so far.
    """
    weight = data.importance(link)  # (n,) sum 1
    left_out_error = fit.leave_one_out
    known = np.isfinite(left_out_error)
    left_out = np.full(len(mean), np.nan)
    left_out[known] = link.inverse(working[known] - left_out_error[known])
    average = float(weight @ data.y)
    spread = float(weight @ (data.y - average) ** 2)
    constant = spread <= 1e-24 * max(1.0, average**2)
    squared = float(weight @ (data.y - mean) ** 2)
    loo_squared = float(weight @ (data.y - left_out) ** 2) if known.all() else np.inf
    # squared error of predicting each row by the mean of the other rows: the baseline of leave-one-out R2
    others = np.sum(weight * ((data.y - average) / np.maximum(1.0 - weight, 1e-12)) ** 2)
    noise = float(np.sqrt(weight @ data.response_variance(link, mean))) if data.noise_known else None
    return Diagnostics(
        used=data.used,
        parameters=len(fit.coefficients),
        effective_parameters=fit.effective_parameters,
        ridge=ridge,
        r2=float("nan") if constant else 1.0 - squared / spread,
        loo_r2=float("nan") if constant or len(mean) < 2 else 1.0 - loo_squared / float(others),
        residual_sd=float(np.sqrt(squared)),
        loo_sd=float(np.sqrt(loo_squared)),
        noise_floor=noise,
        misfit_sd=float(misfit_sd * link.slope(link.forward(average, None))) if misfit_sd else 0.0,
        condition=fit.condition,
        lack_of_fit=lack_of_fit(data.c, working, working - fit.residuals, fit.effective_parameters),
        fitted=mean,
        left_out=left_out,
        notes=notes,
    )


def lack_of_fit(c: Array, y: Array, fitted: Array, parameters: float) -> float | None:
    """Return the p-value of the F test that the fit misses more than repeated points differ among themselves.

    Args:
        c: (n, K) points, some repeated.
        y: (n,) measurements on the scale of the fit.
        fitted: (n,) fit.
        parameters: (effective) number of coefficients.

    Returns:
        p-value, small if the shape is wrong; None without repeats or without distinct points to spare.

    Source: Draper and Smith 1998, 'Applied regression analysis', section 2.1.
    """
    unique, group = np.unique(c, axis=0, return_inverse=True)
    group = group.reshape(-1)
    within, between = len(y) - len(unique), len(unique) - parameters
    if within < 1 or between <= 0:
        return None
    means = np.bincount(group, y) / np.bincount(group)
    pure = float(((y - means[group]) ** 2).sum())
    lack = max(float(((y - fitted) ** 2).sum()) - pure, 0.0)
    if pure <= 1e-24 * max(1.0, float((y**2).sum())):
        return None  # repeats agree exactly: the measurement is deterministic and repeats tell nothing about noise
    return float(fdtrc(between, within, (lack / between) / (pure / within)))
