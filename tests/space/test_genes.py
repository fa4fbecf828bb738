from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.space import Gene
from evomerge.space._markers import NARROWEST

unit = st.floats(0, 1)
bounds = st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(sorted).filter(lambda pair: pair[0] < pair[1])


def test_a_range_is_spanned_from_low_to_high():
    gene = Gene("weight", "float", 0.5, 1.5)
    assert [gene.value(x) for x in (0.0, 0.25, 0.5, 1.0)] == [0.5, 0.75, 1.0, 1.5]
    assert gene.coordinate(0.75) == 0.25


def test_a_log_range_multiplies():
    gene = Gene("epsilon", "float", 1e-4, 1.0, log=True)
    assert [gene.value(x) for x in (0.0, 0.25, 0.5, 1.0)] == [1e-4, 1e-3, 1e-2, 1.0]
    assert gene.coordinate(0.01) == pytest.approx(0.5, abs=1e-12)


def test_numbers_have_six_significant_digits():
    assert Gene("weight", "float", 0.0, 1.0).value(1 / 3) == 0.333333
    assert Gene("weight", "float", 0.0, 1000.0).value(1 / 3) == 333.333
    assert str(Gene("weight", "float", -1.0, 1.0).value(0.5)) == "0.0"  # not -0.0: it would be another digest


def test_whole_numbers_have_equal_shares_of_the_coordinate():
    gene = Gene("n", "int", 1, 4)
    values = [gene.value(x / 1000) for x in range(1000)]
    assert {value: values.count(value) for value in values} == {1: 250, 2: 250, 3: 250, 4: 250}
    assert all(type(value) is int for value in values)
    assert gene.value(1.0) == 4


def test_whole_numbers_on_a_log_scale_stay_in_range():
    gene = Gene("n", "int", 1, 1000, log=True)
    assert (gene.value(0.0), gene.value(1.0)) == (1, 1000)
    assert 20 < gene.value(0.5) < 40  # about the square root
    assert [gene.value(gene.coordinate(n)) for n in range(1, 1001)] == list(range(1, 1001))


def test_choices_have_equal_shares_and_keep_their_type():
    gene = Gene("normalize", "choice", choices=(False, True))
    assert [gene.value(x) for x in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert gene.coordinate(True) == 0.75
    with pytest.raises(InputError, match=r"normalize must be one of \[False, True\], got 1\.0"):
        gene.coordinate(1.0)


@pytest.mark.parametrize("value", [1.6, -0.1, math.nan, "much", True])
def test_values_outside_the_range_are_refused(value):
    with pytest.raises(InputError, match=r"weight must be a number in \[0, 1.5\]"):
        Gene("weight", "float", 0.0, 1.5).coordinate(value)


@given(bounds, unit)
def test_every_value_survives_the_way_back(pair, x):
    gene = Gene("g", "float", *pair)
    value = gene.value(x)
    assert pair[0] <= value <= pair[1]
    assert 0 <= gene.coordinate(value) <= 1
    assert gene.value(gene.coordinate(value)) == value


positive = st.tuples(st.floats(1e-12, 1e9), st.floats(1e-12, 1e9)).map(sorted)


@given(positive.filter(lambda p: p[0] * (1 + NARROWEST) < p[1]), unit)
def test_every_value_on_a_log_scale_survives_the_way_back(pair, x):
    gene = Gene("g", "float", *pair, log=True)
    value = gene.value(x)
    assert pair[0] <= value <= pair[1]
    assert 0 <= gene.coordinate(value) <= 1
    assert gene.value(gene.coordinate(value)) == value


@given(st.integers(-50, 50), st.integers(1, 60), unit)
def test_every_whole_number_survives_the_way_back(low, size, x):
    gene = Gene("g", "int", low, low + size)
    value = gene.value(x)
    assert gene.value(gene.coordinate(value)) == value


@given(bounds, unit, unit)
def test_values_rise_with_the_coordinate(pair, x, y):
    gene = Gene("g", "float", *pair)
    assert gene.value(min(x, y)) <= gene.value(max(x, y))
