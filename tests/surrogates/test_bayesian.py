import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.pareto import hypervolume, non_dominated
from evomerge.surrogates import fit_objectives, initial_design, next_points, sobol_points, stop_reason
from evomerge.surrogates._acquisition import by_hypervolume
from evomerge.surrogates._features import features

from . import tiny_merges
from .test_amortized import surfaces

RULES = ["hypervolume", "uncertainty", "thompson"]


def problem(n=14, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    beta = surfaces(rng, 2, 2, "concave")
    c = initial_design(n, 2, rng)
    return c, fit_objectives(c, features(c) @ beta + noise * rng.normal(size=(n, 2)))


@pytest.mark.parametrize("rule", RULES)
def test_proposals_are_new_inside_and_repeatable(rule):
    c, fits = problem()
    first = next_points(fits, c, 6, np.random.default_rng(1), rule=rule)
    again = next_points(fits, c, 6, np.random.default_rng(1), rule=rule)
    assert (first.c == again.c).all()
    assert first.c.shape == (6, 2)
    assert ((first.c >= 0) & (first.c <= 1)).all()
    everything = np.vstack([c, first.c])
    gaps = np.linalg.norm(everything[:, None] - everything[None], axis=2) + np.eye(len(everything))
    assert gaps.min() > 1e-7
    assert len(first.rules) == 6


def test_expected_gain_equals_exact_hypervolume_improvement_without_uncertainty():
    c, fits = problem(n=20, noise=1e-9)
    pool = sobol_points(64, 2, np.random.default_rng(2))
    scores = np.stack([fit.basis(c) @ fit.centred for fit in fits], axis=1)
    at_pool = np.stack([fit.basis(pool) @ fit.centred for fit in fits], axis=1)
    reference = scores.min(axis=0)
    before = hypervolume(scores, reference)
    exact = np.array([hypervolume(np.vstack([scores, point]), reference) for point in at_pool]) - before
    chosen, gains, volume = by_hypervolume(fits, pool, c, 1, np.random.default_rng(3), reference, draws=3)
    assert exact[chosen[0]] == pytest.approx(exact.max(), rel=0.1)
    assert gains[0] == pytest.approx(exact.max(), rel=0.15)
    assert volume == pytest.approx(hypervolume(scores, reference), rel=0.05)


def test_gains_of_a_batch_fall_and_the_batch_spreads():
    c, fits = problem()
    proposal = next_points(fits, c, 5, np.random.default_rng(4))
    gains = proposal.gain[np.array(proposal.rules) == "hypervolume"]
    assert (np.diff(gains) <= 1e-12).all()
    assert proposal.volume > 0


def test_uncertainty_rule_goes_where_nothing_was_evaluated():
    rng = np.random.default_rng(5)
    c = np.column_stack([rng.random(20) * 0.5, rng.random(20)])
    fits = fit_objectives(c, c @ [[1.0, 0.9], [0.2, 0.1]] + 0.05 * rng.normal(size=(20, 2)), box=[0.0, 1.0])
    proposal = next_points(fits, c, 4, rng, rule="uncertainty")
    assert (proposal.c[:, 0] > 0.5).all()


def test_nothing_learned_falls_back_to_filling_the_space():
    single = fit_objectives([[0.5, 0.5]], [[0.3, 0.4]], links="logit")
    for rule in RULES:
        proposal = next_points(single, [[0.5, 0.5]], 4, np.random.default_rng(0), rule=rule)
        assert proposal.rules == ("space",) * 4
        gaps = np.linalg.norm(proposal.c[:, None] - proposal.c[None], axis=2) + np.eye(4)
        assert gaps.min() > 0.4
    constant = fit_objectives(np.random.default_rng(0).random((9, 2)), np.ones((9, 2)))
    assert next_points(constant, np.empty((0, 2)), 2, np.random.default_rng(0)).rules == ("space",) * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rule": "ei"}, "rule must be"), ({"count": 0}, "count must"), ({"count": 10_000}, "count must be at most")],
)
def test_bad_input(arguments, message):
    c, fits = problem()
    with pytest.raises(InputError, match=message):
        next_points(fits, c, **{"count": 2, "rng": np.random.default_rng(0), **arguments})


def test_stop_rule():
    assert stop_reason([], []) is None
    assert stop_reason([0.0], [1.0]) is None
    assert "below 0.001" in stop_reason([0.5, 0.0005, 0.0001], [1.0, 1.0, 1.0])
    assert stop_reason([0.0005, 0.5], [1.0, 1.0]) is None
    assert stop_reason([0.0, 0.0], [0.0, 0.0]) is None  # nothing above the reference yet
    with pytest.raises(InputError, match="same length"):
        stop_reason([1.0], [])


def test_fewer_evaluations_than_plain_sampling_for_equal_hypervolume():
    """Adaptive points, fewer of them, leave a larger measured front than a larger one-shot design."""
    wins = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        world = tiny_merges.make(2, seed=seed)
        plain = initial_design(40, 2, rng)
        c = initial_design(12, 2, rng)
        scores = world.scores(c)
        reference = world.scores(np.eye(2)).min(axis=0) - 0.02
        while len(c) < 24:
            fits = fit_objectives(c, scores, links="logit", items=1000, shared_items=True)
            new = next_points(fits, c, 6, rng, reference=reference, draws=32).c
            c, scores = np.vstack([c, new]), np.vstack([scores, world.scores(new)])
        wins += hypervolume(scores, reference) > hypervolume(world.scores(plain), reference)
        assert non_dominated(scores).sum() >= 3
    assert wins >= 4  # of 5
