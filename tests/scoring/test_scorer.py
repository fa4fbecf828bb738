"""The resident scorer beyond plain equality: chance, failures, fallbacks, settings, subsets, other families."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from evomerge.errors import CandidateError, InputError, TaskError
from evomerge.scoring import SHORTENED, ModelScorer, TaskSet, TaskSettings, split
from evomerge.scoring.batched import _backends as backends
from evomerge.scoring.batched._backends import GenerationBackend, LikelihoodBackend
from tests.scoring.reference import evaluate, outputs, per_item
from tests.scoring.worlds import CHAT, TASKS, make_model, make_tokenizer

KINDS = ("t_cloze", "t_sums", "t_rolling")


@pytest.fixture(scope="module")
def task_set():
    return TaskSet.load([*KINDS, "t_shots", "t_preamble", "t_sums_shots", "t_story"], TaskSettings((str(TASKS),)))


@pytest.fixture(scope="module")
def llama(models):
    return models["llama"]


def ids(task_set, task):
    return [document.id for document in task_set.documents(task)]


def likelihoods(given):
    return [answer[0] if isinstance(answer, tuple) else answer for item in given for (answer,) in item]


def test_the_global_generators_are_left_as_they_were(llama, tokenizer, task_set):
    scorer = ModelScorer(llama, tokenizer, task_set)
    plain = ModelScorer(llama, tokenizer, task_set, fast=False)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for task in KINDS:
        scorer.answers(task, ids(task_set, task)[:3])
        plain.answers(task, ids(task_set, task)[:3])
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_the_callers_tokenizer_is_left_as_it_was(llama, task_set):
    own = make_tokenizer()
    own.pad_token = None
    ModelScorer(llama, own, task_set)
    assert own.pad_token is None


def test_new_weights_give_new_answers_and_old_ones_the_old(tokenizer, task_set):
    model = make_model("llama", len(tokenizer), seed=1)
    scorer = ModelScorer(model, tokenizer, task_set)
    first = scorer.outputs("t_preamble", ids(task_set, "t_preamble"))
    head = model.lm_head.weight.data
    kept = head.clone()
    head.mul_(0.5)
    assert likelihoods(scorer.outputs("t_preamble", ids(task_set, "t_preamble"))) != likelihoods(first)
    head.copy_(kept)
    assert scorer.outputs("t_preamble", ids(task_set, "t_preamble")) == first


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("fast", [True, False])
def test_weights_that_are_not_numbers_fail_the_candidate(tokenizer, task_set, task, fast):
    model = make_model("llama", len(tokenizer))
    scorer = ModelScorer(model, tokenizer, task_set, fast=fast)
    good = scorer.outputs(task, ids(task_set, task)[:4])
    kept = model.model.layers[0].mlp.down_proj.weight.data.clone()
    model.model.layers[0].mlp.down_proj.weight.data.fill_(float("nan"))
    with pytest.raises(CandidateError, match=r"NaN|nan"):
        scorer.answers(task, ids(task_set, task)[:4])
    model.model.layers[0].mlp.down_proj.weight.data.copy_(kept)
    assert scorer.outputs(task, ids(task_set, task)[:4]) == good


def test_a_first_candidate_that_is_not_a_number_does_not_spoil_the_way(tokenizer, task_set):
    model = make_model("llama", len(tokenizer))
    kept = model.lm_head.weight.data.clone()
    model.lm_head.weight.data.fill_(float("nan"))
    scorer = ModelScorer(model, tokenizer, task_set)
    for task in KINDS:
        with pytest.raises(CandidateError):
            scorer.answers(task, ids(task_set, task)[:4])
    model.lm_head.weight.data.copy_(kept)
    fresh = ModelScorer(model, tokenizer, task_set)
    for task in KINDS:
        assert scorer.outputs(task, ids(task_set, task)[:4]) == fresh.outputs(task, ids(task_set, task)[:4])
    assert scorer.fallbacks == {}


def test_an_items_prompt_does_not_depend_on_what_else_is_asked(llama, tokenizer, task_set):
    scorer, other = (ModelScorer(llama, tokenizer, task_set) for _ in range(2))
    everything = ids(task_set, "t_shots")
    whole = scorer.outputs("t_shots", everything)
    few = other.outputs("t_shots", [everything[17], everything[4]])
    assert likelihoods(few) == pytest.approx(likelihoods([whole[17], whole[4]]), rel=1e-5)


def test_answers_follow_the_plan(llama, tokenizer, task_set):
    documents = {task: task_set.documents(task) for task in KINDS}
    plan = split(documents, items=5, holdout=0.5, seed=1)
    scorer = ModelScorer(llama, tokenizer, task_set)
    for task, items in (*plan.search.items(), *plan.holdout.items()):
        responses = scorer.answers(task, items)
        assert list(dict.fromkeys(response.item for response in responses)) == list(items)
        assert {response.task for response in responses} == {task}
    assert scorer.answers("t_cloze", []) == ()


def test_answers_show_the_choice_and_the_text(llama, tokenizer, task_set):
    scorer = ModelScorer(llama, tokenizer, task_set)
    chosen = scorer.answers("t_cloze", ["q0"])[0]
    values = likelihoods(scorer.outputs("t_cloze", ["q0"]))
    assert chosen.answer == str(int(np.argmax(values)))
    written = {response.metric: response.answer for response in scorer.answers("t_sums", ["0"])}
    assert {"exact_match,strict", "exact_match,anywhere"} <= set(written)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_batch_size_changes_no_text(llama, tokenizer, task_set, size):
    everything = ids(task_set, "t_sums_shots")
    expected = ModelScorer(llama, tokenizer, task_set, fast=False).outputs("t_sums_shots", everything)
    assert ModelScorer(llama, tokenizer, task_set, batch_size=size).outputs("t_sums_shots", everything) == expected


def test_impossible_batch_sizes_are_refused(llama, tokenizer, task_set):
    with pytest.raises(InputError, match="batch_size must be a whole number of at least 1, or 'auto', got 0"):
        ModelScorer(llama, tokenizer, task_set, batch_size=0)


def test_unknown_items_are_refused(llama, tokenizer, task_set):
    with pytest.raises(TaskError, match="no document 'q99'; it has 24"):
        ModelScorer(llama, tokenizer, task_set).answers("t_cloze", ["q99"])


def test_long_prompts_lose_their_beginning_as_in_lm_eval_and_are_counted(tokenizer, tmp_path):
    model = make_model("llama", len(tokenizer), max_position_embeddings=64)
    names = ["t_preamble", "t_rolling", "t_sums_shots", "t_cloze"]
    tasks = TaskSet.load(names, TaskSettings((str(TASKS),)))
    scorer = ModelScorer(model, tokenizer, tasks)
    tokenizer_of_64 = make_tokenizer()
    tokenizer_of_64.model_max_length = 64
    theirs = evaluate(model, tokenizer_of_64, tmp_path, names, TASKS)
    for task in names:
        given = scorer.outputs(task, ids(tasks, task))
        expected = outputs(theirs, task)
        if task == "t_sums_shots":
            assert [item[0][0] for item in given] == [item[0] for item in expected]
        else:
            flat = [float(answer[0] if isinstance(answer, tuple) else answer) for item in expected for answer in item]
            assert likelihoods(given) == pytest.approx(flat, rel=1e-4, abs=2e-3)
    assert scorer.truncated == {"t_preamble": 24, "t_sums_shots": 20}
    cut = [response for response in scorer.answers("t_preamble", ids(tasks, "t_preamble")[:5]) if response.value]
    assert sum(response.metric == SHORTENED for response in cut) == 5
    whole = scorer.answers("t_cloze", ids(tasks, "t_cloze"))
    assert all(response.metric != SHORTENED for response in whole)
    assert scorer.fallbacks == {}


def test_a_context_too_small_for_the_answer_is_refused(tokenizer, task_set):
    model = make_model("llama", len(tokenizer), max_position_embeddings=10)
    with pytest.raises(TaskError, match="answers of up to 12 tokens leave no room"):
        ModelScorer(model, tokenizer, task_set).answers("t_sums", ["0"])


def test_chat_templates_and_instructions_are_lm_evals(models, tmp_path):
    talker = make_tokenizer(CHAT)
    settings = {"apply_chat_template": True, "system_instruction": "Be brief.", "num_fewshot": 2}
    names = ["t_shots", "t_sums_shots"]
    tasks = TaskSet.load(names, TaskSettings((str(TASKS),), settings))
    theirs = evaluate(models["llama"], talker, tmp_path, names, TASKS, **settings)
    scorer = ModelScorer(models["llama"], talker, tasks)
    assert likelihoods(scorer.outputs("t_shots", ids(tasks, "t_shots"))) == pytest.approx(
        [float(answer[0]) for item in outputs(theirs, "t_shots") for answer in item], rel=1e-4, abs=2e-3
    )
    texts = [item[0][0] for item in scorer.outputs("t_sums_shots", ids(tasks, "t_sums_shots"))]
    assert texts == [item[0] for item in outputs(theirs, "t_sums_shots")]


def test_a_missing_chat_template_is_refused(llama, tokenizer):
    tasks = TaskSet.load(["t_cloze"], TaskSettings((str(TASKS),), {"apply_chat_template": True}))
    with pytest.raises(TaskError, match="the tokenizer has no chat template"):
        ModelScorer(llama, tokenizer, tasks).answers("t_cloze", ["q0"])


def test_a_tokenizer_with_a_beginning_token(tmp_path):
    from transformers import AutoTokenizer

    names = ["t_mutual", "t_sums", "t_rolling"]
    starter = make_tokenizer(bos=True)
    model = make_model("llama", len(starter), bos_token_id=1)
    tasks = TaskSet.load(names, TaskSettings((str(TASKS),)))
    theirs = evaluate(model, starter, tmp_path, names, TASKS)
    scorer = ModelScorer(model, AutoTokenizer.from_pretrained(tmp_path), tasks)
    for task in names:
        given = [answer[0] for item in scorer.outputs(task, ids(tasks, task)) for answer in item]
        expected = [answer for item in outputs(theirs, task) for answer in item]
        if task == "t_sums":
            assert given == expected
        else:
            values = [float(answer[0] if isinstance(answer, tuple) else answer) for answer in expected]
            ours = [answer[0] if isinstance(answer, tuple) else answer for answer in given]
            assert ours == pytest.approx(values, rel=1e-4, abs=2e-3)


def test_generation_settings_pass_through(models, tokenizer, tmp_path):
    settings = {"gen_kwargs": {"max_gen_toks": 5, "until": ["e"]}}
    tasks = TaskSet.load(["t_sums"], TaskSettings((str(TASKS),), settings))
    theirs = evaluate(models["llama"], tokenizer, tmp_path, ["t_sums"], TASKS, **settings)
    scorer = ModelScorer(models["llama"], tokenizer, tasks)
    texts = [item[0][0] for item in scorer.outputs("t_sums", ids(tasks, "t_sums"))]
    assert texts == [item[0] for item in outputs(theirs, "t_sums")]
    assert scorer.fallbacks == {}


def test_sampled_answers_are_lm_evals_and_fall_back_by_name(models, tokenizer, tmp_path):
    settings = {"gen_kwargs": {"do_sample": True, "temperature": 0.7}, "batch_size": 4}
    tasks = TaskSet.load(["t_sums"], TaskSettings((str(TASKS),), settings))
    scorer = ModelScorer(models["llama"], tokenizer, tasks)
    first, again = (scorer.outputs("t_sums", ids(tasks, "t_sums")) for _ in range(2))
    assert first == again
    assert scorer.fallbacks == {"t_sums": "answers are sampled"}
    theirs = evaluate(models["llama"], tokenizer, tmp_path, ["t_sums"], TASKS, **settings)
    assert [item[0][0] for item in first] == [item[0] for item in outputs(theirs, "t_sums")]
    greedy = ModelScorer(models["llama"], tokenizer, TaskSet.load(["t_sums"], TaskSettings((str(TASKS),))))
    assert greedy.outputs("t_sums", ids(tasks, "t_sums")) != first


@pytest.mark.parametrize(
    ("family", "changes", "reasons"),
    [
        ("mistral", {"sliding_window": 32}, ("sliding window of 32", "sliding window of 32")),
        ("mistral", {"sliding_window": None}, (None, None)),
        ("gpt_neox", {}, (None, None)),
        ("gemma2", {"sliding_window": 512, "head_dim": 8}, (None, None)),
        ("bloom", {}, ("packed sequences", None)),
        ("mamba", {}, ("packed sequences|layers of type|cache", "layers of type|cache")),
    ],
)
def test_other_families_agree_with_the_plain_path_or_fall_back_by_name(tokenizer, task_set, family, changes, reasons):
    model = make_model(family, len(tokenizer), **changes)
    fast = ModelScorer(model, tokenizer, task_set)
    plain = ModelScorer(model, tokenizer, task_set, fast=False)
    for task, reason in zip(("t_preamble", "t_sums_shots"), reasons, strict=True):
        ours, theirs = (scorer.outputs(task, ids(task_set, task)) for scorer in (fast, plain))
        if task == "t_sums_shots":
            assert ours == theirs
        else:
            assert likelihoods(ours) == pytest.approx(likelihoods(theirs), rel=1e-4, abs=2e-3)
        if reason is None:
            assert task not in fast.fallbacks
        else:
            assert any(part in fast.fallbacks[task] for part in reason.split("|"))


def test_memory_that_runs_out_makes_the_passes_smaller(tokenizer, task_set, monkeypatch):
    model = make_model("llama", len(tokenizer))
    scorer = ModelScorer(model, tokenizer, task_set)
    tasks = ("t_cloze", "t_sums")
    expected = {task: scorer.outputs(task, ids(task_set, task)) for task in tasks}
    forward, limit = model.forward, 100

    def small(*args, input_ids, **kwargs):
        if input_ids.numel() > limit:
            raise torch.OutOfMemoryError(f"{input_ids.numel()} tokens do not fit")
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    for task in tasks:
        given = scorer.outputs(task, ids(task_set, task))
        if task == "t_cloze":
            assert likelihoods(given) == pytest.approx(likelihoods(expected[task]), rel=1e-5)
        else:
            assert given == expected[task]


def test_backends_are_chosen_once_per_set_of_items(llama, tokenizer, task_set, monkeypatch):
    chosen = []
    plain = backends.choose_backends

    def noting(context, requests):
        found = plain(context, requests)
        chosen.extend(backend for _, backend in found)
        return found

    monkeypatch.setattr(backends, "choose_backends", noting)
    scorer = ModelScorer(llama, tokenizer, task_set)
    for _ in range(2):
        scorer.answers("t_cloze", ["q0", "q1"])
        scorer.answers("t_sums", ["0"])
        scorer.queries.likelihoods("x", [("a", " b")])
    assert [type(one) for one in chosen] == [LikelihoodBackend, GenerationBackend, LikelihoodBackend]


def test_a_subset_scores_as_lm_eval_scores_those_samples(models, tokenizer, task_set, tmp_path):
    chosen = [3, 8, 19]
    theirs = evaluate(models["llama"], tokenizer, tmp_path, ["t_cloze"], TASKS, samples={"t_cloze": chosen})
    responses = ModelScorer(models["llama"], tokenizer, task_set).answers("t_cloze", [f"q{i}" for i in chosen])
    for metric in ("acc", "acc_norm"):
        assert [r.value for r in responses if r.metric == metric] == per_item(theirs, "t_cloze", metric)
