"""One objective's estimator: fallbacks, the automatic choice, banks that fit and banks that do not, odd answers."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.irt import (
    FEW_ITEM_METHODS,
    Bank,
    BankPart,
    CalibrationData,
    FewItemEstimator,
    ResponseTable,
    answers_of,
    calibrate_table,
    complete_row,
    match_bank,
)

ITEMS = 80
NAMES = tuple(f"item {j}" for j in range(ITEMS))


def population(models: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Return 2PL answers, the items always the same."""
    difficulty = np.random.default_rng(99).normal(0.0, 1.2, ITEMS)
    rng = np.random.default_rng(seed)
    theta = rng.normal(shift, 1.0, (models, 1))
    return (rng.random((models, ITEMS)) < 1.0 / (1.0 + np.exp(difficulty - 1.5 * theta))).astype(float)


def bank(models: int = 40, seed: int = 0, shift: float = 0.0) -> Bank:
    table = ResponseTable(population(models, seed, shift), tuple(f"m{i}" for i in range(models)), NAMES)
    return calibrate_table(table)


def part(known: Bank) -> BankPart:
    return match_bank(known, [(name,) for name in NAMES], "t")


def nothing(rows: int = 0) -> np.ndarray:
    return np.empty((rows, ITEMS))


def rows_of(answers: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    rows = np.full_like(answers, np.nan)
    rows[:, chosen] = answers[:, chosen]
    return rows


@pytest.fixture(scope="module")
def known_bank() -> Bank:
    return bank()


@pytest.mark.parametrize("method", FEW_ITEM_METHODS)
def test_every_method_beats_the_raw_mean_where_parents_and_a_bank_are_known(method: str, known_bank: Bank) -> None:
    parents, merges = population(3, 6), population(60, 7)
    estimator = FewItemEstimator(method, CalibrationData(parents, nothing(), part(known_bank)), seed=1)
    chosen = estimator.anchors(10)
    assert len(set(chosen.tolist())) == 10
    found = estimator.estimate(rows_of(merges, chosen))
    truth = merges.mean(axis=1)
    errors = np.abs(found.value - truth)
    raw = [np.abs(merges[:, np.random.default_rng(s).permutation(ITEMS)[:10]].mean(1) - truth).mean() for s in range(9)]
    assert errors.mean() < np.mean(raw)
    assert 0.8 <= np.mean(errors <= 1.96 * found.stderr) <= 1.0
    assert estimator.notes == ()


def test_full_answers_are_the_exact_mean_without_error() -> None:
    merges = population(4, 3)
    for method in FEW_ITEM_METHODS:
        found = FewItemEstimator(method, CalibrationData(population(3, 5), nothing()), 0).estimate(merges)
        np.testing.assert_allclose(found.value, merges.mean(axis=1))
        assert (found.stderr == 0.0).all()


def test_rows_may_have_been_asked_different_items() -> None:
    merges = population(2, 3)
    estimator = FewItemEstimator("parents", CalibrationData(population(3, 5), nothing()), 0)
    mixed = np.concatenate([rows_of(merges[:1], np.arange(5)), rows_of(merges[1:], np.arange(40))])
    together = estimator.estimate(mixed)
    assert together.value[0] == pytest.approx(estimator.estimate(mixed[:1]).value[0])
    assert together.stderr[1] < together.stderr[0]


def test_the_same_knowledge_gives_the_same_anchors_and_estimates() -> None:
    data = CalibrationData(population(3, 5), population(5, 6))
    one, two = (FewItemEstimator("auto", data, 3) for _ in range(2))
    assert one.anchors(9).tolist() == two.anchors(9).tolist()
    assert one.anchors(9).tolist() != FewItemEstimator("auto", data, 4).anchors(9).tolist()
    rows = rows_of(population(3, 8), one.anchors(9))
    assert one.estimate(rows).value.tolist() == two.estimate(rows).value.tolist()


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["all wrong", "all right"])
@pytest.mark.parametrize("method", FEW_ITEM_METHODS)
def test_all_right_and_all_wrong_do_not_claim_certainty(method: str, value: float) -> None:
    estimator = FewItemEstimator(method, CalibrationData(population(3, 5), nothing()), 0)
    found = estimator.estimate(rows_of(np.full((1, ITEMS), value), estimator.anchors(6)))
    assert np.isfinite(found.value).all()
    assert abs(found.value[0] - value) < 0.45
    assert found.stderr[0] > 0.02


@pytest.mark.parametrize("method", FEW_ITEM_METHODS)
@pytest.mark.parametrize("parents", [np.ones((1, ITEMS)), np.zeros((4, ITEMS)), population(1, 1).repeat(5, axis=0)])
def test_odd_parents_and_one_item(method: str, parents: np.ndarray) -> None:
    merges = np.concatenate([parents[:1], population(3, 2)])  # the first is a clone of a parent
    estimator = FewItemEstimator(method, CalibrationData(parents, merges), 0)
    found = estimator.estimate(rows_of(population(2, 4), estimator.anchors(1)))
    assert np.isfinite(found.value).all()
    assert (found.stderr > 0.0).all()


