"""Several finalists are several chances to look good; their intervals hold together."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.candidate import Objective, Response
from evomerge.errors import TaskError
from evomerge.scoring import gain_over_best, joint_gains

ACC = Objective("t", "t", "acc")
BOTH = (ACC, Objective("u", "u", "acc"))


def responses(values: np.ndarray, task: str = "t") -> tuple[Response, ...]:
    return tuple(Response(task, str(i), "acc", float(value)) for i, value in enumerate(values))


def test_one_finalist_keeps_its_own_interval() -> None:
    rng = np.random.default_rng(0)
    model, parents = responses(rng.random(40) < 0.7), {"a": responses(rng.random(40) < 0.5)}
    assert joint_gains({"only": model}, parents, (ACC,)) == {"only": gain_over_best(model, parents, (ACC,))[1]}


def test_gains_are_the_same_and_intervals_wider_by_how_unlike_the_finalists_are() -> None:
    rng = np.random.default_rng(1)
    parents = {"a": responses(rng.random(150) < 0.5), "b": responses(rng.random(150) < 0.4)}
    unlike = {f"m{i}": responses(rng.random(150) < 0.6) for i in range(6)}
    alike = {f"m{i}": unlike["m0"] for i in range(6)}
    for name, joint in joint_gains(unlike, parents, (ACC,)).items():
        alone = gain_over_best(unlike[name], parents, (ACC,))[1]
        assert joint.value == alone.value
        assert joint.low < alone.low
        assert joint.high > alone.high
        assert joint.p >= alone.p
    same, one = joint_gains(alike, parents, (ACC,))["m0"], joint_gains(unlike, parents, (ACC,))["m0"]
    assert same.high - same.low < 0.9 * (one.high - one.low)


def test_together_they_miss_no_more_often_than_they_claim() -> None:
    """Two tasks, six finalists that are no better than the parent: how often does any interval leave out zero?"""
    rng = np.random.default_rng(2)
    alone, together = [], []
    for _ in range(120):
        sides = [rng.random((7, 40)) < 0.5, rng.random((7, 25)) < 0.6]
        rows = [(*responses(one), *responses(two, "u")) for one, two in zip(*sides, strict=True)]
        models, parents = {f"m{i}": row for i, row in enumerate(rows[1:])}, {"parent": rows[0]}
        alone.append(any(gain_over_best(row, parents, BOTH)[1].distinguishable for row in models.values()))
        together.append(any(gain.distinguishable for gain in joint_gains(models, parents, BOTH).values()))
    assert np.mean(together) <= 0.09
    assert np.mean(alone) > np.mean(together) + 0.03


def test_odd_answers() -> None:
    same = {"m": responses(np.ones(5)), "n": responses(np.ones(5))}
    for gain in joint_gains(same, {"p": responses(np.ones(5))}, (ACC,)).values():
        assert gain.value == 0
        assert gain.low < 0 < gain.high
        assert gain.p == 1
    with pytest.raises(TaskError, match="no parent"):
        joint_gains(same, {}, (ACC,))
    assert joint_gains({}, {"p": responses(np.ones(5))}, (ACC,)) == {}
