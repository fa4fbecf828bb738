import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.pareto import representatives, simplex_weights
from evomerge.surrogates import anchor_points, d_optimal, initial_design, sobol_points
from evomerge.surrogates._box_quadratic import box_maxima
from evomerge.surrogates._features import centred_features, coefficient_count


def test_anchors():
    assert anchor_points(2).tolist() == [[0.5, 0.5], [1, 0], [0, 1], [0, 0]]
    assert anchor_points(1).tolist() == [[1.0], [0.0]]
    assert anchor_points(2, [0.0, 0.4]).tolist() == [[0.4, 0.4], [0.4, 0], [0, 0.4], [0, 0]]


def test_sobol_points_lie_in_the_box_and_depend_on_the_generator_alone():
    box = np.array([[-1.0, 1.0], [2.0, 3.0]])
    points = sobol_points(37, 2, np.random.default_rng(0), box)
    assert points.shape == (37, 2)
    assert ((points >= box[:, 0]) & (points <= box[:, 1])).all()
    assert (points == sobol_points(37, 2, np.random.default_rng(0), box)).all()
    assert (points != sobol_points(37, 2, np.random.default_rng(1), box)).any()
    assert sobol_points(0, 2, np.random.default_rng(0)).shape == (0, 2)
    even = sobol_points(64, 1, np.random.default_rng(0))[:, 0]
    assert np.bincount((even * 64).astype(int), minlength=64).tolist() == [1] * 64


def determinant(points, complexity="full"):
    basis = centred_features(points, np.tile([0.0, 1.0], (points.shape[1], 1)), complexity)
    return np.linalg.det(basis.T @ basis)


def test_d_optimal_beats_random_choices_and_finds_the_known_optimum():
    rng = np.random.default_rng(0)
    pool = rng.random((100, 2))
    chosen = pool[d_optimal(pool, 9, box=[0.0, 1.0])]
    assert determinant(chosen) > max(determinant(pool[rng.choice(100, 9, replace=False)]) for _ in range(200))
    # the D-optimal design of a parabola is its ends and middle
    line = np.linspace(0, 1, 11)[:, None]
    assert sorted(line[d_optimal(line, 3)][:, 0]) == pytest.approx([0.0, 0.5, 1.0])


def test_d_optimal_edges():
    pool = np.random.default_rng(0).random((5, 2))
    assert sorted(d_optimal(pool, 5)) == [0, 1, 2, 3, 4]
    assert d_optimal(pool, 0).shape == (0,)
    assert len(set(d_optimal(np.zeros((4, 2)), 3).tolist())) == 3  # equal candidates are still different rows
    with pytest.raises(InputError, match="at most the 5 candidates"):
        d_optimal(pool, 6)


@pytest.mark.parametrize(("count", "k"), [(0, 3), (1, 3), (4, 3), (12, 3), (40, 4), (10, 1)])
def test_initial_designs(count, k):
    design = initial_design(count, k, np.random.default_rng(1))
    assert design.shape == (count, k)
    assert len(np.unique(design, axis=0)) == count
    assert ((design >= 0) & (design <= 1)).all()
    anchors = anchor_points(k)[:count]
    assert design[: len(anchors)].tolist() == anchors.tolist()
    assert (design == initial_design(count, k, np.random.default_rng(1))).all()


def test_initial_design_determines_the_full_quadratic():
    for k in (2, 3, 5):
        design = initial_design(int(1.5 * coefficient_count(k)) + 1, k, np.random.default_rng(k))
        basis = centred_features(design, np.tile([0.0, 1.0], (k, 1)), "full")
        assert np.linalg.cond(basis) < 50


@pytest.mark.parametrize(("m", "count"), [(1, 5), (2, 11), (3, 66), (5, 100), (8, 20)])
def test_simplex_weights(m, count):
    weights = simplex_weights(m, count)
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(weights)))
    assert (weights >= 0).all()
    assert len(np.unique(weights.round(9), axis=0)) == len(weights)
    for t in range(m):
        assert np.eye(m)[t].tolist() in weights.tolist()
    if (m, count) in {(2, 11), (3, 66)}:
        assert len(weights) == count
    if m == 8:
        assert weights.min(axis=1).max() > 0  # some weight is inside


def test_representatives_keep_the_ends_and_spread():
    x = np.sort(np.random.default_rng(0).random(200))
    front = np.stack([x, -x], axis=1)
    rows = representatives(front, 11)
    assert rows[0] == 0
    assert rows[-1] == 199
    assert np.diff(x[rows]).max() < 0.2
    assert representatives(front, 500).tolist() == list(range(200))
    assert len(set(representatives(np.zeros((5, 2)), 3).tolist())) == 3
    assert representatives([[0, 1], [1, 0]], 1).tolist() == [1]


def test_box_maxima_against_a_dense_grid():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(50, 2, 2))
    curvature = -root @ root.transpose(0, 2, 1) - 0.1 * np.eye(2)
    slope = rng.normal(size=(50, 2))
    box = np.array([[0.0, 1.0], [-1.0, 0.5]])
    c, certain = box_maxima(curvature, slope, box)
    assert certain.all()
    assert ((c >= box[:, 0]) & (c <= box[:, 1])).all()
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 101), np.linspace(-1, 0.5, 151)), axis=-1).reshape(-1, 2)

    def value(points, a, b):
        return points @ b + np.einsum("nk,kl,nl->n", points, a, points) / 2

    for point, a, b in zip(c, curvature, slope, strict=True):
        assert value(point[None], a, b)[0] >= value(grid, a, b).max() - 1e-12


def test_indefinite_quadratics_are_not_certain_but_cannot_be_improved_along_an_axis():
    c, certain = box_maxima(np.array([np.diag([1.0, -2.0])]), np.array([[0.1, 1.0]]), np.array([[0.0, 1.0]] * 2))
    assert not certain.any()
    assert c.tolist() == [[1.0, 0.5]]
