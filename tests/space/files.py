"""Search files that tests write, and what reading a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.config import load_search_file
from evomerge.errors import SearchFileError

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

SMALL = """\
merge:
  merge_method: ties
  base_model: org/base
  models: [{model: org/x}, {model: org/y}]
  parameters:
    weight: {search: [0, 1]}
objectives:
  - {task: add}
budget: {candidates: 10}
"""


def problems(path: Path, load=load_search_file) -> tuple[str, ...]:
    with pytest.raises(SearchFileError) as caught:
        load(path)
    assert isinstance(caught.value, ValueError)
    assert caught.value.path == str(path)
    return caught.value.problems
