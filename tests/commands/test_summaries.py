"""Words for people: the verdict says what the interval allows, and no more."""

from __future__ import annotations

import pytest

from evomerge.candidate import Score
from evomerge.runs import Final, clock, verdict
from evomerge.scoring import Difference


def final(low: float, value: float, high: float) -> Final:
    gain = Difference(value, low, high, 0.5, 100)
    return Final(4, "candidate 4", Score(0.5, 0.01, 100), {}, gain, "parent add")


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        ((0.004, 0.031, 0.058), "better than parent add by 3.1 points, 95% interval [0.4, 5.8]"),
        ((-0.058, -0.031, -0.004), "worse than parent add by 3.1 points, 95% interval [-5.8, -0.4]"),
        ((-0.01, 0.02, 0.05), "not distinguishable from parent add (+2.0 points, 95% interval [-1.0, 5.0])"),
        ((0.0, 0.02, 0.05), "not distinguishable from parent add (+2.0 points, 95% interval [0.0, 5.0])"),
    ],
)
def test_verdict(gain: tuple[float, float, float], text: str) -> None:
    assert verdict(final(*gain)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90061, "25h01m")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
