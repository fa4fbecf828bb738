"""A user's own fitness function: how it is found, what it is given, and what may come back."""

from __future__ import annotations

import random

import numpy as np
import pytest

from evomerge.candidate import Objective
from evomerge.errors import CandidateError, TaskError
from evomerge.scoring import Measure, documents, estimate, version
from evomerge.scoring.metrics._python_function import read_function
from evomerge.workers._runner import failure_of

WANTED = Objective("mine", "mine", "score", kind="python")


def measure(folder, function, **settings):
    shared = {"prompts": None, "items": None, "max_tokens": 4, "until": [], "folder": str(folder)}
    return Measure("python", "mine", {"function": f"fitness:{function}", **shared, **settings})


@pytest.fixture
def write(tmp_path):
    def _write(text):
        (tmp_path / "fitness.py").write_text(text)
        return tmp_path

    return _write


def answers(answerer, asked):
    items = [document.id for document in documents(asked).documents]
    return answerer(asked).answers("mine", items)


def test_a_function_gets_the_model_and_tokenizer_and_its_number_is_the_score(answerer, model, tokenizer, write):
    folder = write(
        "def norm(asked):\n"
        "    assert asked.tokenizer('a')['input_ids'] and not asked.model.training\n"
        "    return asked.model.lm_head.weight.norm()\n"
    )
    score = estimate(answers(answerer, measure(folder, "norm")), WANTED)
    assert score.value == pytest.approx(model.lm_head.weight.detach().norm().item())
    assert (score.stderr, score.items) == (0.0, 1)


@pytest.mark.parametrize("form", ["[len(t) for t in a.texts]", "{i: len(t) for i, t in zip(a.items, a.texts)}"])
def test_generated_texts_give_a_score_per_prompt(answerer, write, form):
    folder = write(f"def lengths(a):\n    return {form}\n")
    (folder / "prompts.txt").write_text("one and\ntwo and\nthree\\nand\n")
    asked = measure(folder, "lengths", prompts=str(folder / "prompts.txt"))
    rows = answers(answerer, asked)
    assert [row.value for row in rows] == [len(row.answer) for row in rows]
    written = answerer().queries.write("x", ["one and", "two and", "three\nand"], 4)
    assert [row.answer for row in rows] == [answer.text for answer in written]
    score = estimate(rows, WANTED)
    assert score.value == pytest.approx(np.mean([row.value for row in rows]))
    assert score.items == 3
    assert score.stderr > 0


def test_one_number_for_many_texts_claims_no_precision_from_their_count(answerer, write):
    folder = write("def share(a):\n    return sum(bool(t) for t in a.texts) / len(a.texts)\n")
    (folder / "prompts.txt").write_text("one\ntwo\nthree\n")
    rows = answers(answerer, measure(folder, "share", prompts=str(folder / "prompts.txt")))
    score = estimate(rows, WANTED)
    assert (score.value, score.stderr) == (1.0, 0.0)


def test_what_a_function_raises_fails_the_candidate_and_keeps_the_traceback(answerer, write):
    folder = write("def wrong(asked):\n    values = {}\n    return values['missing']\n")
    with pytest.raises(CandidateError, match=r"fitness:wrong' raised KeyError: 'missing'") as caught:
        answers(answerer, measure(folder, "wrong"))
    failure = failure_of(caught.value)
    assert failure.kind == "candidate"
    assert "values['missing']" in failure.traceback


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("return float('nan')", CandidateError, "returned nan"),
        ("return [1.0, float('inf')]", CandidateError, "returned inf for item '1'"),
        ("return [1, 2, 3]", TaskError, "3 scores for 2 items"),
        ("return {'0': 1}", TaskError, "scores for 1 items"),
        ("return {'0': 1, '1': 'a'}", TaskError, "score of item '1' is not a number"),
        ("return None", TaskError, "must return a number, a list"),
        ("return 'good'", TaskError, "must return a number, a list"),
    ],
)
def test_what_comes_back_is_checked(answerer, write, body, error, words):
    folder = write(f"def score(asked):\n    {body}\n")
    with pytest.raises(error, match=words):
        answers(answerer, measure(folder, "score", items=2))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("fitness", "package.module:function"),
        ("fitness:no", r"no function 'no'. Near: not_one|no function 'no'"),
        ("fitnes:good", "no module 'fitnes'"),
        ("fitness:two", "must take one argument"),
        ("broken:f", "importing failed with ZeroDivisionError"),
    ],
)
def test_an_import_path_is_checked_before_any_model_is_loaded(write, path, words):
    folder = write("def good(asked):\n    return 1\n\ndef two(a, b):\n    return 1\n")
    (folder / "broken.py").write_text("1 / 0\n")
    with pytest.raises(TaskError, match=words):
        version(Measure("python", "mine", {**measure(folder, "good").settings, "function": path}))


def test_changed_code_is_another_version_and_is_read_again(write):
    folder = write("def score(asked):\n    return 1\n")
    asked = measure(folder, "score")
    before = version(asked)
    write("def score(asked):\n    return 2\n")
    assert version(asked) != before
    assert read_function("fitness:score", str(folder)).call(None) == 2


def test_chance_inside_is_repeatable_and_stays_inside(answerer, write):
    folder = write("import random\n\ndef score(asked):\n    return random.random()\n")
    state = random.getstate()
    first, second = (answers(answerer, measure(folder, "score")) for _ in range(2))
    assert first == second
    assert random.getstate() == state
