"""Searches of tiny models for other things than tasks: checked, run, resumed, reported."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import evomerge
from evomerge.commands import check, replay
from evomerge.errors import RunError, SearchFileError
from tests.end_to_end.conftest import TASKS
from tests.pico import make_model

SEARCH = """
merge:
  merge_method: task_arithmetic
  base_model: ./base
  models: [{{model: ./left}}, {{model: ./right}}]
  parameters: {{weight: {{search: [0, 1], per: [model]}}}}
objectives:
{objectives}
scoring: {{items: 6, holdout: 0.5}}
controller: {{name: sobol}}
budget: {{candidates: 2}}
"""
ALL = """
  - {perplexity: {file: text.txt, chunk: 40}, name: wiki}
  - {python: 'fitness:size'}
  - {python: {function: 'fitness:brevity', prompts: ask.txt, max_tokens: 6}}
  - {phrases: {raise: [sure, of course], lower: [perhaps, never]}}
  - {response_length: {prompts: ask.txt, max_tokens: 8}}
"""
FITNESS = """
def size(asked):
    return sum(float(p.square().sum()) for p in asked.model.parameters())


def brevity(asked):
    return [-len(text) for text in asked.texts]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    make_model(folder / "base", seed=0)
    for seed, name in enumerate(("left", "right"), start=1):
        make_model(folder / name, seed=seed, noise_from=folder / "base", noise=0.1)
    (folder / "text.txt").write_text("".join(f"line {n} of a text to read: {n * n}.\n" for n in range(20)))
    (folder / "ask.txt").write_text("Hello\nWhat is it?\nWho is it?\nCount\n")
    (folder / "fitness.py").write_text(FITNESS)
    (folder / "search.yaml").write_text(SEARCH.format(objectives=ALL))
    return folder


@pytest.fixture(scope="module")
def run(place):
    return evomerge.search(place / "search.yaml", out=place / "run")


def test_every_measure_has_a_score_with_an_error_on_search_and_held_out_items(run):
    names = ["wiki", "size", "brevity", "phrases", "response_length"]
    table = run.trials()
    assert list(table["status"]) == ["done", "done"]
    assert np.isfinite(table[[f"score.{name}" for name in names]]).all().all()
    assert list(table.loc[0, [f"items.{name}" for name in names]]) == [6, 1, 2, 2, 2]
    assert (table["stderr.wiki"] > 0).all()
    assert (table["stderr.size"] == 0).all()
    finals = run.finals()
    assert len(finals) == 5  # three parents and two finalists
    assert all(set(final.scores) == set(names) for final in finals)
    items = run.config.items
    for name in ("wiki", "brevity", "phrases", "response_length"):
        assert not set(items.search[name]) & set(items.holdout[name])
    assert [objective.goal for objective in run.objectives] == [
        "minimize",
        "maximize",
        "maximize",
        "maximize",
        "minimize",
    ]


def test_the_summary_says_each_measure_in_its_own_unit(run):
    text = run.summary()
    best = next(final for final in run.finals() if final.number >= 0)
    assert f"wiki {best.scores['wiki'].value:.4g} ±" in text
    front = run.front().iloc[0]
    # whole numbers, however large: a cut-off error bar would look like a small one
    assert re.search(rf"{front['score.size']:.5g} ± 0\b", text.split("Held-out")[0])
    assert " points" not in text.split("Held-out items")[1]


def test_a_candidate_replays_to_the_same_answers(run, place):
    assert replay(place / "run", 0).same


def test_resuming_refuses_another_text_or_function(run, place):
    evomerge.resume(place / "run", candidates=3)
    assert len(run.trials()) == 3
    for name in ("text.txt", "fitness.py"):
        before = (place / name).read_text()
        (place / name).write_text(before + "\n# more\n")
        with pytest.raises(RunError, match="has other documents, settings or code"):
            evomerge.resume(place / "run", candidates=4)
        (place / name).write_text(before)


def test_check_says_what_would_be_measured(place):
    text = check(place / "search.yaml").text()
    assert "objective  wiki: minimize perplexity on 6 items, 10 held out, of 20" in text
    assert "objective  size: maximize score on 1 items" in text


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{perplexity: {file: ask.txt, chunk: 5000}}", "ask.txt has 1 chunks"),
        (f"{{response_length: add}}\ntasks: {{include: [{TASKS}]}}", "task 'add' has no written answers"),
        ("{python: 'fitness:sise'}", "has no function 'sise'. Near: size"),
        ("{python: 'fitnes:size'}", "no module 'fitnes'"),
    ],
)
def test_check_finds_what_cannot_be_measured(place, entry, words):
    (place / "wrong.yaml").write_text(SEARCH.format(objectives=f"  - {entry}"))
    with pytest.raises(SearchFileError) as caught:
        check(place / "wrong.yaml")
    assert words in str(caught.value)


def test_a_function_that_fails_on_a_model_fails_that_candidate_with_its_traceback(place):
    (place / "fails.py").write_text("def f(asked):\n    raise ValueError('too cold')\n")
    (place / "fails.yaml").write_text(SEARCH.format(objectives="  - {python: 'fails:f'}"))
    found = evomerge.search(place / "fails.yaml", out=place / "fails").tables.failures()
    assert set(found["kind"]) == {"candidate"}
    assert found["message"].str.contains("raised ValueError: too cold").all()
    assert found["traceback"].str.contains("fails.py").all()


WRITTEN = """
  - {response_length: reverse, goal: maximize}
  - {task: sort, metric: exact_match}
"""


def test_trials_and_summary_say_how_many_answers_were_cut_off(place):
    text = SEARCH.format(objectives=WRITTEN).replace("scoring:", f"tasks: {{include: [{TASKS}]}}\nscoring:")
    (place / "written.yaml").write_text(text.replace("holdout: 0.5", "holdout: 0.02"))
    run = evomerge.search(place / "written.yaml", out=place / "written")
    table, items = run.trials(), run.items()
    assert list(table.columns[-4:]) == [
        "gene.weight.left",
        "gene.weight.right",
        "truncated.response_length",
        "truncated.sort",
    ]
    for number, row in table.set_index("candidate").iterrows():
        mine = items[(items["candidate"] == number) & (items["task"] == "sort") & (items["metric"] == "truncated")]
        assert row["truncated.sort"] == mine["value"].mean()
    mine = items[(items["candidate"] == 0) & (items["task"] == "reverse") & (items["metric"] == "response_tokens")]
    assert table.loc[0, "score.response_length"] == mine["value"].mean() > 0
    best = table.set_index("candidate").loc[run.best().number]
    assert best["truncated.sort"] > 0.05  # untrained models never end an answer
    assert f"note: sort: {100 * best['truncated.sort']:.0f}% of the answers" in run.summary()
