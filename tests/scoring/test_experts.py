"""The shipped experts and tasks: our answers are lm-eval's on skills that the models really have."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.scoring import ModelScorer, TaskSet, TaskSettings
from tests.scoring.reference import evaluate, per_item

EXAMPLES = Path(__file__).parents[2] / "examples"
TASKS = ("add", "words")  # choices and writing


@pytest.mark.skipif(not (EXAMPLES / "experts").is_dir(), reason="the example experts are not there")
def test_the_add_expert_answers_as_under_lm_eval(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(EXAMPLES / "experts" / "add")
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "experts" / "add")
    tasks = TaskSet.load(TASKS, TaskSettings((str(EXAMPLES / "tasks"),)))
    theirs = evaluate(model, tokenizer, tmp_path, list(TASKS), EXAMPLES / "tasks", limit=60, batch_size=16)
    scorer = ModelScorer(model, tokenizer, tasks)
    for task in TASKS:
        objective = tasks.objective(task)
        first = [document.id for document in tasks.documents(task)][:60]
        key = objective.metric if objective.filter == "none" else f"{objective.metric},{objective.filter}"
        ours = [response.value for response in scorer.answers(task, first) if response.metric == key]
        assert ours == per_item(theirs, task, objective.metric, objective.filter)
    assert scorer.fallbacks == {}
