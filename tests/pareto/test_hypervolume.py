import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.pareto import hypervolume, hypervolume_history

from . import brute_force


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", ["general", "ties"])
def test_equals_inclusion_exclusion(m, kind):
    rng = np.random.default_rng(m)
    for _ in range(25):
        n = rng.integers(1, 9)
        scores = rng.random((n, m)) if kind == "general" else rng.integers(0, 4, (n, m)) / 4
        reference = np.full(m, 0.1)
        expected = brute_force.hypervolume(scores, reference)
        assert hypervolume(scores, reference) == pytest.approx(expected, abs=1e-12)
        assert hypervolume_history(scores, reference)[-1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_equals_counting_grid_cells(m):
    scores = np.random.default_rng(m).integers(1, 6, (12, m)) / 5
    cells = (np.stack(np.meshgrid(*[np.arange(5)] * m), axis=-1).reshape(-1, m) + 0.5) / 5
    covered = (cells[:, None] <= scores[None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(scores, np.zeros(m)) == pytest.approx(covered)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_simplex_front_has_the_known_volume(m):
    # points of the lattice sum(x) = d with x >= 1: their boxes are staircases under the simplex, counted exactly
    d = 7
    grid = np.stack(np.meshgrid(*[np.arange(1, d)] * m), axis=-1).reshape(-1, m)
    scores = grid[grid.sum(axis=1) == d]
    # unit cells with lower corner z >= 0 are covered when sum(z + 1) <= d: C(d, m) of them
    assert hypervolume(scores, np.zeros(m)) == pytest.approx(math.comb(d, m))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10_000))
def test_properties(m, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(8, m))
    scores[rng.random(scores.shape) < 0.05] = np.nan
    reference = np.full(m, -1.0)
    volume = hypervolume(scores, reference)
    history = hypervolume_history(scores, reference)
    assert (np.diff(history, prepend=0.0) >= 0).all()
    assert history[-1] == pytest.approx(volume)
    for i in (3, 5):
        assert history[i] == pytest.approx(hypervolume(scores[: i + 1], reference))
    assert hypervolume(scores[::-1], reference) == pytest.approx(volume)
    assert hypervolume(scores[:, ::-1], reference) == pytest.approx(volume)  # axes are alike
    assert hypervolume(2 * scores, 2 * reference) == pytest.approx(2**m * volume)
    assert hypervolume(np.vstack([scores, scores]), reference) == pytest.approx(volume)
    best = np.nanmax(scores, axis=0)
    assert volume <= np.prod(np.maximum(best - reference, 0)) + 1e-12


def test_what_counts():
    reference = [1.0, 1.0]
    assert hypervolume(np.empty((0, 2)), reference) == 0
    assert hypervolume([[1.0, 5.0], [5.0, 1.0], [0.0, 9.0], [np.nan, 9.0], [-np.inf, 2.0]], reference) == 0
    assert hypervolume([[2.0, 3.0]], reference) == 2.0
    assert hypervolume([[2.0, 3.0], [3.0, 2.0]], reference) == 3.0
    assert hypervolume_history(np.empty((0, 2)), reference).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "reference", "message"),
    [
        ([[1, 2]], [0, 0, 0], "reference must be"),
        ([[1, 2]], [0, -np.inf], "reference must be finite"),
        ([[1, 2]], [0, np.nan], "reference must not be NaN"),
        ([[1, np.inf]], [0, 0], "finite where they exceed"),
        ([1, 2], [0, 0], "scores must be"),
    ],
)
def test_bad_input(scores, reference, message):
    for function in (hypervolume, hypervolume_history):
        with pytest.raises(InputError, match=message):
            function(scores, reference)
