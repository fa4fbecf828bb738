"""Bad input to a search: one clear message, exit status 2, and nothing half-written left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.archive import Archive
from evomerge.cli import main
from evomerge.irt import ResponseTable
from evomerge.irt._backtest import calibrate
from evomerge.runs import open_run
from evomerge.scoring import TaskSet, TaskSettings
from tests.end_to_end.conftest import TASKS
from tests.pico import make_model

SEARCH = """
merge:
  merge_method: task_arithmetic
  base_model: ./base
  models: [{{model: ./left}}, {{model: ./right}}]
  parameters: {{weight: {{search: [0, 1], per: [model]}}}}
objectives: [{{task: {task}}}]
tasks: {{include: [{tasks}]}}
scoring: {{items: 4, holdout: 0.05}}
controller: {{name: sobol}}
budget: {{candidates: 2}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_model(tmp_path / "base", seed=0)
    for seed, name in enumerate(("left", "right"), start=1):
        make_model(tmp_path / name, seed=seed, noise_from=tmp_path / "base")
    (tmp_path / "search.yaml").write_text(SEARCH.format(task="add", tasks=TASKS))
    return tmp_path


def refused(place: Path, capsys: pytest.CaptureFixture[str], out: Path | None = None) -> str:
    """Search, and return the message of a refusal that left nothing behind."""
    folder = out or place / "run"
    status = main(["search", str(place / "search.yaml"), "--out", str(folder)])
    captured = capsys.readouterr()
    assert status == 2, captured.out + captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert not folder.exists(), list(folder.iterdir())
    return captured.err


def change(place: Path, name: str, tensor: str, value: torch.Tensor | None) -> None:
    file = place / name / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(tensor)
    if value is not None:
        tensors[tensor] = value
    save_file(tensors, file, metadata={"format": "pt"})


TENSOR = "model.layers.1.mlp.up_proj.weight"


def test_a_missing_tensor_names_tensor_and_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(place, "right", TENSOR, None)
    message = refused(place, capsys)
    assert TENSOR in message
    assert "right" in message


def test_another_shape_names_tensor_and_both_shapes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = tuple(load_file(place / "base" / "model.safetensors")[TENSOR].shape)
    change(place, "left", TENSOR, torch.zeros(shape[0] + 1, shape[1]))
    message = refused(place, capsys)
    assert TENSOR in message
    assert str(shape) in message
    assert str((shape[0] + 1, shape[1])) in message


def test_nan_weights_name_tensor_and_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = load_file(place / "base" / "model.safetensors")[TENSOR].shape
    change(place, "right", TENSOR, torch.full(shape, float("nan")))
    message = refused(place, capsys)
    assert TENSOR in message
    assert "right" in message
    assert "NaN" in message


def test_a_truncated_file_says_how_many_bytes_are_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "left" / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size - 100)
    message = refused(place, capsys)
    assert str(size) in message
    assert str(size - 100) in message


def test_a_missing_folder_names_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(place / "left")
    assert str(place / "left") in refused(place, capsys)


def test_an_unknown_task_gives_near_ones(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "search.yaml").write_text(SEARCH.format(task="addd", tasks=TASKS))
    message = refused(place, capsys)
    assert "addd" in message
    assert "Near: add" in message


def test_an_unknown_metric_gives_the_tasks_metrics(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "search.yaml").write_text(SEARCH.format(task="add, metric: accuracy", tasks=TASKS))
    message = refused(place, capsys)
    assert "accuracy" in message
    assert "acc, acc_norm" in message


def test_models_tasks_and_items_are_all_reported_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(place, "left", TENSOR, None)
    change(place, "right", "model.norm.weight", torch.zeros(3))
    (place / "search.yaml").write_text(SEARCH.format(task="add, metric: accuracy", tasks=TASKS))
    message = refused(place, capsys)
    assert all(word in message for word in (TENSOR, "model.norm.weight", "accuracy", "3 problems"))


def scoring(place: Path, text: str) -> None:
    file = place / "search.yaml"
    file.write_text(file.read_text().replace("{items: 4, holdout: 0.05}", text))


def test_a_chat_template_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scoring(place, "{items: 4, holdout: 0.05, lm_eval: {apply_chat_template: true}}")
    # beside everything else that is wrong, before any model is loaded, and by `check` too
    change(place, "right", "model.norm.weight", torch.zeros(3))
    message = refused(place, capsys)
    assert all(words in message for words in ("the tokenizer has no chat template", "unset it", "2 problems"))
    assert main(["check", str(place / "search.yaml")]) == 2
    assert message.endswith(capsys.readouterr().err)


