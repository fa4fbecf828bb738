"""Import item parameters: the tinyBenchmarks convention, converted to ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.errors import InputError
from evomerge.irt._bank import Bank
from evomerge.irt._calibrate import WIDE, ItemParameters
from evomerge.irt._curves import Array, probabilities
from evomerge.irt._model_selection import IRTModelSpec
from evomerge.irt._performance import normalised
from evomerge.irt._table import ResponseTable

SIMULATED_MODELS = 400  # enough for stable covariances, still quick to calibrate on


def import_tiny_benchmarks(
    A: Array,
    B: Array,
    items: Sequence[str],
    wanted: Sequence[str] | None = None,
) -> tuple[ItemParameters, tuple[str, ...]]:
    """Return our parameters from tinyBenchmarks-style arrays, matched by item id.

    Their curve is `sigmoid(sum_k (a_k theta_k - b))`: the stored b is subtracted once per dimension, so its effect is
    `d * b`. Ours is `a . theta - b`; the import multiplies by d.

    Args:
        A: discriminations, `(1, d, items)` as stored, or `(d, items)`.
        B: difficulties, `(1, 1, items)`, `(1, items)` or `(items,)`.
        items: ids of the columns, by the text of the item (`item_id`): the leaderboard's order differs from the data
            set's, because the old harness shuffled.
        wanted: ids to return, in this order; all by default.

    Returns:
        Parameters without calibration models (abilities are taken as standard normal), and their ids.

    Raises:
        InputError: shapes disagree, an id repeats, or a wanted item is not there.
    """
    a = np.asarray(A, dtype=float)
    a = a[0] if a.ndim == 3 and a.shape[0] == 1 else a
    b = np.asarray(B, dtype=float).reshape(-1)  # (items,) for all three stored shapes
    if a.ndim != 2 or a.shape[1] != len(items) or len(b) != len(items):
        raise InputError(
            f"A must be (1, d, items) and B (1, 1, items) for {len(items)} items, got {np.shape(A)} and {np.shape(B)}"
        )
    if len(set(items)) != len(items):  # matching by id would silently pick one of them
        raise InputError("item ids must be unique; some repeat")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("A and B must be finite")
    column = {item: k for k, item in enumerate(items)}
    names = tuple(items if wanted is None else wanted)
    absent = [name for name in names if name not in column]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(names)} items have no imported parameters, e.g. {absent[0]!r}; "
            "match items by the hash of their text, and leave the others out"
        )
    order = np.array([column[name] for name in names], dtype=int)
    d = a.shape[0]
    size = len(order)
    return (
        ItemParameters(
            a=a[:, order].T.copy(),
            b=d * b[order],
            covariance=np.zeros((size, d + 1, d + 1)),  # errors of imported parameters are unknown
            ability_mean=np.zeros(d),
            ability_precision=np.eye(d) * WIDE.ability_precision,
            theta=np.zeros((0, d)),
            theta_covariance=np.zeros((0, d, d)),
        ),
        names,
    )


def bank_from_parameters(
    parameters: ItemParameters,
    items: Sequence[str],
    rng: np.random.Generator,
    weights: Array | None = None,
    models: int = SIMULATED_MODELS,
) -> Bank:
    """Return a bank for imported parameters, whose calibration models are simulated from them.

    Anchors, covariances and intervals are fitted to calibration answers; these are drawn from the parameters. Intervals
    then hold only if the parameters are right for this task, prompt and population: check the estimates of models with
    known scores before trusting them.

    Args:
        parameters: from `import_tiny_benchmarks`.
        items: their ids.
        rng: draws abilities and answers.
        weights: of the items in the score; equal by default.
        models: how many to simulate.
    """
    spread = np.linalg.cholesky(np.linalg.inv(parameters.ability_precision))  # (d, d)
    theta = parameters.ability_mean + rng.standard_normal((models, parameters.d)) @ spread.T
    answers = (rng.random((models, len(items))) < probabilities(theta, parameters.a, parameters.b)).astype(float)
    names = tuple(f"simulated-{k:03d}" for k in range(models))
    known = ItemParameters(
        a=parameters.a,
        b=parameters.b,
        covariance=parameters.covariance,
        ability_mean=parameters.ability_mean,
        ability_precision=parameters.ability_precision,
        theta=theta,
        # simulated abilities are exact; a tiny covariance keeps Cholesky factors defined
        theta_covariance=np.zeros((models, parameters.d, parameters.d)) + 1e-6 * np.eye(parameters.d),
    )
    return Bank(
        table=ResponseTable(answers, names, tuple(items)),
        weights=normalised(weights, len(items)),
        model_spec=IRTModelSpec(parameters.d, WIDE),
        parameters=known,
        provenance={"models": models, "items": len(items), "simulated": True, "dims": parameters.d},
    )
