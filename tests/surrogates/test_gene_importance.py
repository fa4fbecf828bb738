import numpy as np
import pytest
from scipy.stats import spearmanr

from evomerge.errors import InputError
from evomerge.surrogates import (
    binned_variance_fractions,
    partial_rank_correlation,
    path_between,
    rank_correlation,
    slice_points,
    sobol_indices,
)
from evomerge.surrogates._features import features
from evomerge.surrogates._quadratic import fit


def test_variance_shares_equal_simulated_sobol_indices():
    rng = np.random.default_rng(0)
    beta, c = rng.normal(size=10), rng.random((30, 3))
    shares = sobol_indices(fit(c, features(c) @ beta, complexity="full", ridge=0.0))
    assert shares.first.sum() + shares.pairs.sum() / 2 == pytest.approx(1.0)
    a, b = rng.random((200_000, 3)), rng.random((200_000, 3))
    ya, yb = features(a) @ beta, features(b) @ beta
    assert shares.sd == pytest.approx(ya.std(), rel=0.01)
    for gene in range(3):
        mixed = b.copy()
        mixed[:, gene] = a[:, gene]
        ym = features(mixed) @ beta
        assert shares.first[gene] == pytest.approx(np.cov(ya, ym)[0, 1] / ya.var(), abs=0.02)
        assert shares.total[gene] == pytest.approx(np.mean((yb - ym) ** 2) / 2 / ya.var(), abs=0.02)


def test_shares_of_a_constant_are_zero():
    shares = sobol_indices(fit(np.random.default_rng(0).random((9, 2)), np.ones(9)))
    assert shares.total.tolist() == [0.0, 0.0]
    assert shares.sd == 0


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(1)
    genes, scores = rng.integers(0, 5, (40, 3)).astype(float), rng.normal(size=(40, 2))
    scores[:, 0] += genes[:, 1]
    scores[7, 1] = np.nan
    found = rank_correlation(genes, scores)
    keep = np.arange(40) != 7
    for gene in range(3):
        for objective in range(2):
            expected = spearmanr(genes[keep, gene], scores[keep, objective]).statistic
            assert found[gene, objective] == pytest.approx(expected)


def test_partial_correlation_sees_through_a_correlated_gene():
    rng = np.random.default_rng(2)
    driver = rng.random(300)
    genes = np.column_stack([driver, driver + 0.3 * rng.random(300)])
    scores = driver[:, None] + 0.05 * rng.normal(size=(300, 1))
    assert rank_correlation(genes, scores)[1, 0] > 0.7
    partial = partial_rank_correlation(genes, scores)
    assert partial[0, 0] > 0.8
    assert abs(partial[1, 0]) < 0.2


def test_binned_shares_find_influence_of_any_shape_and_categories():
    rng = np.random.default_rng(3)
    genes = np.column_stack([rng.random(400), rng.random(400), rng.integers(0, 3, 400)])
    scores = np.column_stack([(genes[:, 0] - 0.5) ** 2, np.array([1.0, 5.0, 2.0])[genes[:, 2].astype(int)]])
    shares = binned_variance_fractions(genes, scores)
    assert shares[0, 0] > 0.6
    assert shares[1].max() < 0.05
    assert shares[2, 1] == pytest.approx(1.0)
    assert abs(rank_correlation(genes, scores)[0, 0]) < 0.2  # which is why it is worth having


def test_degenerate_tables_give_zero():
    for function in (rank_correlation, partial_rank_correlation, binned_variance_fractions):
        assert not function(np.zeros((10, 2)), np.random.default_rng(0).random((10, 1))).any()
        assert not function(np.random.default_rng(0).random((10, 2)), np.ones((10, 1))).any()
        assert function(np.empty((0, 2)), np.empty((0, 3))).shape == (2, 3)
        assert not function([[1.0, 2.0]], [[1.0]]).any()
        assert not function(np.random.default_rng(0).random((5, 2)), np.full((5, 1), np.nan)).any()
        with pytest.raises(InputError, match="one row per candidate"):
            function(np.zeros((3, 2)), np.zeros((4, 1)))


def test_points_along_a_gene_and_along_a_path():
    assert slice_points([0.1, 0.2], 1, [0.0, 1.0]).tolist() == [[0.1, 0.0], [0.1, 1.0]]
    with pytest.raises(InputError, match="gene must be"):
        slice_points([0.1, 0.2], 2, [0.0])
    assert path_between([0.0, 1.0], [1.0, 0.0], 3).tolist() == [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
