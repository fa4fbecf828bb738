import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from evomerge.errors import InputError
from evomerge.surrogates import fit_objectives, guess_link, predict
from evomerge.surrogates._features import COMPLEXITIES, coefficient_count, features, pack, uncentred, unpack
from evomerge.surrogates._links import LINKS, link_named
from evomerge.surrogates._quadratic import fit
from evomerge.surrogates._regression import leave_one_out_path, ridge_fit
from evomerge.surrogates._surrogate import draw_coefficients, extrapolates, leverage


def surface(rng, k):
    return rng.normal(size=coefficient_count(k))


# ---- features and links


@pytest.mark.parametrize("k", range(1, 9))
def test_count_and_order(k):
    assert coefficient_count(k) == (k + 1) * (k + 2) // 2
    c = np.random.default_rng(k).normal(size=(4, k))
    for row, out in zip(c, features(c), strict=True):
        loop = [x**2 for x in row] + [row[i] * row[j] for i in range(k) for j in range(i + 1, k)] + list(row) + [1.0]
        assert out == pytest.approx(loop)
    for complexity in COMPLEXITIES:
        some = features(c, complexity)
        assert some.shape == (4, coefficient_count(k, complexity))
        whole = [tuple(column) for column in features(c).T]
        places = [whole.index(tuple(column)) for column in some.T]
        assert places == sorted(places)  # columns of a simpler surface come in the same order


@pytest.mark.parametrize("complexity", COMPLEXITIES)
def test_unpacked_and_uncentred_surfaces_are_the_same_surface(complexity):
    rng = np.random.default_rng(0)
    c, beta = rng.normal(size=(6, 3)), rng.normal(size=coefficient_count(3, complexity))
    curvature, slope, level = unpack(beta, 3, complexity)
    value = features(c, complexity) @ beta
    assert level + c @ slope + np.einsum("ni,ij,nj->n", c, curvature, c) / 2 == pytest.approx(value)
    assert features(c) @ pack(curvature, slope, level) == pytest.approx(value)
    middle, half = rng.normal(size=3), rng.random(3) + 0.5
    moved = features((c - middle) / half, complexity) @ beta
    assert features(c, complexity) @ uncentred(beta, middle, half, complexity) == pytest.approx(moved)


def test_links_invert_and_rise():
    y = np.array([0.001, 0.3, 0.7, 0.999])
    for link in LINKS.values():
        z = link.forward(y)
        assert link.inverse(z) == pytest.approx(y)
        step = 1e-6
        assert link.slope(z) == pytest.approx((link.inverse(z + step) - link.inverse(z - step)) / (2 * step), rel=1e-5)
    assert LINKS["logit"].forward([0.0, 1.0], 9).tolist() == pytest.approx([np.log(0.05 / 0.95), np.log(0.95 / 0.05)])
    assert np.isfinite(LINKS["logit"].forward([0.0, 1.0])).all()
    assert LINKS["softplus"].forward([800.0]) == pytest.approx([800.0])
    assert (guess_link([0.1, np.nan, 1.0]), guess_link([-0.1]), guess_link([np.nan])) == (
        "logit",
        "identity",
        "identity",
    )


@pytest.mark.parametrize(
    ("name", "y", "message"),
    [("logit", 55.0, "percentages"), ("softplus", 0.0, "above 0"), ("identity", np.inf, "finite or NaN")],
)
def test_metrics_outside_a_link(name, y, message):
    with pytest.raises(InputError, match=message):
        link_named(name).forward([y])


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(InputError, match="Near: logit"):
        link_named("logits")
    with pytest.raises(InputError, match="Near: diagonal"):
        fit(np.zeros((3, 1)), [1, 2, 3], complexity="diagnal")


# ---- exactness


@pytest.mark.parametrize("k", range(1, 7))
def test_a_quadratic_is_recovered_from_as_many_points_as_coefficients(k):
    rng = np.random.default_rng(k)
    beta, c = surface(rng, k), rng.random((coefficient_count(k), k))
    found = fit(c, features(c) @ beta, complexity="full", ridge=0.0)
    assert found.coefficients == pytest.approx(beta, abs=1e-9)


@pytest.mark.parametrize("link", ["logit", "softplus", "identity"])
def test_a_linked_quadratic_is_recovered_without_noise(link):
    rng = np.random.default_rng(3)
    beta, c = surface(rng, 3), rng.random((25, 3))
    y = LINKS[link].inverse(features(c) @ beta)
    for refine in (True, False):
        found = fit(c, y, link=link, refine=refine)
        assert found.complexity == "full"
        assert found.coefficients == pytest.approx(beta, abs=1e-6)
        assert found.diagnostics.loo_r2 == pytest.approx(1.0)


