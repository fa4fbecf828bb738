"""A search over parents with other vocabularies: candidates and parents are scored with one, and exported as scored."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import evomerge
from evomerge.engine import export
from evomerge.runs import open_run
from tests.pico import PRINTABLE, make_model, make_tokenizer

TASKS = Path(__file__).parent.parent / "scoring" / "tasks"


@pytest.mark.slow
def test_padded_and_reordered_parents(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", layers=2)
    make_model(tmp_path / "spare", seed=1, layers=2, vocab_size=104)
    turned = make_model(tmp_path / "turned", seed=2, layers=2)
    make_tokenizer(turned, PRINTABLE[::-1])
    models = [{"model": name, "parameters": {"weight": {"search": [0, 1]}}} for name in ("spare", "turned")]
    content = {
        "merge": {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": models,
            "tokenizer_source": "base",
            "dtype": "float32",
        },
        "objectives": [{"task": "t_letters"}],
        "tasks": {"include": [str(TASKS)]},
        "scoring": {"items": 4, "holdout": 0.5},
        "controller": {"name": "random"},
        "budget": {"candidates": 2},
    }
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(content))
    evomerge.search(tmp_path / "search.yaml", out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert list(run.trials()["status"]) == ["done", "done"]
    assert list(run.tables.parents()["name"]) == ["base", "spare", "turned"]
    assert run.tables.parents()["score.t_letters"].notna().all()
    for number in (0, 1, -2, -3):  # what was scored is what is exported
        report = export(run.data.candidate(number).recipe, tmp_path / f"out{number}")
        assert report.fingerprint == run.data.fingerprint(number)
        assert {f"vocabulary of '{tmp_path / 'spare'}'" in note for note in report.findings} <= {True}
    assert base.is_dir()
