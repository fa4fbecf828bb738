"""Objectives without a common unit, and numbers without an error: what is best, and what is said about how sure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evomerge.candidate import Response
from evomerge.objectives import Objectives
from evomerge.reports import report_html
from evomerge.scoring import joint_gains, paired_difference
from tests.runs.mixed import LAYERS, MODELS, POISE, TASK, mixed_run


def test_a_size_is_in_no_mean_unless_it_was_given_a_weight() -> None:
    assert Objectives((TASK, LAYERS)).weights().tolist() == [1.0, 0.0]
    assert Objectives((TASK, POISE, LAYERS)).weights().tolist() == [0.5, 0.5, 0.0]
    assert Objectives((replace(TASK, weight=3.0), POISE)).weights().tolist() == [0.75, 0.25]
    assert Objectives((LAYERS,)).weights().tolist() == [1.0]
    weighed = (TASK, replace(LAYERS, weight=0.25))
    assert Objectives(weighed).weights().tolist() == [0.8, 0.2]
    assert Objectives(weighed).scalarise((0.5, -8.0)) == pytest.approx(0.8 * 0.5 - 0.2 * 8)
    assert [o.name for o in Objectives((TASK, LAYERS)).scores()] == ["left"]


def test_the_best_is_not_the_shallowest(tmp_path: Path) -> None:
    run = mixed_run(tmp_path / "run", (TASK, LAYERS))
    best = run.best()
    assert best is not None
    assert best.number == 0  # the mean with layers in it would be that of candidate 1: 6 layers, 10% right
    assert run.tables.history()["best"].iloc[-1] == pytest.approx(0.9)
    assert run.status()["best"]["overall"] == pytest.approx(0.9)
    assert run.front().marks()[0] == ["best overall", "best left"]
    assert run.front().marks()[1] == ["best layers"]
    assert run.front()["candidate"].tolist() == [0, 3, 2, 1]


def test_held_out_gains_are_points_where_only_the_size_is_something_else(tmp_path: Path) -> None:
    run = mixed_run(tmp_path / "run", (TASK, LAYERS))
    winner = next(final for final in run.finals() if final.number == 0)
    assert winner.in_points
    assert winner.averaged == ("left",)
    assert winner.gain is not None
    assert winner.gain.value == pytest.approx(0.3)
    text = run.summary()
    assert "mean over the objectives, in points; layers left out" in text
    assert "90.00 ± 3.91, layers 24 " in text
    found = run.compare(2, "left")
    assert "layers  +12, no interval: one value per model" in found.text()
    assert "left    +10 points, 95% interval" in found.text()


def test_one_number_per_model_has_no_interval() -> None:
    a = [Response("poise", "poise", "score", 0.9), Response("poise", "poise", "whole", 1.0)]
    b = [Response("poise", "poise", "score", 0.2), Response("poise", "poise", "whole", 1.0)]
    gain = paired_difference(a, b, POISE)
    assert gain.value == pytest.approx(0.7)
    assert not gain.has_interval
    assert not gain.distinguishable
    assert all(math.isnan(part) for part in (gain.low, gain.high, gain.p))


def test_a_number_that_stands_with_every_item_is_still_one_number() -> None:
    def answers(value: float) -> list[Response]:
        items = [f"prompt-{i}" for i in range(30)]
        return [Response("poise", i, "score", value) for i in items] + [
            Response("poise", i, "whole", 1.0) for i in items
        ]

    gain = paired_difference(answers(1.0), answers(0.0), POISE)  # thirty ones against thirty zeros
    assert (gain.value, gain.has_interval) == (1.0, False)


def test_one_number_among_tasks_takes_the_interval_of_their_mean_away_and_no_other() -> None:
    def answers(share: float, poise: float) -> list[Response]:
        task = [Response("left", str(i), "acc", float(i < share * 50)) for i in range(50)]
        return [*task, Response("poise", "poise", "score", poise)]

    parent, models = answers(0.4, 0.5), {"one": answers(0.8, 0.7), "two": answers(0.6, 0.5)}
    for found in joint_gains(models, {"p": parent}, (TASK, POISE)).values():
        assert not found.has_interval
        assert np.isfinite(found.value)
    alone = joint_gains(models, {"p": parent}, (TASK,))
    assert all(found.has_interval for found in alone.values())


def test_a_run_with_such_numbers_is_told_without_nan(tmp_path: Path) -> None:
    run = mixed_run(tmp_path / "run")
    assert [final.gain.has_interval for final in run.finals() if final.gain is not None] == [False] * 3
    summary, page, compared = run.summary(), report_html(run), run.compare("best", "left").text()
    assert "no interval: an objective has one value per model" in summary
    assert "no interval is available" in page
    assert "poise  " in compared
    assert "no interval" in compared
    for text in (summary, compared, run.status_text(), run.front()._repr_html_(), run._repr_html_()):
        assert "nan" not in text.lower()
    body = page[page.index("<main") : page.index('<script type="application/json"')]
    rest = page[page.index("</script>") : page.rindex("<script>")]
    assert ">nan" not in (body + rest).lower()
    assert " nan" not in (body + rest).lower()
    assert sorted(MODELS) == sorted(
        [*(c.number for c in run.data.candidates()), *(c.number for c in run.data.candidates("parent"))]
    )
