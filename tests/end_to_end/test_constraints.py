"""Constraints from the search file to the end: what they mean is known once the parents have answered."""

from __future__ import annotations

from pathlib import Path

import pytest

import evomerge
from evomerge.archive import Archive
from evomerge.cli import main
from evomerge.runs import open_run
from tests.end_to_end.conftest import EXPERTS, TASKS

SEARCH = """
merge:
  merge_method: task_arithmetic
  base_model: {experts}/base
  models: [{{model: {experts}/add}}, {{model: {experts}/sort}}]
  parameters: {{weight: {{search: [0, 1], per: [model]}}}}
objectives: [{{task: add}}, {{task: sort}}]
{constraints}
tasks: {{include: [{tasks}]}}
scoring: {{items: 10, holdout: 0.03}}
controller: {{name: cma-es, population: 4}}
budget: {{candidates: 8}}
seed: 2
"""


def search(place: Path, name: str, constraints: str) -> tuple[int, Path]:
    file = place / f"{name}.yaml"
    file.write_text(SEARCH.format(experts=EXPERTS, tasks=TASKS, constraints=constraints))
    return main(["search", str(file), "--out", str(place / name)]), place / name


def points(folder: Path) -> list[list[float]]:
    with Archive.open(folder, read_only=True) as archive:
        return archive.genotypes(0, archive.count("search")).tolist()


def test_a_search_obeys_its_constraint_and_resumes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, free = search(tmp_path, "free", "")
    assert status == 0
    scores = open_run(free).trials()["score.sort"]
    bar = float(scores[:4].min())
    assert scores[:4].max() > bar  # otherwise nothing is bound: what the mean prefers is what misses the constraint
    status, bound = search(tmp_path, "bound", f"constraints: ['sort <= {bar}', 'add >= base - 100 points']")
    assert status == 0
    assert points(bound)[:4] == points(free)[:4]  # a generation that nobody has learned from
    assert points(bound)[4:] != points(free)[4:]
    run = open_run(bound)
    best = run.best()
    assert best is not None
    assert run.data.evaluations()[best.number].scores["sort"].value <= bar
    finalists = [final.number for final in run.finals() if final.number >= 0]
    assert finalists
    assert all(run.data.evaluations()[number].scores["sort"].value <= bar for number in finalists)

    evomerge.resume(bound, candidates=12)
    assert main(["search", str(tmp_path / "bound.yaml"), "--out", str(tmp_path / "long"), "--candidates", "12"]) == 0
    assert points(bound) == points(tmp_path / "long")
    capsys.readouterr()


def test_a_constraint_that_nothing_meets_ends_without_a_usable_candidate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, folder = search(tmp_path, "never", "constraints: ['add >= best + 50 points']")
    assert status == 3
    said = capsys.readouterr().out
    assert "no candidate meets all constraints: add >= " in said
    assert "which none reaches" in said
    assert f"evomerge trials {folder}" in said
    assert list(open_run(folder).trials()["status"]) == ["done"] * 8


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        ("constraints: ['add >= 0.1', 'nothing >= 0.5']", ["line 8", "unknown objective 'nothing'"]),
        ("constraints: ['add > 0.5']", ["line 8", "expected an objective, >= or <="]),
        ("constraints: ['add >= elsewhere']", ["'elsewhere' is neither a number nor a parent"]),
        ("constraints: 'add >= 0.5'", ["line 8, constraints: must be a list"]),
    ],
)
def test_a_wrong_constraint_is_refused_with_its_line(
    tmp_path: Path, constraints: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, folder = search(tmp_path, "wrong", constraints)
    said = capsys.readouterr().err
    assert status == 2, said
    assert all(word in said for word in words), said
    assert not folder.exists()
    assert main(["check", str(tmp_path / "wrong.yaml")]) == 2


def test_racing_is_refused_beside_constraints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "both.yaml"
    text = SEARCH.format(experts=EXPERTS, tasks=TASKS, constraints="constraints: ['add >= 0.1']")
    file.write_text(text.replace("items: 10", "items: 10, racing: {min_items: 4}"))
    assert main(["check", str(file)]) == 2
    assert "racing cannot be combined with constraints" in capsys.readouterr().err
