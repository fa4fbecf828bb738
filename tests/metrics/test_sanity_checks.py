"""SanityChecks: what falls off, with which reason, and that ordinary models pass."""

from __future__ import annotations

import pytest

import evomerge
from evomerge.candidate import Candidate, Job
from evomerge.engine import ResidentModel
from evomerge.errors import CandidateError
from evomerge.recipe import passthrough, recipe_from_mapping
from evomerge.scoring import ModelScorer, SanityChecks, TaskSet, TaskSettings, check_norms
from evomerge.scoring._sanity_checks import check_answers, repetition
from evomerge.workers import WorkerSpec
from tests.end_to_end.conftest import TASKS
from tests.metrics.test_search import SEARCH
from tests.pico import make_model
from tests.scoring.worlds import make_model as make_loud_model


def test_the_worst_tensor_is_named_with_its_growth():
    check_norms({"a": 9.9, "b": 1.0}, {"a": 1.0, "b": 1.0}, 10)
    with pytest.raises(CandidateError, match=r"norm of 'b' is 30 times the largest parent's, and of 2 of 3"):
        check_norms({"a": 11.0, "b": 60.0, "new": 5.0}, {"a": 1.0, "b": 2.0, "new": 0.0}, 10)
    with pytest.raises(CandidateError, match="norm of 'a' is nan"):
        check_norms({"a": float("nan"), "b": 60.0}, {"a": 1.0, "b": 2.0}, 10)


@pytest.mark.parametrize(
    ("tokens", "low", "high"),
    [
        ([1] * 40, 0.95, 1.0),
        ([1, 2, 3] * 10, 0.85, 0.95),
        (list(range(40)), 0.0, 0.0),
        ([1] * 11, 0.0, 0.0),
        ([], 0, 0),
    ],
)
def test_repetition_is_the_share_of_repeated_grams(tokens, low, high):
    assert low <= repetition(tokens) <= high


def test_answers_fall_off_where_too_many_say_nothing():
    texts, ids = ["", " ", "abc", "aaaa"], [[], [1], [1, 2, 3], [1] * 30]
    check_answers("t", texts, ids, SanityChecks(degenerate=0.75))
    with pytest.raises(
        CandidateError, match=r"of 4 answers to task 't', 2 are empty and 1 repeat themselves, as in 'aaaa'"
    ):
        check_answers("t", texts, ids, SanityChecks(degenerate=0.7))


def test_a_silent_model_falls_off_and_a_talking_one_does_not(tokenizer, task_set):
    model = make_loud_model("llama", len(tokenizer), seed=3)
    answerer = ModelScorer(model, tokenizer, task_set)
    answerer.probe("t_sums", ["0", "1", "2"], SanityChecks())
    model.lm_head.weight.data.mul_(0)
    with pytest.raises(CandidateError, match="of 3 answers to task 't_sums', 3 are empty"):
        answerer.probe("t_sums", ["0", "1", "2"], SanityChecks())
    answerer.probe("t_sums", ["0", "1", "2"], SanityChecks(degenerate=1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanity-checks")
    make_model(folder / "base", seed=0)
    for seed, name in enumerate(("left", "right"), start=1):
        make_model(folder / name, seed=seed, noise_from=folder / "base", noise=0.1)
    return folder


def test_norms_are_those_of_the_weights_and_only_candidates_are_held_to_them(place):
    models = tuple(str(place / name) for name in ("base", "left", "right"))
    settings = TaskSettings((str(TASKS),))
    worker = WorkerSpec(models, ("add",), settings, sanity_checks=SanityChecks()).build()
    resident = ResidentModel(models)
    resident.write(passthrough(models[1]))
    own, parents = resident.norms(), resident.parent_norms()
    state = dict(resident.model.named_parameters())
    name = "model.layers.0.mlp.up_proj.weight"
    assert own[name] == pytest.approx(float(state[name].norm()))
    assert all(0 < own[key] <= parents[key] * (1 + 1e-6) for key in own)
    wild = recipe_from_mapping(
        {
            "merge_method": "task_arithmetic",
            "base_model": models[0],
            "models": [{"model": models[1], "parameters": {"weight": 500.0}}],
        }
    )
    items = {"add": tuple(document.id for document in TaskSet.load(["add"], settings).documents("add")[:2])}
    with pytest.raises(CandidateError, match="exploding weights"):
        list(worker.evaluate(Job(Candidate(0, wild), "search", items)))
    *_, outcome = worker.evaluate(Job(Candidate(-1, wild, kind="parent"), "search", items))
    assert outcome.done


def test_a_search_records_what_fell_off_and_why(place):
    # A ratio of 1 lets through only what is nowhere larger than every parent.
    text = SEARCH.format(objectives="  - {task: reverse}").replace("0.5", "0.02, sanity_checks: {norm_ratio: 1}")
    (place / "search.yaml").write_text(text.replace("scoring:", f"tasks: {{include: [{TASKS}]}}\nscoring:"))
    run = evomerge.search(place / "search.yaml", out=place / "run")
    assert run.config.sanity_checks == SanityChecks(norm_ratio=1.0, degenerate=0.5, probes=8, repetition=0.8)
    table = run.trials()
    assert list(table["status"]) == ["failed", "done"]
    assert table["failure"][0].startswith("exploding weights: the norm of '")
    assert len(run.data.evaluations("parent")) == 3
    assert all(evaluation.failure is None for evaluation in run.data.evaluations("parent").values())