def test_clones_teach_nothing() -> None:
    parents, merges = population(2, 1), population(3, 2)
    again = np.concatenate([merges, merges, parents])
    assert len(CalibrationData(parents, again).distinct) == 3
    assert CalibrationData(parents, again).models == CalibrationData(parents, merges).models == 5


def test_a_bank_is_matched_by_hash_and_never_by_place(known_bank: Bank) -> None:
    order = np.random.default_rng(0).permutation(ITEMS)[:60]
    found = match_bank(known_bank, [("other", NAMES[j]) for j in order], "t")
    np.testing.assert_array_equal(found.responses, known_bank.table.responses[:, order])
    assert found.parameters is not None
    np.testing.assert_array_equal(found.parameters.b, known_bank.parameters.b[order])


def test_a_bank_of_another_version_is_refused_by_name(known_bank: Bank) -> None:
    with pytest.raises(InputError, match=r"the bank knows 10 of the 80 search items of task 'sums' .*another version"):
        match_bank(known_bank, [*[(NAMES[j],) for j in range(10)], *[(f"new {j}",) for j in range(70)]], "sums")


def test_items_that_the_bank_lacks_are_learnt_from_the_parents(known_bank: Bank) -> None:
    names = [(NAMES[j],) if j % 2 else (f"new {j}",) for j in range(ITEMS)]
    found = match_bank(known_bank, names, "t")
    assert found.parameters is None
    assert np.isnan(found.responses[:, ::2]).all()
    data = CalibrationData(population(3, 5), nothing(), found)
    assert FewItemEstimator("auto", data, 0).method == "parents"
    estimator = FewItemEstimator("p-irt", data, 0)
    merges = population(40, 9)
    truth = merges.mean(axis=1)
    error = np.abs(estimator.estimate(rows_of(merges, estimator.anchors(20))).value - truth).mean()
    draws = [np.random.default_rng(seed).permutation(ITEMS)[:20] for seed in range(9)]
    assert error < np.mean([np.abs(merges[:, draw].mean(axis=1) - truth).mean() for draw in draws])


def test_a_bank_that_the_parents_contradict_is_not_used(known_bank: Bank) -> None:
    """These parents are right on the items that stand for the others, by the bank, and wrong on the others."""
    chosen = FewItemEstimator("p-irt", CalibrationData(nothing(), nothing(), part(known_bank)), 0).anchors(10)
    parents = np.zeros((3, ITEMS))
    parents[:, chosen] = 1.0
    estimator = FewItemEstimator("auto", CalibrationData(parents, nothing(), part(known_bank)), 0)
    assert estimator.method == "parents"
    assert "the bank takes a parent that scores 12.5 for" in estimator.notes[0]
    sound = FewItemEstimator("auto", CalibrationData(population(4, 5), nothing(), part(known_bank)), 0)
    assert (sound.method, sound.notes) == ("mp-irt", ())


def test_scores_beyond_the_banks_models_are_said_to_be() -> None:
    weak = bank(60, shift=-1.0)
    estimator = FewItemEstimator("p-irt", CalibrationData(population(3, 5), nothing(), part(weak)), 0)
    middle = weak.table.responses[np.argsort(weak.table.responses.mean(axis=1))[30]]
    rows = rows_of(np.stack([np.ones(ITEMS), middle]), estimator.anchors(30))
    assert estimator.estimate(rows).beyond == (True, False)


def test_the_automatic_choice_listens_to_merges_answered_in_full(known_bank: Bank) -> None:
    """The parents are weak and alike and the merges are not, so a prior around the parents misleads."""
    parents, merges = population(3, 11, shift=-2.5), population(8, 12, shift=0.5)
    first = FewItemEstimator("auto", CalibrationData(parents, nothing(), part(known_bank)), 0)
    pinned = tuple(int(i) for i in first.anchors(8))
    later = FewItemEstimator("auto", CalibrationData(parents, merges, part(known_bank)), 0, pinned)
    assert first.method == "mp-irt"
    assert later.method in ("parents", "p-irt")


def test_unknown_methods_and_nothing_known_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown estimator 'pirt'\. Near: p-irt"):
        FewItemEstimator("pirt", CalibrationData(population(2), nothing()), 0)
    with pytest.raises(InputError, match="answers of at least one parent, or a bank"):
        FewItemEstimator("auto", CalibrationData(nothing(), nothing()), 0)
    with pytest.raises(InputError, match="over the same items"):
        CalibrationData(population(2), np.empty((0, 3)))


def test_answers_by_name() -> None:
    np.testing.assert_array_equal(answers_of([{"b": 1.0}], ("a", "b")), [[np.nan, 1.0]])
    assert complete_row({"a": 1.0}, ("a", "b")) is None
    assert complete_row({"a": 1.0, "b": 37.5}, ("a", "b")) is None
    np.testing.assert_array_equal(complete_row({"a": 1.0, "b": 0.5, "c": 9.0}, ("b", "a")), [0.5, 1.0])