def test_permuting_experts_permutes_coefficients():
    rng = np.random.default_rng(5)
    c = rng.random((40, 3))
    y = expit(features(c) @ surface(rng, 3)) + 0.01 * rng.normal(size=40)
    order = [2, 0, 1]
    here, there = fit(c, y).parts, fit(c[:, order], y).parts
    assert there[0] == pytest.approx(here[0][np.ix_(order, order)])
    assert there[1] == pytest.approx(here[1][order])
    assert there[2] == pytest.approx(here[2])


def test_box_only_rescales():
    rng = np.random.default_rng(6)
    c = rng.random((30, 2))
    y = features(c) @ surface(rng, 2)
    assert fit(c, y, box=[-3.0, 5.0]).coefficients == pytest.approx(fit(c, y).coefficients, abs=1e-8)


@pytest.mark.parametrize("penalty", [0.0, 1e-3, 1.0])
def test_leave_one_out_by_the_hat_matrix_equals_brute_force(penalty):
    rng = np.random.default_rng(7)
    matrix, z, weights = features(rng.random((20, 2))), rng.normal(size=20), rng.random(20) + 0.1
    ridge = np.array([penalty] * 5 + [0.0])
    fast = ridge_fit(matrix, z, weights, ridge).leave_one_out
    for i in range(20):
        rest = np.arange(20) != i
        without = ridge_fit(matrix[rest], z[rest], weights[rest], ridge).coefficients
        assert fast[i] == pytest.approx(z[i] - matrix[i] @ without)


def test_the_ridge_path_equals_single_fits():
    rng = np.random.default_rng(7)
    ridges = (0.0, 1e-3, 1.0)
    for n, complexity in ((20, "full"), (6, "full"), (4, "full"), (5, "constant")):
        matrix, z, weights = features(rng.random((n, 2)), complexity), rng.normal(size=n), rng.random(n) + 0.1
        for ridge, fast in zip(ridges, leave_one_out_path(matrix, z, weights, ridges), strict=True):
            penalty = np.array([ridge * weights.sum()] * (matrix.shape[1] - 1) + [0.0])
            slow = ridge_fit(matrix, z, weights, penalty).leave_one_out
            assert np.isfinite(fast).tolist() == np.isfinite(slow).tolist()
            assert fast[np.isfinite(fast)] == pytest.approx(slow[np.isfinite(slow)], rel=1e-6)


def test_ridge_fit_is_the_minimum():
    rng = np.random.default_rng(8)
    matrix, z, weights, penalty = rng.normal(size=(12, 4)), rng.normal(size=12), rng.random(12), rng.random(4)

    def loss(beta):
        return weights @ (z - matrix @ beta) ** 2 + penalty @ beta**2

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-10}).x
    found = ridge_fit(matrix, z, weights, penalty)
    assert found.coefficients == pytest.approx(best, abs=1e-6)
    gram = matrix.T @ (weights[:, None] * matrix) + np.diag(penalty)
    assert found.inverse == pytest.approx(np.linalg.inv(gram))


def test_refined_fit_with_known_items_is_the_penalised_logistic_regression():
    rng = np.random.default_rng(9)
    c, n = rng.random((40, 2)), 50
    y = rng.binomial(n, expit(features(c) @ surface(rng, 2))) / n
    found = fit(c, y, link="logit", items=n, complexity="full", ridge=0.0)
    matrix = features(c)
    assert found.misfit_sd == 0

    def loss(beta):
        eta = matrix @ beta
        return n * np.sum(np.logaddexp(0, eta) - y * eta)

    best = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9, "maxiter": 2000}).x
    # the variance's own +1/2 correction is the only difference
    assert predict(found, c).value == pytest.approx(expit(matrix @ best), abs=5e-3)


# ---- noise


def test_weighting_by_items_beats_not_weighting():
    better = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        beta, c = surface(rng, 2), rng.random((24, 2))
        items = rng.choice([10, 1000], size=24)
        y = rng.binomial(items, expit(features(c) @ beta)) / items
        grid = rng.random((200, 2))
        truth = expit(features(grid) @ beta)
        errors = [np.mean((predict(fit(c, y, link="logit", items=n), grid).value - truth) ** 2) for n in (items, None)]
        better += errors[0] < errors[1]
    assert better >= 24  # of 30


def coverage(misfit, items, seeds, k=3, n=30):
    inside, new = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        beta, wave = surface(rng, k), rng.normal(size=k) * 6

        def truth(c, beta=beta, wave=wave):
            return expit(features(c) @ beta + misfit * np.sin(c @ wave))

        c, grid = rng.random((n, k)), rng.random((200, k))
        y = rng.binomial(items, truth(c)) / items
        found = fit(c, y, link="logit", items=items)
        here = predict(found, grid)
        inside.append(np.mean((here.low <= truth(grid)) & (truth(grid) <= here.high)))
        again = rng.binomial(100, truth(grid)) / 100
        here = predict(found, grid, items=100)
        new.append(np.mean((here.low <= again) & (again <= here.high)))
    return np.mean(inside), np.mean(new)


