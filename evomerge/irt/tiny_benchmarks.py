"""Item parameters from elsewhere: the tinyBenchmarks convention, turned into ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.errors import InputError
from evomerge.irt.calibrate import WIDE, ItemParameters
from evomerge.irt.curves import Array


def import_tiny_benchmarks(
    A: Array,
    B: Array,
    items: Sequence[str],
    wanted: Sequence[str] | None = None,
) -> tuple[ItemParameters, tuple[str, ...]]:
    """Return our parameters from tinyBenchmarks-style arrays, matched by item id.

    Their curve is `sigmoid(sum_k (a_k theta_k - b))`: the one stored b is subtracted once per dimension, so its
    effect is
    `d * b`. Ours is `a . theta - b`; the import multiplies by d.

    Args:
        A: discriminations, `(1, d, items)` as stored, or `(d, items)`.
        B: difficulties, `(1, 1, items)`, `(1, items)` or `(items,)`.
        items: ids of the columns, by the text of the item (`table.item_id`): the leaderboard's order is not the data
            set's, since the old harness shuffled.
        wanted: ids to return, in this order; all by default.

    Returns:
        Parameters without calibration models (abilities are taken as standard normal), and their ids.

    Raises:
        InputError: shapes disagree, an id repeats, or a wanted item is not there.
    """
    a = np.asarray(A, dtype=float)
    a = a[0] if a.ndim == 3 and a.shape[0] == 1 else a
    b = np.asarray(B, dtype=float).reshape(-1)
    if a.ndim != 2 or a.shape[1] != len(items) or len(b) != len(items):
        raise InputError(
            f"A must be (1, d, items) and B (1, 1, items) for {len(items)} items, got {np.shape(A)} and {np.shape(B)}"
        )
    if len(set(items)) != len(items):
        raise InputError("item ids must be unique; some repeat")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("A and B must be finite")
    place = {item: k for k, item in enumerate(items)}
    names = tuple(items if wanted is None else wanted)
    absent = [name for name in names if name not in place]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(names)} items have no imported parameters, e.g. {absent[0]!r}; "
            "match items by the hash of their text, and leave the others out"
        )
    order = np.array([place[name] for name in names], dtype=int)
    d = a.shape[0]
    size = len(order)
    return (
        ItemParameters(
            a=a[:, order].T.copy(),
            b=d * b[order],
            covariance=np.zeros((size, d + 1, d + 1)),
            ability_mean=np.zeros(d),
            ability_precision=np.eye(d) * WIDE.ability_precision,
            theta=np.zeros((0, d)),
            theta_covariance=np.zeros((0, d, d)),
        ),
        names,
    )
