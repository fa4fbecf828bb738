from __future__ import annotations

import numpy as np
import pytest

from evomerge.irt._calibrate import HALF_RASCH, NEAR_RASCH, WIDE, ItemPrior, fit_items
from evomerge.irt._curves import probabilities
from evomerge.irt._model_selection import NEAR_RASCH_SPEC, WIDE_SPEC, IRTModelSpec, candidate_specs, select_irt_model
from tests.irt.worlds import simulate


def test_parameters_are_recovered_in_one_dimension() -> None:
    _, a, b, y = simulate(500, 200, 1, 0)
    found = fit_items(y, 1)
    assert np.corrcoef(found.a[:, 0], a[:, 0])[0, 1] > 0.95
    assert np.corrcoef(found.b, b)[0, 1] > 0.95
    assert (found.a[a[:, 0] < -0.5, 0] < 0.0).all()  # negative discrimination is seen as such


def test_probabilities_are_recovered_in_two_dimensions() -> None:
    theta, a, b, y = simulate(1500, 150, 2, 1)
    found = fit_items(y, 2, steps=150)
    # Abilities do not compare between fits, probabilities do. Errors of theta itself are in the true posterior too.
    from evomerge.irt._ability import estimate_ability

    known = estimate_ability(y, a, b)
    reference = probabilities(known.mean, a, b)
    assert np.sqrt(((probabilities(found.theta, found.a, found.b) - reference) ** 2).mean()) < 0.03
    assert np.isfinite(theta).all()


def test_missing_answers_barely_move_the_fit() -> None:
    _, a, b, y = simulate(800, 60, 1, 2)
    holes = np.where(np.random.default_rng(0).random(y.shape) < 0.3, np.nan, y)
    found = fit_items(holes, 1)
    assert np.corrcoef(found.a[:, 0], a[:, 0])[0, 1] > 0.93
    assert np.corrcoef(found.b, b)[0, 1] > 0.97


def test_graded_answers_give_the_same_items_as_their_expectation() -> None:
    theta, a, b, _ = simulate(600, 60, 1, 3)
    found = fit_items(probabilities(theta, a, b), 1, steps=200)
    assert np.corrcoef(found.a[:, 0], a[:, 0])[0, 1] > 0.98
    assert np.corrcoef(found.b, b)[0, 1] > 0.98


def test_item_covariance_covers_the_truth() -> None:
    _, _, b, y = simulate(600, 100, 1, 4)
    found = fit_items(y, 1, steps=200)
    z = (found.b - b) / np.sqrt(found.covariance[:, 1, 1])
    assert (np.abs(z) < 2.5).mean() > 0.8


def test_fit_is_deterministic_and_ignores_item_order() -> None:
    _, _, _, y = simulate(60, 40, 2, 5)
    order = np.random.default_rng(0).permutation(40)
    one, two, moved = fit_items(y, 2), fit_items(y, 2), fit_items(y[:, order], 2)
    np.testing.assert_array_equal(one.a, two.a)
    p, q = probabilities(one.theta, one.a, one.b), probabilities(moved.theta, moved.a, moved.b)
    np.testing.assert_allclose(p[:, order], q, atol=2e-3)


def test_abilities_are_whitened() -> None:
    found = fit_items(simulate(300, 50, 2, 6)[3], 2)
    assert np.abs(found.theta.mean(axis=0)).max() < 1e-8
    spread = np.cov(found.theta.T, bias=True) + found.theta_covariance.mean(axis=0)
    np.testing.assert_allclose(spread, np.eye(2), atol=1e-8)


@pytest.mark.parametrize("prior", [WIDE, HALF_RASCH, NEAR_RASCH])
@pytest.mark.parametrize(
    "y",
    [
        np.ones((4, 5)),
        np.zeros((4, 5)),
        np.ones((1, 3)),
        np.array([[1.0], [0.0], [1.0]]),
        np.array([[1.0]]),
        np.tile([[1.0, 0.0, 1.0]], (6, 1)),
        np.array([[1.0, np.nan], [np.nan, 0.0]]),
    ],
    ids=["all right", "all wrong", "one model", "one item", "one answer", "clones", "holes"],
)
def test_odd_tables_give_finite_items(y: np.ndarray, prior: ItemPrior) -> None:
    for d in (1, 2):
        found = fit_items(y, d, prior)
        for value in (found.a, found.b, found.covariance, found.theta, found.theta_covariance):
            assert np.isfinite(value).all()


def test_few_models_shrink_discriminations_to_each_other() -> None:
    y = simulate(4, 60, 1, 7)[3]
    assert fit_items(y, 1, NEAR_RASCH).a.std() < 0.5 * fit_items(y, 1, WIDE).a.std()


def test_ladder_grows_with_the_number_of_models() -> None:
    assert candidate_specs(5, 100) == (NEAR_RASCH_SPEC,)
    assert max(r.d for r in candidate_specs(30, 100)) == 1
    assert max(r.d for r in candidate_specs(1000, 100)) == 5
    assert WIDE_SPEC in candidate_specs(100, 100)


def test_choice_of_dimensions_sees_a_second_dimension() -> None:
    rng = np.random.default_rng(0)
    theta = rng.standard_normal((600, 2))
    a = np.zeros((60, 2))
    a[:30, 0] = a[30:, 1] = 2.0
    y = (rng.random((600, 60)) < probabilities(theta, a, rng.normal(0, 1, 60))).astype(float)
    model_spec, losses = select_irt_model(y, np.random.default_rng(0))
    assert model_spec.d >= 2
    assert len(losses) == len(candidate_specs(600, 60))


def test_a_single_candidate_needs_no_selection() -> None:
    assert select_irt_model(np.ones((3, 4)), np.random.default_rng(0)) == (IRTModelSpec(1, NEAR_RASCH), {})
