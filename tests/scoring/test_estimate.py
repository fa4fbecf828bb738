"""Scores and differences against numbers worked out by hand, by lm-eval, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evomerge.candidate import Objective, Response
from evomerge.errors import InputError, TaskError
from evomerge.scoring import estimate, gain_over_best, paired_difference
from evomerge.stats import mcnemar

ACC = Objective("t", "t", "acc")


def responses(values, task="t", metric="acc") -> tuple[Response, ...]:
    return tuple(Response(task, str(i), metric, float(value)) for i, value in enumerate(values))


def test_mean_and_standard_error_by_hand():
    score = estimate(responses([1, 1, 1, 0]), ACC)
    assert score.value == 0.75
    assert score.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert score.items == 4


def test_standard_error_is_lm_evals():
    from lm_eval.api.metrics import mean_stderr

    values = np.random.default_rng(0).random(37).tolist()
    assert estimate(responses(values), ACC).stderr == pytest.approx(mean_stderr(values))


def test_finite_population_correction():
    values = [1, 0, 1, 1, 0, 0, 1, 0]
    free = estimate(responses(values), ACC).stderr
    assert estimate(responses(values), ACC, total=32).stderr == pytest.approx(free * math.sqrt(0.75))
    assert estimate(responses(values), ACC, total=8).stderr == 0
    with pytest.raises(TaskError, match=r"at least the number of answered items \(8\), got 7"):
        estimate(responses(values), ACC, total=7)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_answers_do_not_claim_certainty(value):
    score = estimate(responses([value] * 10), ACC)
    assert score.value == value
    assert score.stderr == pytest.approx(math.sqrt((1 / 12) * (11 / 12) / 10))
    assert estimate(responses([value]), ACC).stderr == pytest.approx(math.sqrt(2 / 9))


def test_one_graded_answer_knows_no_error():
    assert estimate(responses([3.5]), ACC).stderr == math.inf


def test_other_tasks_and_metrics_are_passed_over():
    strict = Objective("t", "t", "exact_match", filter="strict")
    mixed = responses([1, 0]) + responses([1, 1], task="u") + responses([1, 1, 0], metric="exact_match,strict")
    assert estimate(mixed, ACC).value == 0.5
    assert estimate(mixed, strict).value == pytest.approx(2 / 3)
    assert estimate(mixed, ACC, task="u").value == 1.0
    with pytest.raises(TaskError, match="no response answers metric 'f'"):
        estimate(mixed, Objective("t", "t", "f"))


def test_contradicting_and_infinite_answers_are_refused():
    with pytest.raises(TaskError, match="answered twice with different values"):
        estimate((*responses([1]), Response("t", "0", "acc", 0.0)), ACC)
    with pytest.raises(TaskError, match="not a finite number"):
        estimate(responses([math.nan, 1]), ACC)


def test_a_paired_difference_by_hand():
    a, b = responses([1, 1, 1, 1, 0, 1]), responses([1, 0, 0, 1, 1, 0])
    difference = paired_difference(a, b, ACC)
    assert difference.value == pytest.approx((5 - 3) / 6)
    assert difference.p == mcnemar(3, 1)
    up, down = 4 / 8, 2 / 8  # three better and one worse of six, one added to each of two cells
    reach = stats.norm.ppf(0.975) * math.sqrt((up + down - (up - down) ** 2) / 8)
    assert (difference.low, difference.high) == pytest.approx((up - down - reach, up - down + reach))
    assert (difference.items, difference.distinguishable) == (6, False)


def test_pairing_is_by_item_and_not_by_place():
    a = responses([1, 0, 1, 0])
    assert paired_difference(a, a[::-1], ACC).value == 0


def test_equal_models_are_not_distinguishable_but_not_certain():
    same = responses([1] * 20)
    difference = paired_difference(same, same, ACC)
    assert difference.value == 0
    assert difference.low < 0 < difference.high
    assert difference.p == 1


def test_a_goal_to_minimize_turns_the_sign():
    loss = Objective("t", "t", "acc", "minimize")
    a, b = responses([1.0, 2.0, 3.0]), responses([2.0, 4.0, 3.5])
    assert paired_difference(a, b, loss).value == pytest.approx(3.5 / 3)
    graded = paired_difference(a, b, loss, level=0.9)
    test = stats.ttest_1samp([1.0, 2.0, 0.5], 0).confidence_interval(0.9)
    assert (graded.low, graded.high) == pytest.approx((test.low, test.high))
    assert graded.p == pytest.approx(stats.ttest_1samp([1.0, 2.0, 0.5], 0).pvalue)


def test_tasks_weigh_the_same_whatever_their_size():
    other = Objective("u", "u", "acc")
    a = responses([1] * 4) + responses([0] * 100, task="u")
    b = responses([0] * 4) + responses([0] * 100, task="u")
    assert paired_difference(a, b, (ACC, other)).value == pytest.approx(0.5)


def test_two_metrics_of_one_task_are_not_counted_as_independent():
    norm = Objective("t:n", "t", "acc_norm")
    a = responses([1, 1, 0, 1]) + responses([1, 1, 0, 1], metric="acc_norm")
    b = responses([0, 1, 1, 0]) + responses([0, 1, 1, 0], metric="acc_norm")
    both, one = paired_difference(a, b, (ACC, norm)), paired_difference(a, b, ACC)
    assert (both.low, both.high, both.items) == pytest.approx((one.low, one.high, one.items))


def test_different_items_cannot_be_compared():
    with pytest.raises(TaskError, match="2 are common, 1 are not"):
        paired_difference(responses([1, 0, 1]), responses([1, 0]), ACC)
    with pytest.raises(InputError, match="level must be in"):
        paired_difference(responses([1]), responses([1]), ACC, level=95)


def test_bootstrap_agrees_with_the_analytic_interval_on_many_items():
    generator = np.random.default_rng(1)
    a, b = responses(generator.random(400)), responses(generator.random(400) * 0.8)
    plain, booted = (paired_difference(a, b, ACC, method=method) for method in ("analytic", "bootstrap"))
    assert (booted.low, booted.high) == pytest.approx((plain.low, plain.high), abs=0.005)
    again = paired_difference(a, b, ACC, method="bootstrap")
    assert again == booted


def test_intervals_cover_what_they_claim_with_few_items():
    generator = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        a, b = generator.random((2, 25)) < np.array([[0.7], [0.6]])
        difference = paired_difference(responses(a), responses(b), ACC)
        covered.append(difference.low <= 0.1 <= difference.high)
    assert 0.92 <= np.mean(covered) <= 0.99


def test_the_gain_is_over_the_best_parent():
    parents = {"low": responses([0, 0, 1, 0]), "high": responses([1, 0, 1, 1])}
    name, gain = gain_over_best(responses([1, 1, 1, 1]), parents, (ACC,))
    assert name == "high"
    assert gain.value == pytest.approx(0.25)
    with pytest.raises(TaskError, match="no parent"):
        gain_over_best(responses([1]), {}, (ACC,))
