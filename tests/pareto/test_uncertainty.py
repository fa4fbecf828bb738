import numpy as np
import pytest
from scipy.stats import norm

from evomerge.errors import InputError
from evomerge.pareto.dominance import non_dominated
from evomerge.pareto.uncertainty import (
    credible_front,
    dominance_probability,
    front_probability,
    interval,
    probably_dominates,
)


def test_pairwise_probability_by_hand():
    probability = dominance_probability([[1.0, 2.0], [0.0, 0.0]], [[0.3, 0.4], [0.4, 0.3]])
    assert probability[0, 1] == pytest.approx(norm.cdf(2.0) * norm.cdf(4.0))
    assert probability[1, 0] == pytest.approx(norm.cdf(-2.0) * norm.cdf(-4.0))
    assert np.diag(probability).tolist() == [0, 0]


def test_zero_errors_give_plain_dominance():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (15, 3)).astype(float)
    certain = probably_dominates(scores, 0.0)
    assert ((~certain.any(axis=0)) == non_dominated(scores)).all()
    assert (credible_front(scores, 0.0) == non_dominated(scores)).all()
    assert (front_probability(scores, 0.0, rng, draws=3) == non_dominated(scores)).all()


def test_shared_items_make_differences_surer():
    apart = dominance_probability([[1.0], [0.9]], 0.1)[0, 1]
    together = dominance_probability([[1.0], [0.9]], 0.1, correlation=0.8)[0, 1]
    assert together > apart > 0.5


def test_credible_front_contains_the_front_and_grows_with_the_errors():
    scores = np.random.default_rng(1).normal(size=(40, 2))
    before = non_dominated(scores)
    for stderr in (0.05, 0.2, 0.5):
        now = credible_front(scores, stderr)
        assert (now >= before).all()
        before = now


def test_front_probability_against_a_closed_form():
    # two candidates, one objective: the chance to be best
    rng = np.random.default_rng(2)
    found = front_probability([[0.0], [0.1]], 0.1, rng, draws=4000)
    assert found[1] == pytest.approx(norm.cdf(0.1 / np.hypot(0.1, 0.1)), abs=0.03)
    assert found.sum() == pytest.approx(1.0)


def test_hopeless_rows_are_not_simulated_and_failures_have_no_chance():
    scores = np.array([[1.0, 1.0], [0.0, 0.0], [np.nan, 5.0]])
    assert front_probability(scores, 0.01, np.random.default_rng(0), draws=5).tolist() == [1.0, 0.0, 0.0]
    assert not dominance_probability(scores, 0.01)[2].any()
    assert front_probability(np.empty((0, 2)), 0.0, np.random.default_rng(0)).shape == (0,)


def test_interval():
    low, high = interval([[0.5]], [[0.1]], 0.95)
    assert (low[0, 0], high[0, 0]) == (pytest.approx(0.5 - 0.196, abs=1e-3), pytest.approx(0.5 + 0.196, abs=1e-3))


@pytest.mark.parametrize(
    ("stderr", "level", "message"),
    [(-0.1, 0.9, "stderr must be finite"), ([[0.1] * 3], 0.9, "shape of scores"), (0.1, 95, "did you mean 0.95")],
)
def test_bad_input(stderr, level, message):
    with pytest.raises(InputError, match=message):
        probably_dominates([[1.0, 2.0]], stderr, level)


def test_bad_correlation():
    with pytest.raises(InputError, match="correlation"):
        dominance_probability([[1.0]], 0.1, correlation=1.0)
