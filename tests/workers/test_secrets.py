"""Secrets reach the workers and nothing else: not a failure's text, not the archive, not a log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.candidate import Answers, Outcome
from evomerge.commands._search_options import Execution
from evomerge.errors import InputError
from evomerge.workers import hide
from evomerge.workers._runner import SafeEvaluator
from evomerge.workers._secrets import HIDDEN, to_pass_on
from tests.workers.test_runner import JOB, Script

TOKEN = "planted-token-0123456789"


def test_values_of_secret_variables_are_hidden_wherever_they_stand() -> None:
    environment = {"HF_TOKEN": TOKEN, "MY_JUDGE_API_KEY": "abc-def-ghi", "PATH": "/usr/bin", "MAX_TOKENS": "100000"}
    text = f"GET https://hub/x?token={TOKEN} with abc-def-ghi from /usr/bin after 100000"
    assert hide(text, environment) == f"GET https://hub/x?token={HIDDEN} with {HIDDEN} from /usr/bin after 100000"


def test_a_secret_within_another_one_leaves_no_tail() -> None:
    assert hide("prefix-secret-tail", {"A_TOKEN": "prefix-secret", "B_TOKEN": "prefix-secret-tail"}) == HIDDEN


@pytest.mark.parametrize(
    "token", ["hf_" + "a1B2" * 8, "sk-proj-" + "x9" * 12, "ghp_" + "Z0" * 15, "AKIAIOSFODNN7EXAMPLE"]
)
def test_tokens_of_nobody_we_know_are_hidden_by_their_form(token: str) -> None:
    assert hide(f"bad credentials {token}!", {}) == f"bad credentials {HIDDEN}!"


def test_only_what_workers_need_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("JUDGE_KEY", "judge-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for workers")
    assert to_pass_on() == {"HF_TOKEN": TOKEN}
    assert to_pass_on(["JUDGE_KEY", "ABSENT"]) == {"HF_TOKEN": TOKEN, "JUDGE_KEY": "judge-secret"}


def test_a_failure_does_not_repeat_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def play() -> Iterator[Answers | Outcome]:
        raise RuntimeError(f"401 for Bearer {TOKEN}")
        yield

    (outcome,) = SafeEvaluator(Script(play), "host/0").evaluate(JOB)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert outcome.failure.message == f"RuntimeError: 401 for Bearer {HIDDEN}"
    assert "in play" in outcome.failure.traceback
    assert TOKEN not in outcome.failure.traceback


def test_a_file_alone_cannot_allow_code_that_models_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    with pytest.raises(InputError, match=r"confirm_run_unsafe_code: a file alone .*add --allow-code-execution"):
        Execution().allow_code({"confirm_run_unsafe_code": True})
    assert os.environ["HF_ALLOW_CODE_EVAL"] == "0"
    assert Execution().allow_code({"num_fewshot": 2}) == {"num_fewshot": 2}
    allowed = Execution(allow_code_execution=True).allow_code({"num_fewshot": 2})
    assert allowed == {"num_fewshot": 2, "confirm_run_unsafe_code": True}
    assert os.environ["HF_ALLOW_CODE_EVAL"] == "1"


UNSAFE = """
task: runs_code
dataset_path: json
dataset_kwargs: {data_files: {test: data.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
unsafe_code: true
generation_kwargs: {max_gen_toks: 4, until: ["\n"]}
metric_list: [{metric: exact_match}]
"""
SEARCH = """
merge:
  merge_method: linear
  models: [{{model: {root}/a}}, {{model: {root}/b}}]
  parameters: {{weight: {{search: [0, 1], per: [model]}}}}
objectives: [{{task: runs_code}}]
tasks: {{include: [{root}/tasks]}}
scoring: {{items: 2, lm_eval: {{{lm_eval}}}}}
controller: {{name: sobol}}
budget: {{candidates: 1}}
"""


@pytest.mark.parametrize("lm_eval", ["", "confirm_run_unsafe_code: true"])
def test_a_task_that_runs_code_needs_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lm_eval: str
) -> None:
    from evomerge.cli import main
    from tests.pico import make_model

    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    for seed, name in enumerate("ab"):
        make_model(tmp_path / name, seed=seed)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "task.yaml").write_text(UNSAFE)
    (tmp_path / "tasks" / "data.jsonl").write_text(
        "".join(f'{{"question": "{i} + {i} =", "answer": "{2 * i}"}}\n' for i in range(8))
    )
    file = tmp_path / "search.yaml"
    file.write_text(SEARCH.format(root=tmp_path, lm_eval=lm_eval))
    assert main(["search", str(file), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "--allow-code-execution" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    allowed = ["search", str(file), "--out", str(tmp_path / "run"), "--quiet", "--allow-code-execution"]
    assert main(allowed) in (0, 3), capsys.readouterr().err
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "run"), "--candidates", "2", "--quiet"]) == 2
    assert "--allow-code-execution" in capsys.readouterr().err
