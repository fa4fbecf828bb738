"""The command line's contract: verbs, help that teaches, exit statuses, one message and no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evomerge.cli import build_parser, main
from tests.commands.made import make_run

VERBS = [
    *("check", "search", "resume", "status", "trials", "front"),
    *("export", "merge", "score", "replay", "convert", "calibrate", "estimate"),
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=8))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_has_an_example_that_names_the_verb(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"evomerge {verb} " in capsys.readouterr().out.split("examples:")[1]


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    text = build_parser().format_help()
    assert all(re.search(rf"\n    {verb}\s", text) for verb in VERBS)
    assert main([]) == 2


def test_an_unknown_verb_is_exit_status_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serach", "x"])
    assert ended.value.code == 2


@pytest.mark.parametrize("verb", ["search", "check"])
def test_a_missing_file_is_one_message_and_exit_status_2(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    status, out, err = run(capsys, verb, "nowhere.yaml")
    assert status == 2
    assert out == ""
    assert "nowhere.yaml" in err
    assert "no such file" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", ["status", "trials", "front", "resume"])
def test_a_folder_without_a_run_is_exit_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    status, _, err = run(capsys, verb, str(tmp_path))
    assert status == 2
    assert "evomerge search FILE --out" in err


def test_five_mistakes_are_five_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "merge:\n"
        "  merge_method: tie\n"  # 1: unknown method
        "  base_model: ./missing\n"  # 2: no such folder
        "  models: [{model: org/a}, {model: org/b}]\n"
        "  parameters:\n"
        "    weight: {search: [1.5, 0.5]}\n"  # 3: impossible range
        "objectives:\n"
        "  - {tsk: add}\n"  # 4: typo in a key (and the task is missing)
        "budget: {candidates: -3}\n"  # 5: impossible budget
    )
    status, out, err = run(capsys, "search", str(file), "--out", str(tmp_path / "run"))
    assert status == 2
    assert out == ""
    for line, words in [(2, "ties"), (3, "missing"), (6, "1.5"), (8, "tsk"), (9, "-3")]:
        assert any(f"line {line}" in entry and words in entry for entry in err.splitlines()), (line, words, err)
    assert not (tmp_path / "run").exists()


def test_status_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    status, out, _ = run(capsys, "status", folder, "--json")
    assert status == 0
    found = json.loads(out)
    assert {"state", "candidates", "done", "failed", "best", "front_size", "seconds"} <= set(found)


def test_trials_as_csv_on_stdout_and_in_a_file_are_the_same(
    capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path
) -> None:
    import pandas as pd

    _, out, _ = run(capsys, "trials", folder, "--csv", "-")
    file = tmp_path / "trials.csv"
    run(capsys, "trials", folder, "--csv", str(file))
    assert file.read_text() == out
    table = pd.read_csv(file)
    assert len(table) == 8
    _, as_json, _ = run(capsys, "trials", folder, "--json")
    rows = json.loads(as_json)
    assert [row["score.left"] for row in rows] == list(table["score.left"])
    assert rows[0]["failure"] is None  # missing is null, never NaN


def test_trials_as_parquet_keep_every_digit(capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path) -> None:
    import pandas as pd

    from evomerge import open_run

    run(capsys, "trials", folder, "--parquet", str(tmp_path / "t.parquet"))
    stored = pd.read_parquet(tmp_path / "t.parquet")
    assert list(stored["gene.weight.left"]) == list(open_run(folder).trials()["gene.weight.left"])


def test_front_json_and_plot(capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path) -> None:
    status, out, _ = run(capsys, "front", folder, "--json", "--plot", str(tmp_path / "front.svg"))
    assert status == 0
    assert set(json.loads(out)) == {"objectives", "reference", "hypervolume", "points"}
    assert (tmp_path / "front.svg").read_text().startswith("<svg")


def test_export_as_mergekit_and_recipe(capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path) -> None:
    import yaml

    from evomerge import open_run
    from evomerge.config import load_recipe

    status, out, _ = run(capsys, "export", folder, "--to", "-", "--as", "mergekit")
    assert status == 0
    document = yaml.safe_load(out)
    assert document["merge_method"] == "task_arithmetic"
    assert "mask_seed" not in document  # mergekit refuses what it does not know
    status, _, _ = run(capsys, "export", folder, "--to", str(tmp_path / "best.yaml"), "--as", "recipe")
    assert status == 0
    assert load_recipe(tmp_path / "best.yaml") == open_run(folder).recipe("best")
    status, _, err = run(capsys, "export", folder, "--to", str(tmp_path / "best.yaml"), "--as", "recipe")
    assert status == 2
    assert "exists" in err


def test_a_taken_run_folder_is_refused_with_the_command_to_type(
    capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path
) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "merge: {merge_method: linear, models: [{model: org/a}, {model: org/b}],"
        " parameters: {weight: {search: [0, 1], per: [model]}}}\n"
        "objectives: [{task: add}]\nbudget: {candidates: 3}\n"
    )
    status, _, err = run(capsys, "search", str(file), "--out", folder)
    assert status == 2
    assert f"evomerge resume {folder}" in err


def test_convert_writes_a_search_file_that_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from evomerge.config import load_search_file

    evolve = tmp_path / "evolve.yaml"
    evolve.write_text(
        "genome:\n  models: [org/a, org/b]\n  merge_method: ties\n  base_model: org/base\n  layer_granularity: 4\n"
        "tasks:\n  - {name: add, weight: 2.0, metric: 'acc,none'}\n"
    )
    status, _, err = run(capsys, "convert", str(evolve), "--layers", "8", "--to", str(tmp_path / "search.yaml"))
    assert status == 0, err
    assert load_search_file(tmp_path / "search.yaml").merge["merge_method"] == "ties"
    status, _, err = run(capsys, "convert", str(evolve))
    assert status == 2
    assert "layers" in err


def test_calibrate_and_estimate_on_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The contract's fields, and an estimate that is nearer to the truth than chance would bring it."""
    import numpy as np

    generator = np.random.default_rng(0)
    ability, difficulty = generator.normal(size=90), generator.normal(size=60)
    right = generator.random((90, 60)) < 1 / (1 + np.exp(1.5 * (difficulty - ability[:, None])))
    items = np.array([f"q{i}" for i in range(60)])
    for name, rows in (("old", slice(0, 70)), ("new", slice(70, 90))):
        models = np.array([f"{name}-{i}" for i in range(len(right[rows]))])
        np.savez(tmp_path / f"{name}.npz", responses=right[rows].astype(np.int8), models=models, items=items)
    bank = str(tmp_path / "bank.json")
    status, _, err = run(capsys, "calibrate", str(tmp_path / "old.npz"), "--out", bank)
    assert status == 0, err
    status, out, err = run(capsys, "estimate", bank, str(tmp_path / "new.npz"), "--items", "20", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert len(found) == 20
    assert {"model", "estimate", "stderr", "low", "high", "truth", "items", "method"} <= set(found[0])
    truths = right[70:].mean(axis=1)
    assert [entry["truth"] for entry in found] == pytest.approx(list(truths))
    errors = [abs(entry["estimate"] - entry["truth"]) for entry in found]
    assert np.mean(errors) < 0.06 < np.std(truths)
    status, _, err = run(capsys, "estimate", bank, str(tmp_path / "new.npz"), "--items", "20", "--method", "irt")
    assert status == 2
    assert "p-irt" in err
