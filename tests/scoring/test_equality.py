"""The resident scorer's answers are lm-eval's, item by item: task shapes x model families."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from evomerge.scoring import ModelScorer, TaskSet, TaskSettings
from tests.scoring.reference import evaluate, outputs, per_item
from tests.scoring.worlds import FAMILIES, TASKS

SHAPES = (
    "t_cloze",
    "t_shots",
    "t_preamble",
    "t_letters",
    "t_mutual",
    "t_story",
    "t_rolling",
    "t_blanks",
    "t_sums",
    "t_sums_shots",
)


@pytest.fixture(scope="module")
def task_set():
    return TaskSet.load(SHAPES, TaskSettings(include=(str(TASKS),)))


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, models, tokenizer, task_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = evaluate(models[request.param], tokenizer, folder, list(SHAPES), TASKS)
    # The tokenizer as it comes from the folder: transformers may pick another class for a family.
    return theirs, ModelScorer(models[request.param], AutoTokenizer.from_pretrained(folder), task_set)


@pytest.mark.parametrize("task", SHAPES)
def test_every_metric_of_every_item_is_lm_evals(both, task_set, task):
    theirs, scorer = both
    ids = [document.id for document in task_set.documents(task)]
    responses = scorer.answers(task, ids)
    assert scorer.fallbacks == {}  # the shared prefixes are what is tested
    assert {response.item for response in responses} == set(ids)
    for filter in task_set.filters(task):
        for metric in task_set.metrics(task):
            name = metric if filter == "none" else f"{metric},{filter}"
            ours = {response.item: response.value for response in responses if response.metric == name}
            assert [ours[item] for item in ids] == pytest.approx(per_item(theirs, task, metric, filter), abs=2e-4)
            aggregate = theirs["results"][task][f"{metric},{filter}"]
            assert sum(ours.values()) / len(ours) == pytest.approx(aggregate, abs=1e-4)


@pytest.mark.parametrize("task", SHAPES)
def test_raw_outputs_are_lm_evals(both, task_set, task):
    theirs, scorer = both
    ids = [document.id for document in task_set.documents(task)]
    given = scorer.outputs(task, ids)
    for ours, expected in zip(given, outputs(theirs, task), strict=True):
        for (answer,), other in zip(ours, expected, strict=True):
            if isinstance(other, str):
                assert answer == other
            elif isinstance(other, tuple):
                assert answer[0] == pytest.approx(float(other[0]), abs=2e-3, rel=1e-5)
                assert answer[1] == (other[1] in (True, "True"))
            else:
                assert answer == pytest.approx(float(other), abs=5e-3, rel=1e-5)
