import numpy as np
import pytest
from scipy.stats import binomtest

from evomerge.errors import InputError
from evomerge.irt.compare import (
    bootstrap_mean,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_interval,
    simultaneous_intervals,
    wilson,
)


def test_mcnemar_is_the_sign_test_on_items_that_differ():
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1, np.nan])
    second = np.array([0, 0, 0, 0, 1, 1, 0, 1, 1])
    assert mcnemar(first, second) == pytest.approx(binomtest(4, 5).pvalue)
    assert mcnemar(first, first) == 1.0


def test_mcnemar_refuses_graded_answers():
    with pytest.raises(InputError, match="paired_interval"):
        mcnemar(np.array([0.5]), np.array([0.0]))


@pytest.mark.parametrize("compare", [mcnemar, paired_interval])
def test_pairs_must_share_items(compare):
    with pytest.raises(InputError, match="same items"):
        compare(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="no answered item"):
        compare(np.array([1.0, np.nan]), np.array([np.nan, 1.0]))


def test_paired_interval_of_equal_models_is_not_a_point():
    found = paired_interval(np.ones(10), np.ones(10))
    assert found.difference == 0.0
    assert found.low < 0.0 < found.high
    assert found.p_value == pytest.approx(1.0)


def test_paired_intervals_cover_and_agree():
    rng = np.random.default_rng(0)
    analytic, resampled = [], []
    for _ in range(200):
        both = rng.random((2, 100)) < np.where(rng.random(100) < 0.5, 0.9, 0.3)
        flip = rng.random(100) < 0.15  # the first is worse by 0.15 * (answers right)
        first, second = np.where(flip, 0.0, both[0]), both[1].astype(float)
        truth = -0.15 * 0.6
        analytic.append(paired_interval(first, second, 0.9))
        resampled.append(paired_bootstrap(first, second, rng, 0.9, draws=300))
        assert abs(analytic[-1].stderr - resampled[-1].stderr) < 0.02
    for found in (analytic, resampled):
        assert 0.83 < np.mean([c.low <= truth <= c.high for c in found]) < 0.97


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.9])), [1.0, 1.0])


def test_simultaneous_intervals_hold_together_and_beat_single_ones():
    rng = np.random.default_rng(1)
    joint = []
    for _ in range(120):
        easy = np.where(rng.random(150) < 0.5, 0.8, 0.4)
        reference = (rng.random(150) < easy).astype(float)
        rows = (rng.random((5, 150)) < easy).astype(float)  # no finalist is truly better
        found = simultaneous_intervals(rows, reference, rng, 0.9, draws=400)
        joint.append(all(c.low <= 0.0 <= c.high for c in found))
    assert 0.83 < np.mean(joint) < 0.97
    alone = paired_interval(rows[0], reference, 0.9)
    assert found[0].high - found[0].low > alone.high - alone.low


def test_simultaneous_p_values_find_the_good_one():
    rng = np.random.default_rng(2)
    reference = (rng.random(300) < 0.5).astype(float)
    good = np.where(rng.random(300) < 0.4, 1.0, reference)
    found = simultaneous_intervals(np.stack([good, reference]), reference, rng)
    assert found[0].p_value < 0.01
    assert found[0].low > 0.0
    assert found[1].p_value == pytest.approx(1.0)


def test_simultaneous_intervals_refuse_holes():
    with pytest.raises(InputError, match="every answer"):
        simultaneous_intervals(np.array([[1.0, np.nan]]), np.zeros(2), np.random.default_rng(0))


def test_wilson_against_published_numbers():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        np.testing.assert_allclose(wilson(right, n), (low, high), atol=1e-4)
    with pytest.raises(InputError):
        wilson(3, 2)


def test_bootstrap_of_one_score():
    rng = np.random.default_rng(3)
    y = (rng.random(400) < 0.3).astype(float)
    low, high = bootstrap_mean(y, rng)
    np.testing.assert_allclose((low, high), wilson(y.sum(), 400), atol=0.01)
    with pytest.raises(InputError):
        bootstrap_mean(np.array([np.nan]), rng)