@pytest.mark.parametrize("where", ["file", "merge"])
def test_a_chat_template_in_the_bases_folder_or_in_the_search_file(
    place: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "{% for m in messages %}{{ m['content'] }} ={% endfor %}"
    scoring(place, "{items: 4, holdout: 0.05, lm_eval: {apply_chat_template: true}}")
    if where == "file":
        (place / "base" / "chat_template.jinja").write_text(template)
    else:
        file = place / "search.yaml"
        file.write_text(file.read_text().replace("merge:", f"merge:\n  chat_template: {json.dumps(template)}", 1))
    assert main(["search", str(place / "search.yaml"), "--out", str(place / "run"), "--quiet"]) == 0
    run = open_run(place / "run")
    assert len(run.data.evaluations()) == 2
    assert len(run.data.evaluations("parent")) == 3  # parents are asked in it too
    capsys.readouterr()


def test_a_bank_that_knows_held_out_questions_is_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scoring(place, "{items: 4, pool: 40, holdout: 0.5, estimator: p-irt}")
    file = place / "search.yaml"
    file.write_text(file.read_text() + "seed: 1\n")
    assert main(["check", str(file), "--json"]) == 0
    assert "scoring.bank" not in capsys.readouterr().out
    tasks = TaskSet.load(["add"], TaskSettings((str(TASKS),)))
    hashes = [document.hash for document in tasks.documents("add")]
    answers = np.random.default_rng(0).integers(0, 2, (9, len(hashes))).astype(float)
    models = tuple(f"m{k}" for k in range(9))
    calibrate(ResponseTable(answers, models, tuple(hashes)), out=place / "add.json")
    file.write_text(file.read_text().replace("p-irt", "p-irt, bank: add.json"))
    assert main(["check", str(file), "--json"]) == 0
    (warning,) = (text for text in json.loads(capsys.readouterr().out)["warnings"] if "scoring.bank" in text)
    assert "200 of its 400 questions are among the 200 that this run holds out for task 'add'" in warning
    assert main(["search", str(file), "--out", str(place / "run"), "--quiet"]) == 0
    with Archive.open(place / "run") as archive:
        assert warning in [event.payload["text"] for event in archive.events("note")]


def test_a_bank_of_another_task(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = np.random.default_rng(0).integers(0, 2, (4, 30)).astype(float)
    table = ResponseTable(answers, ("a", "b", "c", "d"), tuple(f"hash {j}" for j in range(30)))
    calibrate(table, out=place / "other.json")
    scoring(place, "{items: 4, holdout: 0.05, estimator: p-irt, bank: other.json}")
    message = refused(place, capsys)
    assert "the bank knows 0 of the 380 search items of task 'add'" in message
    assert "another version of it" in message


def test_what_an_estimator_lacks_is_said_with_its_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scoring(place, "{estimator: auto, bank: {ad: nothing.json}}")
    message = refused(place, capsys)
    assert "line 9, scoring: estimator 'auto' needs items" in message
    assert "scoring.bank.ad: unknown task among the objectives 'ad'. Near: add" in message
    assert "no such file" in message
    (place / "search.yaml").write_text(SEARCH.format(task="add", tasks=TASKS))
    scoring(place, "{items: 4, pool: 9}")
    assert "scoring.pool: is only used by an estimator" in refused(place, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shut = place / "shut"
    shut.mkdir(mode=0o500)
    assert "cannot be made" in refused(place, capsys, shut / "run")


@pytest.mark.parametrize("small_disk", [200 * 2**10], indirect=True)
def test_a_full_disk_stops_the_search_and_nothing_is_lost(
    place: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The archive of this search needs more than 200 kB; afterwards what was recorded is still readable."""
    text = (
        SEARCH.format(task="add", tasks=TASKS)
        .replace("items: 4", "items: 100")
        .replace("candidates: 2", "candidates: 40")
    )
    (place / "search.yaml").write_text(text)
    status = main(["search", str(place / "search.yaml"), "--out", str(small_disk / "run")])
    message = capsys.readouterr().err
    assert status == 2, message
    assert "free some space" in message or "full" in message
    assert f"evomerge resume {small_disk / 'run'}" in message or not (small_disk / "run").exists()
    if (small_disk / "run").exists():
        assert main(["status", str(small_disk / "run"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "stopped"


@pytest.mark.parametrize("small_disk", [200 * 2**10], indirect=True)
def test_an_export_to_a_full_disk_leaves_nothing(
    place: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = place / "recipe.yaml"
    recipe.write_text("merge_method: passthrough\nmodels: [{model: ./big}]\n")
    make_model(place / "big", seed=4, vocab_size=5000, hidden_size=32)
    status = main(["merge", str(recipe), "--to", str(small_disk / "out")])
    assert status == 2, capsys.readouterr().err
    assert list(small_disk.iterdir()) == []
