"""Quadratic surrogates of an objective in the merge coefficients (MAP), with honest errors.

Near the base model, and often far from it, a metric of a merged model is close to a quadratic in the merge
coefficients, on the scale of a link (`links`). One surrogate is fitted per objective. Its complexity may grow with the
data, and leave-one-out error selects it.

Source: Li et al. 2024, 'MAP: Low-compute Model Merging with Amortized Pareto Fronts via Quadratic
Approximation'. Ours: closed-form weighted ridge with the noise of each measurement, instead of an unweighted
Levenberg-Marquardt fit; leave-one-out choice of ridge and complexity; what the quadratic cannot express is estimated
as misfit and widens every interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, same_shape, score_table
from evomerge.errors import InputError
from evomerge.surrogates._diagnostics import diagnose
from evomerge.surrogates._features import COMPLEXITIES, Complexity, centred_features, coefficient_count
from evomerge.surrogates._fitting import posterior, select, solve
from evomerge.surrogates._links import LinkName, link_named
from evomerge.surrogates._observations import Observations, box_around, observations
from evomerge.surrogates._regression import row_forms
from evomerge.surrogates._surrogate import Surrogate

# Relative to the mean weight, on coefficients of a box scaled to [-1, 1].
RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
# `auto` uses a complexity only with this many distinct points per coefficient.
POINTS_PER_COEFFICIENT = 1.5


def points_needed(dimensions: int, complexity: Complexity = "full") -> int:
    """Return the number of distinct points for a surrogate of K `dimensions`, `POINTS_PER_COEFFICIENT` each.

    >>> points_needed(3, "linear"), points_needed(3)
    (6, 15)
    """
    return int(np.ceil(POINTS_PER_COEFFICIENT * coefficient_count(dimensions, complexity)))


def richest_complexity(dimensions: int, points: int) -> Complexity | None:
    """Return the richest complexity that so many points allow; None if there are too few even for a constant."""
    allowed = [level for level in COMPLEXITIES if points >= points_needed(dimensions, level)]
    return allowed[-1] if allowed else None


def fit(
    c: ArrayLike,
    y: ArrayLike,
    *,
    link: LinkName = "identity",
    items: ArrayLike | None = None,
    stderr: ArrayLike | None = None,
    shared_items: bool = False,
    complexity: Complexity | Literal["auto"] = "auto",
    ridge: float | Literal["auto"] = "auto",
    box: ArrayLike | None = None,
    refine: bool = True,
    name: str = "y",
) -> Surrogate:
    """Return the quadratic surrogate of one objective.

    Args:
        c: (n, K) merge coefficients that were evaluated.
        y: (n,) metric there, higher is better; NaN marks failures, which are left out.
        link: 'logit' for shares in [0, 1], 'softplus' for positive metrics, 'identity' otherwise.
        items: (n,) or scalar, items behind each metric: the noise of a share, or relative weights.
        stderr: (n,) or scalar standard errors instead. Without either the noise is learned from the residuals.
        shared_items: whether every row answered the same items. Their common error then does not show in the
            residuals, so all of these may be misfit; intervals are for the score on those items. The noise still
            gives the weights.
        complexity: 'constant', 'linear', 'diagonal' (no products), 'full', or 'auto': of those with at least
            `POINTS_PER_COEFFICIENT` distinct points per coefficient the richest, unless a simpler one has a clearly
            lower leave-one-out error. A constant objective is fitted by a constant. Decisions: `diagnostics.notes`.
        ridge: penalty relative to the mean weight (the constant is free), or 'auto': of `RIDGES` by leave-one-out.
        box: (K, 2) region of interest, default [0, 1] widened to hold all points. Scales the ridge, bounds fronts.
        refine: finish with damped Gauss-Newton steps on the metric's own scale, which removes the bias of
            transforming noisy metrics. No effect with the identity.
        name: what to call the objective in messages.

    Raises:
        InputError: shapes or ranges are wrong, every y is NaN, the box is empty, or an explicit complexity has more
            coefficients than distinct points and no positive ridge.
    """
    chosen_link = link_named(link)
    data = observations(c, y, chosen_link, items=items, stderr=stderr, shared_items=shared_items, name=name)
    bounds = box_around(c, box)
    if ridge != "auto" and not ridge >= 0:
        raise InputError(f"ridge must be at least 0 or 'auto', got {ridge}")
    candidates, notes = _complexities(data, bounds, complexity, ridge, name)
    ridges = RIDGES if ridge == "auto" else (float(ridge),)
    misfit = 0.0
    for _ in range(2):  # selection depends on the misfit and the misfit on the selection: two passes settle them
        best, penalty = select(data, chosen_link, bounds, candidates, ridges, misfit)
        solution, misfit, mean = solve(data, chosen_link, bounds, best, penalty, refine)
    matrix = centred_features(data.c, bounds, best)
    covariance, dof, misfit_sd = posterior(data, solution, misfit)
    geometry, max_leverage = _geometry(matrix)  # unweighted: leverage is about where points lie, not how sure they are
    return Surrogate(
        complexity=best,
        link=chosen_link,
        box=bounds,
        centred=solution.fit.coefficients,
        covariance=covariance,
        dof=dof,
        misfit_sd=misfit_sd,
        geometry=geometry,
        max_leverage=max_leverage,
        diagnostics=diagnose(data, chosen_link, solution.fit, mean, solution.working, penalty, misfit_sd, notes),
    )


def fit_objectives(
    c: ArrayLike,
    scores: ArrayLike,
    *,
    links: Sequence[LinkName] | LinkName = "identity",
    items: ArrayLike | None = None,
    stderr: ArrayLike | None = None,
    shared_items: bool = False,
    complexity: Complexity | Literal["auto"] = "auto",
    ridge: float | Literal["auto"] = "auto",
    box: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Surrogate, ...]:
    """Return one surrogate per objective, on a shared box.

    Args:
        c: (n, K) merge coefficients.
        scores: (n, T), higher is better; NaN marks a failure, per objective.
        links: one link for all objectives or T of them.
        items: items behind each score, broadcast to (n, T); or
        stderr: standard errors, broadcast to (n, T).
        shared_items: as for `fit`.
        complexity: as for `fit`, chosen per objective when 'auto'.
        ridge: as for `fit`.
        box: as for `fit`.
        names: (T,) names for messages.

    Raises:
        InputError: as for `fit`, naming the objective.
    """
    table = score_table(scores)
    count = table.shape[1]
    each = [links] * count if isinstance(links, str) else list(links)
    labels = [f"objective {t}" for t in range(count)] if names is None else [str(name) for name in names]
    if len(each) != count or len(labels) != count:
        raise InputError(f"links and names must have one entry per objective, {count}; got {len(each)}, {len(labels)}")
    bounds = box_around(c, box)  # shared, so that points and leverages of the surrogates are comparable
    counts = None if items is None else same_shape(items, table, "items")
    errors = None if stderr is None else same_shape(stderr, table, "stderr")
    return tuple(
        fit(
            c,
            table[:, t],
            link=each[t],
            items=None if counts is None else counts[:, t],
            stderr=None if errors is None else errors[:, t],
            shared_items=shared_items,
            complexity=complexity,
            ridge=ridge,
            box=bounds,
            name=labels[t],
        )
        for t in range(count)
    )


def _complexities(
    data: Observations, box: Array, requested: str, ridge: float | str, name: str
) -> tuple[list[Complexity], tuple[str, ...]]:
    """Return the complexities to try, and notes on excluded rows and complexities."""
    k, distinct, rows = len(box), data.distinct, len(data.y)
    notes = [f"{len(data.used) - rows} of {len(data.used)} evaluations failed and were excluded"]
    notes = notes if rows < len(data.used) else []
    if distinct < rows:
        notes.append(f"{rows} evaluations of {distinct} distinct points")
    if requested != "auto":
        explicit = next((known for known in COMPLEXITIES if known == requested), None)
        count = coefficient_count(k, explicit if explicit is not None else requested)  # type: ignore[arg-type]
        assert explicit is not None
        # repeated points inform about noise, not about coefficients
        if distinct < count and (ridge == "auto" or ridge == 0):
            raise InputError(
                f"complexity {requested!r} of {name} has {count} coefficients and needs as many distinct points, "
                f"got {distinct}. Evaluate more points, use complexity 'auto', or give a ridge above 0"
            )
        return [explicit], tuple(notes)
    if np.ptp(data.y) <= 1e-12 * max(1.0, float(np.abs(data.y).max())):
        notes.append("constant objective: it cannot guide a search and is fitted by a constant")
        return ["constant"], tuple(notes)
    allowed = [level for level in COMPLEXITIES if level == "constant" or distinct >= points_needed(k, level)]
    if "full" not in allowed:
        notes.append(f"{distinct} distinct points allow at most {allowed[-1]!r}; 'full' needs {points_needed(k)}")
    if k == 1 and "full" in allowed:
        allowed.remove("diagonal")  # without products the two are the same
    return allowed, tuple(notes)


def _geometry(matrix: Array) -> tuple[Array, float]:
    """Return the inverse moment matrix of the design, barely regularised, and its largest leverage."""
    moments = matrix.T @ matrix  # (p, p)
    inverse = np.linalg.inv(moments + 1e-9 * np.trace(moments) / len(moments) * np.eye(len(moments)))
    return inverse, float(row_forms(matrix, inverse).max())
