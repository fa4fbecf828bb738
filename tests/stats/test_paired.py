"""Paired means against SciPy, by hand and by simulation; used by races and by held-out comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evomerge.stats import (
    MeanDifference,
    bootstrap_means,
    max_t_deviations,
    mcnemar,
    normal_interval,
    paired_mean,
    weighted_sum,
)


def test_mean_of_right_and_wrong_answers() -> None:
    """Of 8 items out of 20 the reference alone is right on 4, the candidate alone on 1: (5 - 2) / 10, by hand."""
    found = paired_mean([1, 1, 1, 1, -1, 0, 0, 0], 20)
    assert found.value == pytest.approx(0.3)
    assert found.variance == pytest.approx((0.5 + 0.2 - 0.3**2) / 10 * (1 - 8 / 20))
    assert found.p_not_above() == pytest.approx(stats.norm.sf(0.3 / math.sqrt(found.variance)))


def test_mean_of_other_scores_is_student_s() -> None:
    pairs = [0.5, 0.25, -0.125, 0.375]
    found = paired_mean(pairs, 1_000_000_000)
    assert found.p_not_above() == pytest.approx(stats.ttest_1samp(pairs, 0.0, alternative="greater").pvalue, rel=1e-6)


@pytest.mark.parametrize(("pairs", "p"), [([1, 0], 0.0), ([0, 0], 0.0), ([-1, 0], 1.0)])
def test_what_is_answered_completely_is_certain(pairs: list[int], p: float) -> None:
    assert paired_mean(pairs, 2).p_not_above() == p


def test_agreement_on_few_items_proves_nothing() -> None:
    assert paired_mean([0, 0, 0], 100).p_not_above() == 0.5
    assert paired_mean([0.3], 100).p_not_above() == 1.0  # one value has no deviation
    assert paired_mean([1, 1], 100).p_not_above() > 0.01


def test_a_weighted_sum_adds_variances_and_degrees_of_freedom() -> None:
    found = weighted_sum(
        [
            (0.5, MeanDifference(0.2, 0.04, 9.0)),
            (0.5, MeanDifference(0.1, 0.01, 4.0)),
            (0.0, MeanDifference(9.0, 9.0, 1.0)),
        ]
    )
    assert found.value == pytest.approx(0.15)
    assert found.variance == pytest.approx(0.0125)
    assert found.freedom == pytest.approx(0.0125**2 / (0.01**2 / 9 + 0.0025**2 / 4))


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_error_rate_holds(correlation: float) -> None:
    """Candidates that tie with the reference on all 100 items, the hardest case, are stopped at most this often."""
    chance = np.random.default_rng(5)
    error, looks, stopped, trials = 0.1, (10, 20, 40), 0, 2000
    for _ in range(trials):
        reference = chance.random(100) < 0.7
        candidate = np.where(chance.random(100) < correlation, reference, chance.random(100) < 0.7)
        while candidate.sum() != reference.sum():  # repair it to an exact tie
            wrong = np.flatnonzero(candidate == (candidate.sum() > reference.sum()))
            candidate[chance.choice(wrong)] ^= True
        pairs = (reference.astype(int) - candidate.astype(int))[chance.permutation(100)]
        stopped += any(paired_mean(pairs[:count], 100).p_not_above() <= error / len(looks) for count in looks)
    assert stopped / trials <= error
    assert stopped / trials > error / 20  # and the rule does stop


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_are_those_of_student_and_of_the_normal_distribution(level: float) -> None:
    pairs = [0.5, 0.25, -0.125, 0.375]
    test = stats.ttest_1samp(pairs, 0.0)
    found = paired_mean(pairs)
    assert found.interval(level) == pytest.approx(tuple(test.confidence_interval(level)))
    assert found.p_two_sided() == pytest.approx(test.pvalue)
    normal = MeanDifference(0.5, 0.01, math.inf)
    assert normal.interval(level) == pytest.approx(stats.norm.interval(level, 0.5, 0.1))
    assert normal.interval(level) == pytest.approx(normal_interval(0.5, 0.1, level))
    assert normal.p_two_sided() == pytest.approx(2 * stats.norm.sf(5.0))
    assert (MeanDifference(0.0, 0.0, 3.0).p_two_sided(), MeanDifference(0.1, 0.0, 3.0).p_two_sided()) == (1.0, 0.0)


@pytest.mark.parametrize(("better", "worse"), [(5, 0), (3, 8), (12, 12), (0, 0), (1, 0)])
def test_mcnemar_is_twice_the_smaller_binomial_tail(better: int, worse: int) -> None:
    count = better + worse
    tail = sum(math.comb(count, wins) for wins in range(min(better, worse) + 1)) / 2**count
    assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail))


def test_bootstrap_means_spread_like_the_standard_error() -> None:
    rng = np.random.default_rng(0)
    samples = [(0.25, rng.normal(0.1, 1.0, 50)), (0.75, rng.normal(0.3, 0.5, 80))]
    means = bootstrap_means(samples, rng, 2101)  # not a multiple of the block size
    total = weighted_sum([(weight, paired_mean(pairs)) for weight, pairs in samples])
    assert means.shape == (2101,)
    assert means.mean() == pytest.approx(total.value, abs=0.01)
    assert means.std() == pytest.approx(math.sqrt(total.variance), rel=0.07)


def test_joint_width_grows_with_models_that_differ_and_leaves_out_those_without_an_error() -> None:
    rng = np.random.default_rng(1)
    unlike = rng.normal(size=(6, 200))
    for rows, low, high in ((unlike[:1], 1.8, 2.1), (np.repeat(unlike[:1], 6, axis=0), 1.8, 2.1), (unlike, 2.4, 2.9)):
        errors = rows.std(axis=1, ddof=1) / math.sqrt(200)
        assert low < np.quantile(max_t_deviations([(1.0, rows)], errors, rng, 2000), 0.95) < high
    assert max_t_deviations([(1.0, np.zeros((2, 5)))], [0.0, math.inf], rng, 10).tolist() == [0.0] * 10
