"""Answers kept across runs: the same question to the same model is asked once, and anything else is asked again."""

from __future__ import annotations

import multiprocessing
import sqlite3
import warnings

import pytest

import evomerge
from evomerge.candidate import Response
from evomerge.commands import replay
from evomerge.scoring import AnswerCache, Measure, ModelScorer, TaskSet, TaskSettings
from evomerge.scoring._answer_cache import FILE_NAME, digest, identity
from tests.end_to_end.conftest import TASKS as EXAMPLES
from tests.metrics.test_search import SEARCH
from tests.pico import make_model as make_pico
from tests.scoring.worlds import TASKS, make_model

ITEMS = ("0", "1", "2")
ROWS = [Response("t", "a", "acc", 1 / 3, "yes, “quoted”"), Response("t", "a", "acc_norm", 0.0)]


class Counting(ModelScorer):
    """Counts the items that the model really answers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = 0
        plain = self.queries.likelihoods

        def likelihoods(name, pairs):
            self.asked += len(pairs)
            return plain(name, pairs)

        self.queries.likelihoods = likelihoods

    def remembered(self, weights, task, items):
        return tuple(response for portion in self.portions(weights, task, items) for response in portion)

    def output_portions(self, task, items, together=()):
        self.asked += len(items)
        return super().output_portions(task, items, together)


def measure(text="the sea"):
    phrases = [{"after": "", "text": text, "lower": False}, {"after": "a", "text": " b", "lower": False}]
    return Measure("phrases", "p", {"phrases": phrases})


@pytest.fixture
def make(tmp_path, tokenizer, task_set):
    def _make(model=None, tasks=task_set, asked=None, folder=tmp_path / "cache"):
        model = model or make_model("llama", len(tokenizer), seed=3)
        return Counting(model, tokenizer, tasks, [asked or measure()], cache=AnswerCache(str(folder)))

    return _make


def test_what_is_put_is_what_comes_back(tmp_path):
    cache = AnswerCache(str(tmp_path))
    cache.put([("k1", ROWS), ("k2", [])])
    assert AnswerCache(str(tmp_path)).get({"a": "k1", "b": "k2", "c": "k3"}) == {"a": ROWS, "b": []}


def test_the_same_weights_are_asked_once_whoever_asks(make):
    first = make().remembered("w", "t_sums", ITEMS)
    second = make()
    assert second.remembered("w", "t_sums", ITEMS) == first
    assert second.asked == 0
    more = second.remembered("w", "t_sums", (*ITEMS, "3"))
    assert second.asked == 1  # only what is new
    assert set(more[: len(first)]) == set(first)
    measured = make()
    assert measured.remembered("w", "p", ("0", "1")) == make().remembered("w", "p", ("0", "1"))
    assert measured.asked == 2


def test_without_a_fingerprint_nothing_is_remembered(make):
    make().remembered("w", "t_sums", ITEMS)
    scorer = make()
    scorer.remembered("", "t_sums", ITEMS)
    assert scorer.asked == 3


def test_changed_weights_prompts_settings_and_versions_are_asked_again(make, tokenizer, tmp_path):
    make().remembered("w", "t_sums", ITEMS)
    make().remembered("w", "p", ("0", "1"))

    def asked(scorer, weights="w", task="t_sums"):
        scorer.remembered(weights, task, ITEMS if task == "t_sums" else ("0", "1"))
        return scorer.asked

    assert asked(make()) == 0
    assert asked(make(), weights="v") == 3
    shots = TaskSet.load(["t_sums"], TaskSettings((str(TASKS),), {"num_fewshot": 1}))
    assert asked(make(tasks=shots)) == 3
    shorter = TaskSet.load(["t_sums"], TaskSettings((str(TASKS),), {"gen_kwargs": {"max_gen_toks": 3}}))
    assert asked(make(tasks=shorter)) == 3
    cut = TaskSet.load(["t_sums"], TaskSettings((str(TASKS),), {"model_args": {"max_length": 100}}))
    assert asked(make(tasks=cut)) == 3
    assert asked(make(asked=measure("the hill")), task="p") == 2
    # the same weights in another network
    assert asked(make(make_model("llama", len(tokenizer), seed=3, rope_theta=500.0))) == 3
    ends = make_model("llama", len(tokenizer), seed=3)
    ends.generation_config.eos_token_id = 7
    assert asked(make(ends)) == 3


def test_a_new_version_of_a_task_is_asked_again(make, tmp_path):
    folder = tmp_path / "tasks"
    (folder / "data").mkdir(parents=True)
    for name in ("sums.jsonl", "sums_train.jsonl"):
        (folder / "data" / name).write_text((TASKS / "data" / name).read_text())
    text = (TASKS / "sums.yaml").read_text()
    (folder / "sums.yaml").write_text(text)
    scorer = make(tasks=TaskSet.load(["t_sums"], TaskSettings((str(folder),))))
    scorer.remembered("w", "t_sums", ITEMS)
    for old, new in [("ignore_case: true", "ignore_case: false"), ("version: 1.0", "version: 2.0")]:
        text = text.replace(old, new)
        (folder / "sums.yaml").write_text(text)
        scorer = make(tasks=TaskSet.load(["t_sums"], TaskSettings((str(folder),))))
        scorer.remembered("w", "t_sums", ITEMS)
        assert scorer.asked == 3, (old, new)


def test_another_tokenizer_is_another_model(tokenizer, model):
    from tests.scoring.worlds import make_tokenizer

    before = identity(model, tokenizer, {})
    tokenizer("a text", padding="max_length", max_length=8, truncation=True)  # leaves traces in the tokenizer
    assert identity(model, tokenizer, {}) == before
    assert identity(model, tokenizer, {"batch_size": 3}) == before
    assert identity(model, make_tokenizer(bos=True), {}) != before
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def _hammer(folder, worker):
    cache = AnswerCache(folder)
    for step in range(40):
        cache.put([(f"{worker}-{step}", ROWS), (f"all-{step}", ROWS)])
        assert cache.get({"a": f"{worker}-{step}"}) == {"a": ROWS}


def test_many_writers_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_hammer, args=(str(tmp_path), number)) for number in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    cache = AnswerCache(str(tmp_path))
    keys = {f"{number}-{step}": f"{number}-{step}" for number in range(4) for step in range(40)}
    assert set(cache.get(keys)) == set(keys)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_put_aside_with_a_warning_and_rebuilt(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.warns(RuntimeWarning, match="was damaged"):
        cache = AnswerCache(str(tmp_path))
    cache.put([("k", ROWS)])
    assert AnswerCache(str(tmp_path)).get({"a": "k"}) == {"a": ROWS}
    assert (tmp_path / "answers.damaged").read_bytes() == content


def test_a_row_that_does_not_read_back_is_asked_again_and_replaced(tmp_path):
    cache = AnswerCache(str(tmp_path))
    cache.put([("k", ROWS)])
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("UPDATE answers SET value = replace(value, '0.333', '0.999')")
    other.commit()
    assert cache.get({"a": "k"}) == {}
    cache.put([("k", ROWS)])
    assert cache.get({"a": "k"}) == {"a": ROWS}


def test_a_folder_that_cannot_be_used_is_said_once_and_costs_nothing_else(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        cache = AnswerCache(str(tmp_path / "file" / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put([("k", ROWS)])
        assert cache.get({"a": "k"}) == {}


def test_a_second_run_over_the_same_models_pays_for_no_answer_and_scores_the_same(tmp_path, monkeypatch):
    make_pico(tmp_path / "base", seed=0)
    for seed, name in enumerate(("left", "right"), start=1):
        make_pico(tmp_path / name, seed=seed, noise_from=tmp_path / "base", noise=0.1)
    text = SEARCH.format(objectives="  - {task: add}").replace("0.5", "0.02, cache: kept")
    (tmp_path / "search.yaml").write_text(text.replace("scoring:", f"tasks: {{include: [{EXAMPLES}]}}\nscoring:"))
    first = evomerge.search(tmp_path / "search.yaml", out=tmp_path / "one")
    assert (tmp_path / "kept" / FILE_NAME).is_file()
    asked = []
    monkeypatch.setattr(ModelScorer, "answers", lambda self, task, items: asked.append(items) or ())
    second = evomerge.search(tmp_path / "search.yaml", out=tmp_path / "two")
    assert not asked
    assert second.items().equals(first.items())
    assert second.items("holdout").equals(first.items("holdout"))
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "kept" / FILE_NAME) as connection:
        connection.execute("DELETE FROM answers")
    assert replay(tmp_path / "two", 0).same
    assert not AnswerCache(str(tmp_path / "kept"))._connection.execute("SELECT * FROM answers").fetchall()