@pytest.mark.parametrize(("misfit", "items"), [(0.0, 50), (0.0, 300), (0.3, 1000), (0.3, 100)])
def test_intervals_cover(misfit, items):
    inside, new = coverage(misfit, items, seeds=40)
    assert 0.85 <= inside <= 0.95
    assert 0.85 <= new <= 0.95


def test_intervals_stay_in_the_metrics_range():
    rng = np.random.default_rng(0)
    c = rng.random((10, 2))
    found = fit(c, rng.binomial(5, 0.95, size=10) / 5, link="logit", items=5)
    here = predict(found, rng.random((50, 2)), level=0.99)
    assert (here.low >= 0).all()
    assert (here.high <= 1).all()
    assert (here.low <= here.value).all()
    assert (here.value <= here.high).all()


def test_standard_errors_and_items_say_the_same():
    rng = np.random.default_rng(1)
    c = rng.random((30, 2))
    truth = expit(features(c) @ surface(rng, 2))
    y = np.clip(rng.binomial(200, truth) / 200, 0.01, 0.99)
    by_items = fit(c, y, link="logit", items=200)
    by_errors = fit(c, y, link="logit", stderr=np.sqrt(y * (1 - y) / 200))
    assert by_errors.centred == pytest.approx(by_items.centred, abs=1e-6)


def test_a_zero_error_at_a_bound_is_not_certainty():
    rng = np.random.default_rng(2)
    c = rng.random((20, 1))
    y = rng.binomial(10, 0.9, size=20) / 10
    y[:3] = 1.0
    found = fit(c, y, link="logit", stderr=np.sqrt(y * (1 - y) / 10))
    assert np.all(predict(found, c).value < 0.999)


def test_draws_have_the_posteriors_moments():
    rng = np.random.default_rng(3)
    c = rng.random((60, 2))
    found = fit(c, features(c) @ surface(rng, 2) + 0.1 * rng.normal(size=60), ridge=0.0, complexity="full")
    draws = draw_coefficients(found, rng, 20_000)
    student = found.dof / (found.dof - 2)
    assert draws.mean(axis=0) == pytest.approx(found.centred, abs=0.01)
    sd = np.sqrt(np.diag(found.covariance) * student)
    assert draws.std(axis=0) == pytest.approx(sd, rel=0.05)


# ---- diagnostics and degenerate data


def test_diagnostics_of_a_good_and_a_hopeless_fit():
    rng = np.random.default_rng(4)
    c = rng.random((40, 2))
    good = fit(c, features(c) @ surface(rng, 2)).diagnostics
    assert good.r2 > 0.999
    assert good.loo_r2 > 0.999
    hopeless = fit(c, rng.normal(size=40)).diagnostics
    assert hopeless.loo_r2 < 0.2
    assert hopeless.noise_floor is None
    assert fit(c, rng.normal(size=40), stderr=0.5).diagnostics.noise_floor == pytest.approx(0.5)


def test_left_out_predictions_equal_refitting():
    rng = np.random.default_rng(5)
    c = rng.random((15, 2))
    y = features(c) @ surface(rng, 2) + 0.1 * rng.normal(size=15)
    found = fit(c, y, complexity="full", ridge=1e-4)
    for i in (0, 7):
        # the penalty is relative to the summed weights, one less here
        rest = np.arange(15) != i
        without = fit(c[rest], y[rest], complexity="full", ridge=1e-4 * 15 / 14, box=found.box)
        assert found.diagnostics.left_out[i] == pytest.approx(predict(without, c[i : i + 1]).value[0], abs=1e-8)


def test_lack_of_fit_needs_repeats_and_finds_a_wrong_shape():
    rng = np.random.default_rng(6)
    c = np.repeat(np.linspace(0, 1, 9)[:, None], 4, axis=0)
    wave = np.sin(9 * c[:, 0]) + 0.05 * rng.normal(size=36)
    assert fit(c, wave).diagnostics.lack_of_fit < 1e-6
    assert fit(c, c[:, 0] ** 2 + 0.05 * rng.normal(size=36)).diagnostics.lack_of_fit > 0.01
    assert fit(c[::4], wave[::4]).diagnostics.lack_of_fit is None


def test_complexity_grows_with_the_data():
    rng = np.random.default_rng(7)
    c = rng.random((30, 3))
    y = features(c) @ surface(rng, 3)
    assert [fit(c[:n], y[:n]).complexity for n in (1, 5)] == ["constant", "constant"]
    assert fit(c[:7], y[:7]).complexity in ("constant", "linear")
    assert fit(c[:12], y[:12]).complexity in ("constant", "linear", "diagonal")
    assert fit(c, y).complexity == "full"
    assert "'full' needs 15" in fit(c[:7], y[:7]).diagnostics.notes[0]


