"""Loading tasks: names, groups, relative data, staleness, and what is said about wrong input."""

from __future__ import annotations

import builtins
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.scoring import TaskSet, TaskSettings
from evomerge.scoring.lm_eval import _adapter
from tests.clock import BACKSTOP
from tests.scoring.worlds import TASKS


def load(*names: str, folder: Path = TASKS, **lm_eval) -> TaskSet:
    return TaskSet.load(names, TaskSettings((str(folder),), lm_eval))


def write_task(folder: Path, name: str = "own", rows: list[dict] | None = None, extra: str = "") -> Path:
    """Write a small multiple-choice task and its data; return the YAML's path."""
    rows = [{"q": f"{i}+1=", "c": [str(i + 1), str(i)], "a": 0} for i in range(6)] if rows is None else rows
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: data/{name}.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: a\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n" + extra
    )
    return path


def test_relative_data_means_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load("t_cloze").documents("t_cloze")) == 24


def test_data_named_in_an_included_file_is_relative_to_that_file(tmp_path):
    base = write_task(tmp_path / "base")
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "child.yaml").write_text(
        f"include: {os.path.relpath(base, tmp_path / 'above')}\ntask: child\n"
    )
    assert len(load("child", folder=tmp_path / "above").documents("child")) == 6


def test_a_path_of_a_task_file_is_a_name(tmp_path):
    path = write_task(tmp_path)
    assert TaskSet.load([str(path)]).tasks == ("own",)


def test_groups_and_tags_are_expanded():
    tasks = load("t_group", "t_all", "t_sums")
    assert tasks.expand("t_group") == ("t_cloze", "t_story")
    assert "t_sums" in tasks.expand("t_all")
    assert tasks.expand("t_sums") == ("t_sums",)
    with pytest.raises(TaskError, match="group; name one of its tasks: t_cloze, t_story"):
        tasks.objective("t_group")


