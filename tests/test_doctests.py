"""Every example in a docstring gives what it says. Examples find a run in runs/quickstart, and small.yaml to search."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import evomerge
from tests.commands.made import make_run

PACKAGE = Path(evomerge.__file__).parent
MODULES = [
    ".".join(("evomerge", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


SMALL = """
merge:
  merge_method: task_arithmetic
  base_model: examples/experts/base
  models: [{model: examples/experts/add}, {model: examples/experts/sort}]
  parameters: {weight: {search: [0.0, 1.2], per: [model]}}
objectives: [{task: add}, {task: sort}]
tasks: {include: [examples/tasks]}
scoring: {items: 4, holdout: 0.01}
controller: {name: sobol}
budget: {candidates: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in runs/quickstart: 16 candidates, objectives left and right, one candidate failed."""
    place = tmp_path_factory.mktemp("examples")
    (place / "runs").mkdir()
    (place / "examples").symlink_to(PACKAGE.parent / "examples")
    (place / "small.yaml").write_text(SMALL)
    make_run(place / "runs" / "quickstart", candidates=16, troubles={5: "candidate"})
    return place


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    module = importlib.import_module(name)
    tests = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert tests, f"{name} has >>> outside its docstrings"
    assert not runner.failures, "".join(report)
