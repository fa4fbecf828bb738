"""Searches of the shipped experts, small enough for every test run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.controllers import controller_info
from tests.clock import BACKSTOP

ROOT = Path(__file__).parent.parent.parent
EXPERTS = ROOT / "examples" / "experts"
TASKS = ROOT / "examples" / "tasks"

SEARCH = """
merge:
  merge_method: {method}
  base_model: {experts}/base
  models: [{{model: {experts}/add}}, {{model: {experts}/sort}}, {{model: {experts}/spell}}]
  parameters:
    weight: {{search: [0.0, 1.2], per: [model]}}
objectives:
  - {{task: add}}
  - {{task: sort, metric: exact_match}}
tasks: {{include: [{tasks}]}}
scoring: {{items: {items}, holdout: 0.05}}
controller: {{name: {controller}, {key}: 4}}
budget: {{candidates: {candidates}}}
seed: 3
"""


def search_text(
    *, method: str = "task_arithmetic", controller: str = "cma-es", candidates: int = 6, items: int = 12
) -> str:
    return SEARCH.format(
        key=controller_info(controller).batch_option,
        experts=EXPERTS,
        tasks=TASKS,
        method=method,
        controller=controller,
        candidates=candidates,
        items=items,
    )


@pytest.fixture
def search_file(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(search_text())
    return file


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "evomerge", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def evomerge(*arguments: str | Path, timeout: float = BACKSTOP) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