def test_changed_data_is_read_again(tmp_path):
    path = write_task(tmp_path)
    before = load("own", folder=tmp_path)
    data = tmp_path / "data" / "own.jsonl"
    stamp = data.stat()
    data.write_text(data.read_text().replace("5+1=", "7+1="))
    os.utime(data, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same name, same size, same time
    after = load("own", folder=tmp_path)
    hashes = [[document.hash for document in tasks.documents("own")] for tasks in (before, after)]
    assert hashes[0][:5] == hashes[1][:5]
    assert hashes[0][5] != hashes[1][5]
    assert before.version("own") != after.version("own")
    assert path.exists()


def test_an_unwritable_cache_does_not_matter(tmp_path, monkeypatch):
    import datasets

    write_task(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("/proc/nowhere"))
    assert len(load("own", folder=tmp_path).documents("own")) == 6


@pytest.fixture
def few_builtin_tasks(monkeypatch):
    """Stands in for lm-eval's own 14,000 tasks, which take ten seconds to read."""
    from lm_eval.tasks import TaskManager

    few = TaskManager(include_path=[str(TASKS)], include_defaults=False)
    monkeypatch.setattr(_adapter, "_builtin_tasks", lambda: few)


@pytest.mark.usefixtures("few_builtin_tasks")
def test_all_unknown_tasks_are_named_with_near_ones():
    with pytest.raises(TaskError) as caught:
        load("t_clozed", "t_cloze", "t_sumz")
    message = str(caught.value)
    assert "unknown task 't_clozed'. Near: t_cloze" in message
    assert "unknown task 't_sumz'. Near: t_sums" in message
    assert "unknown task 't_cloze'" not in message


def test_a_missing_data_file_names_yaml_and_path(tmp_path):
    path = write_task(tmp_path)
    (tmp_path / "data" / "own.jsonl").unlink()
    with pytest.raises(TaskError) as caught:
        load("own", folder=tmp_path)
    assert str(path) in str(caught.value)
    assert "data/own.jsonl" in str(caught.value)


def test_problems_of_several_tasks_come_together(tmp_path):
    for name in ("one", "two"):
        write_task(tmp_path, name)
        (tmp_path / "data" / f"{name}.jsonl").unlink()
    with pytest.raises(TaskError) as caught:
        load("one", "two", folder=tmp_path)
    assert "one.jsonl" in str(caught.value)
    assert "two.jsonl" in str(caught.value)


@pytest.mark.slow
def test_broken_yaml_is_named_with_its_line(tmp_path):
    write_task(tmp_path)
    (tmp_path / "bad.yaml").write_text("task: bad\nmetric_list: [\n  {metric: acc\n")
    with pytest.raises(TaskError, match=r"bad\.yaml: line \d+: not valid YAML"):
        load("bad", folder=tmp_path)


def test_an_unknown_key_of_a_task_is_an_error_with_its_file(tmp_path):
    write_task(tmp_path, extra="doc_to_txt: q\n")
    with pytest.raises(TaskError, match=r"own\.yaml.*doc_to_txt"):
        load("own", folder=tmp_path)


def test_an_empty_task_is_refused(tmp_path):
    write_task(tmp_path, rows=[])
    with pytest.raises(TaskError, match="own"):
        load("own", folder=tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TaskError, match="no folder"):
        load("own", folder=tmp_path / "nowhere")


def test_a_task_on_the_hub_says_what_to_do(tmp_path):
    path = write_task(tmp_path)
    path.write_text(path.read_text().replace("dataset_path: json", "dataset_path: someone/something"))
    with pytest.raises(TaskError) as caught:
        load("own", folder=tmp_path)
    assert "needs the network" in str(caught.value)
    assert "'someone/something'" in str(caught.value)
    assert "HF_HOME" in str(caught.value)


def test_loading_is_silent_and_leaves_other_threads_their_output(tmp_path, capsys, monkeypatch):
    """A task prints while it loads, and so does another thread: only the other thread is heard."""
    heard = threading.Event()

    def other() -> None:
        print("from another thread")
        print("and its errors", file=sys.stderr)
        heard.set()

    def loud() -> None:
        print("from the task")
        print("from the task too", file=sys.stderr)
        threading.Thread(target=other).start()
        assert heard.wait(BACKSTOP)
        return {"question": "q"}

    write_task(tmp_path, extra="process_docs: !function functions.loud\n")
    (tmp_path / "functions.py").write_text("import builtins\ndef loud(data):\n    builtins.loud()\n    return data\n")
    monkeypatch.setattr(builtins, "loud", loud, raising=False)
    before = sys.stdout, sys.stderr
    load("own", folder=tmp_path).documents("own")
    assert heard.is_set()
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert set(out.splitlines()) == {"from another thread"}
    assert set(err.splitlines()) == {"and its errors"}


def test_repeated_ids_fall_back_to_positions_and_are_reported(tmp_path):
    rows = [{"id": name, "q": f"{i}=", "c": ["1", "2"], "a": 0} for i, name in enumerate("abba")]
    write_task(tmp_path, rows=rows)
    tasks = load("own", folder=tmp_path)
    assert [document.id for document in tasks.documents("own")] == ["0", "1", "2", "3"]
    assert any("'id'" in warning and "a, b" in warning for warning in tasks.warnings)


def test_documents_keep_their_own_ids():
    assert [document.id for document in load("t_cloze").documents("t_cloze")][:2] == ["q0", "q1"]


def test_objectives_take_metric_filter_and_direction_from_the_task():
    tasks = load("t_cloze", "t_sums", "t_rolling")
    assert tasks.objective("t_cloze").metric == "acc"
    objective = tasks.objective("t_sums", "exact_match,anywhere", name="sums")
    assert (objective.metric, objective.filter, objective.goal, objective.name) == (
        "exact_match",
        "anywhere",
        "maximize",
        "sums",
    )
    assert tasks.objective("t_sums").filter == "strict"
    assert tasks.objective("t_rolling", "nll").goal == "minimize"
    assert tasks.objective("t_rolling", "nll", goal="maximize").goal == "maximize"


def test_unknown_metrics_filters_and_goals_are_refused():
    tasks = load("t_cloze", "t_sums")
    with pytest.raises(TaskError, match=r"no metric 'acc_nrom'. Near: acc_norm.*Known: acc, acc_norm, brier_score"):
        tasks.objective("t_cloze", "acc_nrom")
    with pytest.raises(TaskError, match=r"no filter 'loose'.*strict, anywhere"):
        tasks.objective("t_sums", filter="loose")
    with pytest.raises(TaskError, match="'maximize' or 'minimize', got 'up'"):
        tasks.objective("t_cloze", goal="up")


def test_metrics_over_the_whole_task_are_refused_by_name():
    tasks = load("t_cloze", "t_story", "t_rolling")
    with pytest.raises(TaskError, match=r"brier_score.*whole task.*usable here: acc, acc_norm"):
        tasks.objective("t_cloze", "brier_score")
    with pytest.raises(TaskError, match=r"perplexity.*usable here: acc"):
        tasks.objective("t_story")
    with pytest.raises(TaskError, match=r"word_perplexity.*usable here: nll"):
        tasks.objective("t_rolling")


def test_settings_change_the_version_and_paths_do_not(tmp_path):
    for folder in ("a", "b"):
        write_task(tmp_path / folder)
    here, there = load("own", folder=tmp_path / "a"), load("own", folder=tmp_path / "b")
    assert here.version("own") == there.version("own")
    shots = load("own", folder=tmp_path / "a", system_instruction="Be brief.")
    assert shots.version("own") != here.version("own")


def test_a_tasks_explicit_zero_shots_win_as_in_lm_eval(tmp_path):
    write_task(tmp_path, "zero", extra="num_fewshot: 0\nfewshot_split: test\n")
    write_task(tmp_path, "free", extra="fewshot_split: test\n")
    zero, free = load("zero", folder=tmp_path, num_fewshot=2), load("free", folder=tmp_path, num_fewshot=2)
    assert zero.version("zero") == load("zero", folder=tmp_path).version("zero")
    assert free.version("free") != load("free", folder=tmp_path).version("free")


def test_loading_leaves_the_global_generators_alone(tmp_path):
    import random

    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    load("t_cloze", "t_shots")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_fewshots": 2}, "unknown argument 'num_fewshots'. Near: num_fewshot"),
        ({"limit": 10}, "'limit' is decided elsewhere: use `items`"),
        ({"num_fewshot": -1}, "num_fewshot must be a whole number of at least 0, got -1"),
        ({"model_args": {"max_len": 3}}, "unknown model argument 'max_len'.*Near: max_length"),
    ],
)
def test_unknown_lm_eval_arguments_are_refused(arguments, message):
    with pytest.raises(TaskError, match=message):
        TaskSettings((), arguments)
