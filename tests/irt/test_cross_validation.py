from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from evomerge.irt._cross_validation import (
    ADAPTIVE,
    FOLDS,
    MARGIN,
    SINGLE_SPLIT_MODELS,
    CrossValidationResult,
    best_result,
    cross_validate,
    estimate_each,
    folds,
    variants,
)
from evomerge.irt._estimators import GP_GREEDY, LINEAR, P_GREEDY, RAW, EstimatorSpec, fit_calibration, mix
from evomerge.irt._model_selection import HALF_RASCH_SPEC, WIDE_SPEC
from tests.irt.worlds import simulate


def result(spec: EstimatorSpec, errors: Sequence[float] | np.ndarray) -> CrossValidationResult:
    return CrossValidationResult(spec, np.asarray(errors, dtype=float), np.ones(len(errors)))


def test_the_default_stays_unless_beaten_beyond_its_noise() -> None:
    rng = np.random.default_rng(0)
    default, clearly = result(LINEAR, rng.normal(0, 2, 30)), result(RAW, rng.normal(0, 0.1, 30))
    assert best_result([default, clearly]).spec == RAW
    assert best_result([default, result(RAW, default.errors)]).spec == LINEAR
    assert best_result([default, result(RAW, default.errors + rng.choice([-1e-3, 1e-3], 30))]).spec == LINEAR
    assert best_result([result(LINEAR, []), result(RAW, [])]).spec == LINEAR


@pytest.mark.parametrize(("margins", "best"), [(0.5, LINEAR), (2.0, RAW)])
def test_a_smaller_error_counts_from_the_margin_on(margins: float, best: EstimatorSpec) -> None:
    """The rival's mean error is smaller by so many margins, where one is `MARGIN` standard errors of the difference."""
    rng = np.random.default_rng(0)
    default = result(LINEAR, 1.0 + rng.random(30))
    gains = rng.normal(0.0, 1e-3, 30)
    gains += margins * MARGIN * gains.std() / np.sqrt(30) - gains.mean()
    assert best_result([default, result(RAW, default.errors - gains)]).spec == best


def test_every_model_is_left_out_once_or_one_group_of_many() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 5, 30):
        groups = folds(count, np.ones(count, bool), rng)
        assert sorted(np.concatenate(groups).tolist()) == list(range(count))
        assert len(groups) == min(FOLDS, count)
    assert len(folds(SINGLE_SPLIT_MODELS, np.ones(SINGLE_SPLIT_MODELS, bool), rng)) == 1
    assert folds(1, np.ones(1, bool), rng) == []
    assert all(3 not in g for g in folds(8, np.arange(8) != 3, rng))


def test_left_out_models_take_no_part() -> None:
    """Changing a left-out model's answers changes its own error only."""
    y = simulate(24, 20, 1, 0)[3]
    w = np.full(20, 0.05)
    changed = y.copy()
    changed[0] = 1.0 - changed[0]
    one, two = (fit_calibration(np.delete(t, 0, axis=0), w, HALF_RASCH_SPEC) for t in (y, changed))
    np.testing.assert_array_equal(one.items.a, two.items.a)
    np.testing.assert_array_equal(one.covariance.factors, two.covariance.factors)


def test_mixtures_are_validated_as_they_are_read() -> None:
    y = simulate(40, 30, 1, 1)[3]
    known = fit_calibration(y, np.full(30, 1 / 30), WIDE_SPEC)
    gp, line, p = cross_validate(known, WIDE_SPEC, [GP_GREEDY, LINEAR, P_GREEDY], 8, np.random.default_rng(0))
    np.testing.assert_allclose(gp.errors, gp.fraction * line.errors + (1 - gp.fraction) * p.errors)
    estimates = estimate_each(known, [LINEAR, P_GREEDY], 8, y, np.random.default_rng(0))
    mixed = mix(estimates[LINEAR], estimates[P_GREEDY], 0.25)
    np.testing.assert_allclose(mixed.estimate, 0.25 * estimates[LINEAR].estimate + 0.75 * estimates[P_GREEDY].estimate)


def test_adaptive_needs_enough_models() -> None:
    assert ADAPTIVE in variants("auto", 60)
    assert ADAPTIVE not in variants("auto", 59)
    assert ADAPTIVE not in variants("adaptive", 20)
