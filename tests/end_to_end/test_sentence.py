"""The whole sentence on the shipped experts: check, search, look, export, load, score, replay, resume.

Each verb goes through a process of its own once; where it comes again it is called here, which saves its imports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from evomerge import resume, score, search
from evomerge.runs import open_run
from tests.clock import BACKSTOP
from tests.end_to_end.conftest import EXPERTS, TASKS, command, environment, evomerge, search_text

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sentence")
    (place / "small.yaml").write_text(search_text())
    done = evomerge("search", place / "small.yaml", "--out", place / "run")
    assert done.returncode == 0, done.stderr
    assert "Held-out items" in done.stdout
    assert "evomerge export" in done.stdout
    return place / "run"


def test_check_says_what_a_search_would_do(search_file: Path) -> None:
    done = evomerge("check", search_file, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["genes"] == ["weight.add", "weight.sort", "weight.spell"]
    assert report["items"] == {"add": 12, "sort": 12}
    assert report["holdout"] == {"add": 20, "sort": 20}


def test_every_candidate_has_scores_weights_and_answers(folder: Path) -> None:
    run = open_run(folder)
    trials = run.trials()
    assert list(trials["status"]) == ["done"] * 6
    assert len(set(trials["digest"])) == len({run.data.fingerprint(n) for n in range(6)}) == 6
    answered = run.items().drop_duplicates(["candidate", "task", "item"])
    assert len(answered) == (6 + 4) * 2 * 12  # candidates and parents, tasks, items
    assert list(run.tables.parents()["name"]) == ["base", "add", "sort", "spell"]


def test_parents_know_their_own_skill(folder: Path) -> None:
    """Guards the whole chain: wrong weights, prompts or grading would not leave an expert at its skill."""
    parents = open_run(folder).tables.parents().set_index("name")
    assert parents.loc["add", "score.add"] > parents.loc["base", "score.add"]
    assert parents.loc["sort", "score.sort"] > 0.8
    assert parents.loc["add", "score.sort"] < 0.6


def test_the_export_loads_and_scores_exactly_what_lm_eval_says(folder: Path, tmp_path: Path) -> None:
    import lm_eval
    import torch
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM

    out = tmp_path / "merged"
    done = evomerge("export", folder, "--to", out)
    assert done.returncode == 0, done.stderr
    assert "equal to the scored weights" in done.stderr
    model = AutoModelForCausalLM.from_pretrained(out)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert (out / "mergekit_config.yml").is_file()
    assert "## Recipe" in (out / "README.md").read_text()

    ours = score(out, tasks=["add", "sort"], include=[str(TASKS)]).to_mapping()["scores"]
    before = os.getcwd()
    os.chdir(TASKS)  # lm-eval itself reads a task's data files relative to the working directory
    try:
        theirs = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(out)},
            tasks=["add", "sort"],
            task_manager=TaskManager(include_path=str(TASKS)),
            batch_size=8,
            device="cpu",
            bootstrap_iters=0,
        )["results"]
    finally:
        os.chdir(before)
    for task, entry in ours.items():
        expected = next(value for name, value in theirs[task].items() if name.startswith(entry["metric"] + ","))
        assert entry["value"] == expected, task
        assert entry["items"] == 400


def test_replay_gives_the_same_weights_and_answers(folder: Path) -> None:
    done = evomerge("replay", folder, "--candidate", "4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"] is True
    assert found["score"] == found["stored_score"]
    assert found["items"] > 0


def test_a_mergekit_recipe_of_a_candidate_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "best.yaml"
    assert evomerge("export", folder, "--to", recipe, "--as", "mergekit").returncode == 0
    done = evomerge("merge", recipe, "--to", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    run = open_run(folder)
    best = run.best()
    assert best is not None
    assert run.data.fingerprint(best.number) in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(
    folder: Path, tmp_path: Path, search_file: Path, number: signal.Signals
) -> None:
    target = tmp_path / "run"
    process = subprocess.Popen(
        command("search", search_file, "--out", target), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _wait_for_answers(target, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=BACKSTOP)
    assert process.returncode == 130, err
    assert f"evomerge resume {target}" in out + err
    assert "Traceback" not in err
    assert open_run(target).state == "interrupted"
    resume(target)
    _assert_same_trace(folder, target)


def test_sigkill_and_resume_give_the_trace_of_an_uninterrupted_run(
    folder: Path, tmp_path: Path, search_file: Path
) -> None:
    target = tmp_path / "run"
    process = subprocess.Popen(
        command("search", search_file, "--out", target), env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _wait_for_answers(target, process)
    process.kill()
    process.wait()
    assert open_run(target).state == "stopped"
    resume(target)
    _assert_same_trace(folder, target)


@pytest.mark.ray
def test_two_ray_workers_give_the_trace_of_one_process(folder: Path, tmp_path: Path, search_file: Path) -> None:
    done = evomerge("search", search_file, "--out", tmp_path / "run", "--workers", "2")
    assert done.returncode == 0, done.stderr
    _assert_same_trace(folder, tmp_path / "run")
    # Which worker did what depends on who was ready first, so not more than this can be said.
    assert open_run(tmp_path / "run").trials()["worker"].str.fullmatch(r".+/[01]").all()


def test_a_larger_budget_extends_a_finished_run(tmp_path: Path, search_file: Path) -> None:
    target = tmp_path / "run"
    first = search(search_file, out=target, candidates=2).trials()
    table = resume(target, candidates=4).trials()
    assert len(table) == 4
    same = ["candidate", "digest", "score.add", "score.sort"]
    assert table.loc[:1, same].equals(first[same])


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties"])
def test_other_methods_run_and_export_what_they_scored(tmp_path: Path, method: str) -> None:
    file = tmp_path / "search.yaml"
    text = search_text(method=method, controller="sobol", candidates=2, items=4)
    text = text.replace("batch_size: 4", "batch_size: 2")
    file.write_text(text.replace("  base_model", "  # base_model") if method == "linear" else text)
    run = search(file, out=tmp_path / "run")
    assert list(run.trials()["status"]) == ["done"] * 2
    assert "equal to the scored weights" in run.export(tmp_path / "merged", pick="1")


def test_changed_weights_are_noticed_on_resume(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(EXPERTS, tmp_path / "experts")
    file = tmp_path / "search.yaml"
    file.write_text(search_text(candidates=2, items=4).replace(str(EXPERTS), str(tmp_path / "experts")))
    search(file, out=tmp_path / "run")
    shutil.copy(EXPERTS / "sort" / "model.safetensors", tmp_path / "experts" / "add" / "model.safetensors")
    done = evomerge("resume", tmp_path / "run", "--candidates", "3")
    assert done.returncode == 2
    assert "has other contents" in done.stderr
    assert "add" in done.stderr


def _wait_for_answers(folder: Path, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Wait until one candidate is finished and the run is not."""
    for _ in range(int(BACKSTOP / 0.1)):
        assert process.poll() is None, "the search ended before it could be stopped"
        time.sleep(0.1)
        try:
            if len(open_run(folder).data.evaluations()) >= 1:
                return
        except Exception:  # not there yet, or in the middle of being made
            continue
    raise AssertionError(f"no candidate was finished in {BACKSTOP:.0f} seconds")


def _assert_same_trace(whole: Path, other: Path) -> None:
    first, second = open_run(whole), open_run(other)
    columns = [name for name in first.trials().columns if name not in ("seconds", "worker")]
    assert second.trials()[columns].equals(first.trials()[columns])
    mine, yours = (
        run.items().sort_values(["candidate", "task", "item", "metric"], ignore_index=True) for run in (first, second)
    )
    assert yours.equals(mine)
    told = [
        [(e.candidate, e.payload) for e in run.tables.events().itertuples() if e.kind == "observed"]
        for run in (first, second)
    ]
    assert told[0] == told[1]
