"""Answers that were cut off, and answers that no filter finds, are counted beside the score."""

from __future__ import annotations

import pytest

from evomerge.scoring import ModelScorer
from evomerge.scoring._answer_flags import extraction_failed
from evomerge.scoring.lm_eval._adapter import make_lm
from tests.scoring.worlds import make_model

ITEMS = ("0", "1", "2", "3")


def values(responses, metric):
    return {response.item: response.value for response in responses if response.metric == metric}


def test_the_flags_come_after_the_scores_and_are_the_same_for_every_backend(model, tokenizer, task_set):
    packed, plain = (
        ModelScorer(model, tokenizer, task_set, fast=fast).answers("t_sums", ITEMS) for fast in (True, False)
    )
    assert packed == plain
    metrics = list(dict.fromkeys(response.metric for response in packed))
    assert metrics[-2:] == ["truncated", "response_tokens"]


@pytest.mark.parametrize("fast", [True, False])
def test_truncation_and_length_are_those_of_plain_generation(tokenizer, task_set, fast):
    model = make_model("llama", len(tokenizer), seed=3)
    rows = ModelScorer(model, tokenizer, task_set, fast=fast).answers("t_sums", ITEMS)
    prompts = task_set.prompts("t_sums", ITEMS, make_lm(model, tokenizer, task_set.settings, 8))
    for prompt in prompts:
        ids = tokenizer(prompt.requests[0].args[0], return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
        text = tokenizer.decode(out)
        stopped = any(stop in text for stop in ("\n", " the", "<|end|>"))
        assert values(rows, "truncated")[prompt.item] == float(not stopped)
        if not stopped:
            assert values(rows, "response_tokens")[prompt.item] == 12


def test_a_model_that_says_nothing_is_not_cut_off_and_gives_no_answer(tokenizer, task_set):
    model = make_model("llama", len(tokenizer), seed=3)
    model.lm_head.weight.data.mul_(0)  # the end of text is the first of equals
    rows = ModelScorer(model, tokenizer, task_set).answers("t_sums", ITEMS)
    assert set(values(rows, "truncated").values()) == {0.0}
    assert set(values(rows, "response_tokens").values()) == {0.0}
    assert set(values(rows, "unextracted,strict").values()) == {1.0}
    assert set(values(rows, "unextracted,anywhere").values()) == {1.0}


@pytest.mark.parametrize(
    ("steps", "results", "failed"),
    [
        ([("regex", {}), ("take_first", {})], ["[invalid]"], True),
        ([("regex", {}), ("take_first", {})], ["42"], False),
        ([("regex", {"fallback": "none"})], [["none"]], True),
        ([("regex", {}), ("majority_vote", {})], [["[invalid]", "7"]], False),
        ([("take_first", {})], ["[invalid]"], None),
    ],
)
def test_an_extraction_fails_where_only_the_fallback_comes_out(steps, results, failed):
    assert extraction_failed(steps, results) is failed
