"""The maximum of a concave quadratic over a box, for many quadratics at once."""

from __future__ import annotations

import numpy as np

from evomerge._arguments import Array, Mask

MOST_SWEEPS = 500
# A quadratic counts as concave if its largest eigenvalue is below minus this fraction of the largest magnitude.
CONCAVE_MARGIN = 1e-9


def box_maxima(curvature: Array, slope: Array, box: Array) -> tuple[Array, Mask]:
    """Return the maximisers of b'c + c'A c / 2 over a box, and whether each is the certain global maximum.

    Concave quadratics (A negative definite) have one maximum, c = -A^-1 b if that is inside the box; otherwise
    coordinate ascent finds it on the border, and the free coordinates are solved for exactly at the end. For the
    others the result is a point that no single coordinate can improve.

    Args:
        curvature: (q, K, K) symmetric A.
        slope: (q, K) b.
        box: (K, 2) finite.

    Returns:
        c (q, K) inside the box, and certain (q,) boolean.
    """
    low, high = box.T
    k = slope.shape[1]
    values = np.linalg.eigvalsh(curvature)  # (q, K) ascending
    concave = values[:, -1] < -CONCAVE_MARGIN * np.abs(values).max(axis=1)
    c = np.broadcast_to((low + high) / 2, slope.shape).copy()
    if concave.any():
        c[concave] = np.clip(-np.linalg.solve(curvature[concave], slope[concave, :, None])[..., 0], low, high)
    diagonal = curvature[:, np.arange(k), np.arange(k)]
    for _ in range(MOST_SWEEPS):  # coordinate ascent, each coordinate solved exactly
        before = c.copy()
        for j in range(k):
            # derivative by c_j at c_j = 0
            pull = slope[:, j] + np.einsum("qk,qk->q", curvature[:, j], c) - diagonal[:, j] * c[:, j]
            bends_down = diagonal[:, j] < 0
            peak = np.divide(-pull, diagonal[:, j], out=np.zeros_like(pull), where=bends_down)
            # without downward bend the maximum along c_j is at an end of its range
            end = np.where(_gain(diagonal[:, j], pull, high[j]) >= _gain(diagonal[:, j], pull, low[j]), high[j], low[j])
            c[:, j] = np.where(bends_down, np.clip(peak, low[j], high[j]), end)
        if np.abs(c - before).max(initial=0.0) <= 1e-10 * float((high - low).max()):
            break
    for index in np.flatnonzero(concave):
        c[index] = _polished(curvature[index], slope[index], c[index], low, high)
    return c, concave


def _gain(diagonal: Array, pull: Array, at: float) -> Array:
    return np.asarray(diagonal * at**2 / 2 + pull * at)


def _polished(curvature: Array, slope: Array, c: Array, low: Array, high: Array) -> Array:
    """Return the exact maximum given which coordinates sit on the border; `c` itself if that leaves the box."""
    free = (c > low) & (c < high)
    if not free.any():
        return c
    solved = c.copy()
    solved[free] = np.linalg.solve(
        curvature[np.ix_(free, free)], -slope[free] - curvature[np.ix_(free, ~free)] @ c[~free]
    )
    inside = (solved >= low).all() and (solved <= high).all()
    return solved if inside else c
