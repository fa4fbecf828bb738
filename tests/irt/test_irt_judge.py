import numpy as np
from irt_worlds import simulate

from evomerge.irt.judge import ADAPTIVE, FOLDS, ONE_SPLIT_MODELS, Verdict, best, folds, judge, readings, variants
from evomerge.irt.ladder import HALF, LOOSE
from evomerge.irt.readings import GP_GREEDY, LINEAR, P_GREEDY, RAW, learn, mix


def verdict(recipe, errors):
    return Verdict(recipe, np.asarray(errors, dtype=float), np.ones(len(errors)))


def test_the_default_stays_unless_beaten_beyond_its_noise():
    rng = np.random.default_rng(0)
    default, clearly = verdict(LINEAR, rng.normal(0, 2, 30)), verdict(RAW, rng.normal(0, 0.1, 30))
    barely = verdict(P_GREEDY, default.errors * (1.0 + 1e-6 * rng.standard_normal(30)))
    assert best([default, clearly]).recipe == RAW
    assert best([default, verdict(RAW, default.errors)]).recipe == LINEAR
    assert best([default, verdict(RAW, default.errors + rng.choice([-1e-3, 1e-3], 30))]).recipe == LINEAR
    assert best([barely, default]).recipe in (P_GREEDY, LINEAR)
    assert best([verdict(LINEAR, []), verdict(RAW, [])]).recipe == LINEAR


def test_every_model_is_left_out_once_or_one_group_of_many():
    rng = np.random.default_rng(0)
    for count in (2, 5, 30):
        groups = folds(count, np.ones(count, bool), rng)
        assert sorted(np.concatenate(groups).tolist()) == list(range(count))
        assert len(groups) == min(FOLDS, count)
    assert len(folds(ONE_SPLIT_MODELS, np.ones(ONE_SPLIT_MODELS, bool), rng)) == 1
    assert folds(1, np.ones(1, bool), rng) == []
    assert all(3 not in g for g in folds(8, np.arange(8) != 3, rng))


def test_left_out_models_take_no_part():
    """Changing a left-out model's answers changes its own error only."""
    y = simulate(24, 20, 1, 0)[3]
    w = np.full(20, 0.05)
    changed = y.copy()
    changed[0] = 1.0 - changed[0]
    one, two = (learn(np.delete(t, 0, axis=0), w, HALF) for t in (y, changed))
    np.testing.assert_array_equal(one.items.a, two.items.a)
    np.testing.assert_array_equal(one.covariance.factors, two.covariance.factors)


def test_mixtures_are_judged_as_they_are_read():
    y = simulate(40, 30, 1, 1)[3]
    known = learn(y, np.full(30, 1 / 30), LOOSE)
    gp, line, p = judge(known, LOOSE, [GP_GREEDY, LINEAR, P_GREEDY], 8, np.random.default_rng(0))
    np.testing.assert_allclose(gp.errors, gp.share * line.errors + (1 - gp.share) * p.errors)
    read = readings(known, [LINEAR, P_GREEDY], 8, y, np.random.default_rng(0))
    mixed = mix(read[LINEAR], read[P_GREEDY], 0.25)
    np.testing.assert_allclose(mixed.estimate, 0.25 * read[LINEAR].estimate + 0.75 * read[P_GREEDY].estimate)


def test_adaptive_needs_enough_models():
    assert ADAPTIVE in variants("auto", 60)
    assert ADAPTIVE not in variants("auto", 59)
    assert ADAPTIVE not in variants("adaptive", 20)
