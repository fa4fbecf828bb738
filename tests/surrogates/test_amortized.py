import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.pareto import hypervolume, non_dominated, simplex_weights
from evomerge.surrogates import check_front, fit_objectives, initial_design, predicted_front, reliability_warnings
from evomerge.surrogates._features import coefficient_count, features, pack
from evomerge.surrogates._predicted_front import describe, supported_points
from evomerge.surrogates._surrogate import leverage

from . import tiny_merges


def grid(k):
    steps = {2: 201, 3: 41}[k]
    return np.stack(np.meshgrid(*[np.linspace(0, 1, steps)] * k), axis=-1).reshape(-1, k)


def surfaces(rng, k, objectives, kind):
    if kind == "any":
        return rng.normal(size=(coefficient_count(k), objectives))
    columns = []
    for _ in range(objectives):
        root = rng.normal(size=(k, k))
        curvature = -(root @ root.T / k + 2 * np.eye(k))
        columns.append(pack(curvature, -curvature @ rng.random(k), rng.normal()))
    return np.stack(columns, axis=1)


def exact_fits(rng, k, objectives, kind):
    beta = surfaces(rng, k, objectives, kind)
    c = initial_design(2 * coefficient_count(k), k, rng)
    return beta, fit_objectives(c, features(c) @ beta, complexity="full", ridge=0.0)