def test_too_few_points_for_an_explicit_complexity():
    rng = np.random.default_rng(8)
    c = rng.random((8, 3))
    with pytest.raises(InputError, match=r"complexity 'full' of y has 10 coefficients .* got 8"):
        fit(c, c.sum(axis=1), complexity="full")
    shrunk = fit(c, c.sum(axis=1), complexity="full", ridge=1e-3)
    assert np.isfinite(predict(shrunk, c).value).all()


def test_repeated_points_do_not_count_as_shape():
    rng = np.random.default_rng(9)
    c = np.tile(rng.random((4, 2)), (5, 1))
    found = fit(c, c.sum(axis=1) + 0.1 * rng.normal(size=20))
    assert found.complexity in ("constant", "linear")
    assert "20 evaluations of 4 distinct points" in found.diagnostics.notes


def test_constant_metric_single_point_and_failures():
    rng = np.random.default_rng(10)
    c = rng.random((20, 2))
    constant = fit(c, np.full(20, 0.4), link="logit")
    assert constant.complexity == "constant"
    assert np.isnan(constant.diagnostics.r2)
    assert "constant objective" in constant.diagnostics.notes[0]
    assert predict(constant, c[:3]).value == pytest.approx([0.4] * 3)
    for link, low, high in (("logit", 0.0, 1.0), ("identity", -np.inf, np.inf)):
        single = fit(c[:1], [0.3], link=link)
        here = predict(single, c[:2])
        assert here.value == pytest.approx([0.3, 0.3])
        assert (here.low.tolist(), here.high.tolist()) == ([low] * 2, [high] * 2)
    y = features(c) @ surface(rng, 2)
    failed = np.where(np.arange(20) < 5, np.nan, y)
    found = fit(c, failed)
    assert found.centred == pytest.approx(fit(c[5:], y[5:]).centred)
    assert "5 of 20 evaluations failed" in found.diagnostics.notes[0]
    with pytest.raises(InputError, match="math must have at least one value"):
        fit(c, np.full(20, np.nan), name="math")


def test_objectives_are_fitted_one_by_one():
    rng = np.random.default_rng(11)
    c = rng.random((20, 2))
    scores = expit(features(c) @ rng.normal(size=(6, 2)))
    scores[3, 0] = np.nan
    first, second = fit_objectives(c, scores, links="logit")
    assert first.centred == pytest.approx(fit(c, scores[:, 0], link="logit").centred)
    assert second.diagnostics.used.all()
    assert first.diagnostics.used.sum() == 19
    with pytest.raises(InputError, match="safety must have"):
        fit_objectives(c, np.column_stack([scores[:, 1], np.full(20, np.nan)]), names=["math", "safety"])


def test_more_objectives_than_samples():
    rng = np.random.default_rng(12)
    fits = fit_objectives(rng.random((2, 3)), rng.random((2, 5)), links="logit")
    assert [one.complexity for one in fits] == ["constant"] * 5


def test_leverage_and_extrapolation():
    rng = np.random.default_rng(13)
    c = rng.random((30, 2)) * 0.5
    found = fit(c, features(c) @ surface(rng, 2), complexity="full", ridge=0.0)
    matrix = features(c)
    hat = np.diag(matrix @ np.linalg.inv(matrix.T @ matrix) @ matrix.T)
    assert leverage(found, c) == pytest.approx(hat, rel=1e-4)
    assert not extrapolates(found, c).any()
    assert extrapolates(found, [[0.25, 0.25], [1.0, 1.0], [1.2, 0.1]]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 10, "stderr": 0.1}, "not both"),
        ({"items": 0}, "items must be above 0"),
        ({"stderr": -1.0}, "stderr must be finite"),
        ({"box": [1.0, 0.0]}, "box must be"),
        ({"ridge": -1.0}, "ridge must"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        fit([[0.1], [0.9], [0.5]], [0.2, 0.3, 0.4], **arguments)


def test_bad_shapes():
    with pytest.raises(InputError, match="one metric per row"):
        fit([[0.1], [0.9]], [0.2])
    with pytest.raises(InputError, match="c must be finite"):
        fit([[np.nan], [0.9]], [0.2, 0.1])
    found = fit([[0.1], [0.9]], [0.2, 0.1])
    with pytest.raises(InputError, match="c must have 1 columns"):
        predict(found, [[0.1, 0.2]])
    with pytest.raises(InputError, match="items describes a fraction"):
        predict(found, [[0.1]], items=10)
    with pytest.raises(InputError, match="one entry per objective"):
        fit_objectives([[0.1], [0.9]], [[0.2], [0.1]], links=["logit", "logit"])
