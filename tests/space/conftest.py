from __future__ import annotations

from pathlib import Path

import pytest

QUICKSTART = """\
merge:
  merge_method: ties
  base_model: ../experts/base
  models:
    - model: ../experts/add
    - model: ../experts/sort
    - model: ../experts/spell
  parameters:
    weight:  {search: [0.0, 1.5], per: [model, {blocks: 4}]}
    density: {search: [0.1, 1.0], per: [model, {blocks: 4}]}
    lambda: 1.0
    normalize: false
  dtype: float32
objectives:
  - {task: add}
  - {task: sort, metric: exact_match, goal: maximize}
tasks: {include: [../tasks]}
scoring:
  items: 100
  holdout: 0.5
  estimator: mean
  lm_eval: {num_fewshot: 0}
controller: {name: cma-es, population: 12}
budget: {candidates: 300, hours: 1}
seed: 7
"""


@pytest.fixture
def quickstart() -> str:
    """The example of the design, as a search file."""
    return QUICKSTART


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for search files, beside folders of models and tasks."""
    for name in ("base", "add", "sort", "spell"):
        (tmp_path / "experts" / name).mkdir(parents=True)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "spaces").mkdir()
    return tmp_path / "spaces"


@pytest.fixture
def write(folder: Path):
    """Writes a search file and returns its path."""

    def write(text: str, name: str = "search.yaml") -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