@pytest.mark.parametrize(("k", "objectives"), [(2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("kind", ["concave", "any"])
@pytest.mark.parametrize("seed", [0, 1])
def test_front_is_inside_mutually_non_dominated_and_as_large_as_a_dense_grids(k, objectives, kind, seed):
    rng = np.random.default_rng(seed)
    beta, fits = exact_fits(rng, k, objectives, kind)
    front = predicted_front(fits, rng, size=3000, trust_region=False)
    assert ((front.c >= 0) & (front.c <= 1)).all()
    assert non_dominated(front.scores, duplicates=False).all()
    assert front.scores == pytest.approx(features(front.c) @ beta, abs=1e-8)
    truth = features(grid(k)) @ beta
    truth = truth[non_dominated(truth)]
    reference = truth.min(axis=0) - 0.1 * (np.ptp(truth, axis=0) + 1e-9)
    assert hypervolume(front.scores, reference) >= 0.99 * hypervolume(truth, reference)


@pytest.mark.parametrize(("k", "objectives"), [(2, 2), (3, 3)])
def test_closed_form_equals_evolution_on_concave_surfaces(k, objectives):
    rng = np.random.default_rng(4)
    beta, fits = exact_fits(rng, k, objectives, "concave")
    c, certain = supported_points(fits, simplex_weights(objectives, 3000))
    assert certain.all()
    closed = features(c) @ beta
    found = predicted_front(fits, rng, size=3000, trust_region=False).scores
    reference = closed[non_dominated(closed)].min(axis=0) - 0.1
    volumes = hypervolume(closed, reference), hypervolume(found, reference)
    assert volumes[0] == pytest.approx(volumes[1], rel=0.005)


def test_evolution_finds_what_no_weighting_supports():
    # f1 = c1, f2 = (1 - c1)^2: convex, so only the ends are supported
    c = initial_design(16, 2, np.random.default_rng(0))
    fits = fit_objectives(c, np.stack([c[:, 0], (1 - c[:, 0]) ** 2], axis=1), complexity="full", ridge=0.0)
    found = predicted_front(fits, np.random.default_rng(0), trust_region=False, size=100)
    gaps = np.diff(np.sort(found.scores[:, 0]))
    assert len(found.c) == 100
    assert gaps.max() < 0.05
    assert found.scores[:, 1] == pytest.approx((1 - found.scores[:, 0]) ** 2, abs=1e-6)


def test_trust_region_keeps_to_the_design():
    rng = np.random.default_rng(1)
    c = 0.5 * rng.random((30, 2))
    scores = np.stack([c[:, 0], c[:, 1] - 0.2 * c[:, 0] ** 2], axis=1)
    fits = fit_objectives(c, scores, complexity="full", ridge=0.0, box=[0.0, 1.0])
    free = predicted_front(fits, np.random.default_rng(2), trust_region=False)
    kept = predicted_front(fits, np.random.default_rng(2))
    assert free.extrapolates.any()
    assert not kept.extrapolates.any()
    assert all((leverage(one, kept.c) <= one.max_leverage * 1.001).all() for one in fits)
    assert "of the front is extrapolated" in reliability_warnings(fits, free)[-1]


def test_same_generator_same_front():
    _, fits = exact_fits(np.random.default_rng(0), 2, 2, "any")
    fronts = [predicted_front(fits, np.random.default_rng(3), size=50) for _ in range(2)]
    assert (fronts[0].c == fronts[1].c).all()
    assert (np.diff(fronts[0].scores[:, 0]) <= 0).all()


def test_degenerate_objectives():
    rng = np.random.default_rng(5)
    c = initial_design(16, 2, rng)
    same = fit_objectives(c, np.stack([c[:, 0], 3 * c[:, 0]], axis=1))
    front = predicted_front(same, rng, trust_region=False)
    assert front.scores[:, 0] == pytest.approx(np.ones(len(front.c)), abs=1e-6)
    constant = fit_objectives(c, np.stack([c[:, 0], np.full(16, 2.0)], axis=1))
    front = predicted_front(constant, rng, trust_region=False)
    assert len(front.c) == 1
    warnings = reliability_warnings(constant, front, ["math", "safety"])
    assert "safety: the metric is constant" in warnings[0]
    assert "single point" in warnings[-1]
    alone = fit_objectives(c[:1], [[0.3, 0.4]])
    assert len(predicted_front(alone, rng, generations=1).c) == 1


def test_doubts_about_a_noisy_and_a_weak_surrogate():
    rng = np.random.default_rng(6)
    c = initial_design(30, 2, rng)
    noise = rng.normal(size=30)
    (weak,) = fit_objectives(c, noise[:, None] / noise.std(), stderr=1.0)
    assert any("leave-one-out R2" in sentence for sentence in reliability_warnings([weak]))
    assert any("use more items" in sentence for sentence in reliability_warnings([weak]))
    (good,) = fit_objectives(c, (c @ [1.0, 2.0])[:, None])
    assert reliability_warnings([good]) == []


def test_check_front_by_hand():
    c = initial_design(20, 2, np.random.default_rng(7))
    fits = fit_objectives(
        c, np.stack([c[:, 0], c[:, 1]], axis=1) + 0.01 * np.random.default_rng(8).normal(size=(20, 2))
    )
    front = describe(fits, c[:4])
    measured = front.scores - [0.0, 0.5]
    measured[0, 0] = np.nan
    check = check_front(front, measured)
    assert check.bias == pytest.approx([0.0, 0.5])
    assert check.rmse == pytest.approx([0.0, 0.5])
    assert check.coverage.tolist() == [1.0, 0.0]
    assert check_front(front, measured, stderr=1.0).coverage.tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="one row per point"):
        check_front(front, measured[:2])
    with pytest.raises(InputError, match="one has none"):
        check_front(front, np.full((4, 2), np.nan))


def test_surrogates_of_different_spaces_are_refused():
    one = fit_objectives([[0.1], [0.9]], [[1.0], [2.0]])
    two = fit_objectives([[0.1, 0.2], [0.9, 0.1]], [[1.0], [2.0]])
    with pytest.raises(InputError, match=r"dimensions \[1, 2\]"):
        predicted_front([*one, *two], np.random.default_rng(0))
    with pytest.raises(InputError, match="at least one"):
        predicted_front([], np.random.default_rng(0))
    with pytest.raises(InputError, match="weights must"):
        supported_points(two, [[1.0, 1.0]])


def test_real_merges_are_covered_and_the_predicted_front_is_real():
    inside, shares = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        world = tiny_merges.make(2, seed=seed)
        c = initial_design(20, 2, rng)
        fits = fit_objectives(c, world.scores(c), links="logit", items=1000, shared_items=True)
        elsewhere = rng.random((100, 2))
        truth, here = world.scores(elsewhere), describe(fits, elsewhere)
        inside.append(np.mean((here.low <= truth) & (truth <= here.high)))
        front = predicted_front(fits, rng, size=30)
        fine = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 2), axis=-1).reshape(-1, 2)
        best = world.scores(fine)
        reference = best[non_dominated(best)].min(axis=0) - 0.05
        shares.append(hypervolume(world.scores(front.c), reference) / hypervolume(best, reference))
    assert 0.85 <= np.mean(inside) <= 0.97
    assert np.mean(shares) > 0.93
