"""Phrases and response lengths against plain transformers."""

from __future__ import annotations

import pytest
import torch

from evomerge.candidate import Objective
from evomerge.errors import TaskError
from evomerge.scoring import Measure, estimate
from evomerge.scoring.metrics._texts import read_prompts
from tests.scoring.worlds import make_model

PHRASES = [
    {"after": "two plus two is", "text": " four", "lower": False},
    {"after": "", "text": "hello", "lower": False},
    {"after": "two plus two is", "text": " five and more", "lower": True},
]


def log_likelihood(model, tokenizer, after, text):
    before = tokenizer(after)["input_ids"] if after else [tokenizer.eos_token_id]
    whole = torch.tensor([[*before, *tokenizer(text)["input_ids"]]])
    with torch.inference_mode():
        scores = torch.log_softmax(model(whole).logits[0, :-1].double(), dim=-1)
    return float(scores.gather(1, whole[0, 1:, None])[len(before) - 1 :].sum())


def test_phrases_are_log_likelihoods_with_the_sign_of_what_is_wanted(answerer, model, tokenizer):
    rows = answerer(Measure("phrases", "p", {"phrases": PHRASES})).answers("p", ["0", "1", "2"])
    expected = [log_likelihood(model, tokenizer, phrase["after"], phrase["text"]) for phrase in PHRASES]
    assert [row.value for row in rows] == pytest.approx([expected[0], expected[1], -expected[2]], rel=1e-4)
    score = estimate(rows, Objective("p", "p", "log_likelihood", kind="phrases"))
    assert score.value == pytest.approx((expected[0] + expected[1] - expected[2]) / 3, rel=1e-4)


def test_a_single_phrase_is_no_sample_and_has_no_error(answerer):
    rows = answerer(Measure("phrases", "p", {"phrases": PHRASES[:1]})).answers("p", ["0"])
    assert estimate(rows, Objective("p", "p", "log_likelihood", kind="phrases")).stderr == 0


def greedy(model, tokenizer, prompt, limit):
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=limit, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    tokens = out.tolist()
    return tokens[: tokens.index(0)] if 0 in tokens else tokens


def test_lengths_are_the_tokens_that_plain_generation_writes(answerer, model, tokenizer, tmp_path):
    prompts = ["one and", "the sea", "hills of", "2 + 2 ="]
    path = tmp_path / "ask.txt"
    path.write_text("\n".join(prompts))
    asked = Measure("response_length", "n", {"prompts": str(path), "max_tokens": 12, "until": []})
    rows = answerer(asked).answers("n", ["0", "1", "2", "3"])
    assert [row.value for row in rows] == [len(greedy(model, tokenizer, prompt, 12)) for prompt in prompts]


@pytest.mark.parametrize("fast", [True, False])
def test_an_answer_knows_whether_it_came_to_its_end(tokenizer, task_set, fast):
    from evomerge.scoring import ModelScorer

    model = make_model("llama", len(tokenizer), seed=3)
    model.lm_head.weight.data.mul_(0)  # every token equally likely: the first one, end of text, is chosen
    answerer = ModelScorer(model, tokenizer, task_set, fast=fast).queries
    (answer,) = answerer.write("x", ["one"], 5)
    assert (answer.text, answer.tokens, answer.ended) == ("", 0, True)
    model.lm_head.weight.data.copy_(make_model("llama", len(tokenizer), seed=3).lm_head.weight.data)
    (answer,) = answerer.write("x", ["one"], 5)
    assert (answer.tokens, answer.ended) == (5, False)


def test_prompts_come_from_lines_or_json(tmp_path):
    lines, records, bad = tmp_path / "a.txt", tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    lines.write_text("one\n\ntwo\\nlines\n")
    records.write_text('{"id": "q7", "prompt": "one"}\n{"prompt": "two"}\n')
    bad.write_text('{"prompt": "one"}\n{"prmpt": "two"}\n')
    assert read_prompts(str(lines)) == [{"prompt": "one"}, {"prompt": "two\nlines"}]
    assert read_prompts(str(records)) == [{"prompt": "one", "id": "q7"}, {"prompt": "two"}]
    with pytest.raises(TaskError, match=r"b.jsonl, line 2: expected an object with a \"prompt\""):
        read_prompts(str(bad))
