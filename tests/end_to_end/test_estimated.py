"""Few items per candidate on the shipped experts: a first search makes the bank that a second one uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.cli import main
from evomerge.runs import open_run
from tests.end_to_end.conftest import search_text

pytestmark = pytest.mark.slow


def test_a_searchs_answers_become_the_bank_of_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = search_text(items=24, candidates=8)
    (tmp_path / "first.yaml").write_text(text)
    assert main(["search", str(tmp_path / "first.yaml"), "--out", str(tmp_path / "first"), "--quiet"]) == 0
    for task in ("add", "sort"):
        bank = str(tmp_path / f"{task}.json")
        assert main(["calibrate", str(tmp_path / "first"), "--task", task, "--out", bank]) == 0
    scoring = "{items: 6, pool: 24, holdout: 0.05, estimator: auto, bank: {add: add.json, sort: sort.json}}"
    text = text.replace("{items: 24, holdout: 0.05}", scoring)
    (tmp_path / "second.yaml").write_text(text)
    capsys.readouterr()
    assert main(["check", str(tmp_path / "second.yaml")]) == 0
    assert "6 of 24 (estimator auto) items" in capsys.readouterr().out
    assert main(["search", str(tmp_path / "second.yaml"), "--out", str(tmp_path / "second"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "estimates   add: from 6 items" in out
    first, second = open_run(tmp_path / "first"), open_run(tmp_path / "second")
    assert second.config.items.search == first.config.items.search
    table = second.tables.estimates()
    assert (table["items"] == 6).all()
    assert set(table["method"]) <= {"mp-irt", "p-irt", "parents"}
    known = table.dropna(subset=["full"])
    assert (known["estimate"] - known["full"]).abs().mean() < 0.15
    assert main(["status", str(tmp_path / "second"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimates"]["add"]["items"] == 6
    # the first candidate is the same recipe in both, and answered everything in both
    assert second.data.evaluations()[0].scores == first.data.evaluations()[0].scores
