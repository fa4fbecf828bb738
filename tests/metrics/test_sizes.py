"""Layers, parameters and seconds as objectives: exact numbers of what runs, and times that no cache gives."""

from __future__ import annotations

import math

import pytest
import torch

from evomerge.candidate import Response
from evomerge.engine import ResidentModel
from evomerge.recipe import Recipe, Source, passthrough
from evomerge.scoring import TIMINGS, Measure, documents, estimate
from evomerge.scoring.metrics._sizes import depth, forward_seconds, parameters
from tests.pico import make_model


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    folder = str(make_model(tmp_path_factory.mktemp("sizes") / "a", layers=4, tied=True))
    return folder, ResidentModel([folder], device="cpu")


def test_a_model_as_it_is(resident) -> None:
    folder, held = resident
    held.write(passthrough(folder))
    assert depth(held.model) == 4
    assert parameters(held.model) == sum(parameter.numel() for parameter in held.model.parameters())


def test_a_layer_counts_as_often_as_it_runs(resident) -> None:
    """A layer's parameters are the difference of two depths; what is outside the layers counts once."""
    folder, held = resident
    held.write(passthrough(folder))
    whole = parameters(held.model)
    layer = sum(parameter.numel() for parameter in held.model.model.layers[0].parameters())
    for order in ([0, 3], [0, 1, 2, 1, 2, 3], [2]):
        route = tuple(("merged", number, 1.0) for number in order)
        held.write(Recipe("passthrough", (Source(folder),), route=route))
        assert depth(held.model) == len(order)
        assert parameters(held.model) == whole + (len(order) - 4) * layer


@pytest.mark.parametrize("kind", ["layers", "parameters"])
def test_a_size_is_exact(answerer, model, kind) -> None:
    measure = Measure(kind, kind)
    (document,) = documents(measure).documents
    responses = answerer(measure).answers(kind, [document.id])
    expected = 2 if kind == "layers" else sum(parameter.numel() for parameter in model.parameters())
    assert model.config.num_hidden_layers == 2
    assert responses == (Response(kind, document.id, kind, float(expected)),)
    objective = measure.objective()
    assert objective.goal == "minimize"
    score = estimate(responses, objective)
    assert (score.value, score.stderr, score.items) == (float(expected), 0.0, 1)
    assert objective.fitness(score.value) == -float(expected)


def test_seconds_have_an_error(answerer) -> None:
    measure = Measure("seconds", "seconds", {"items": TIMINGS})
    items = [document.id for document in documents(measure).documents]
    assert len(items) == TIMINGS
    score = estimate(answerer(measure).answers("seconds", items), measure.objective())
    assert score.items == TIMINGS
    assert score.value > 0
    assert 0 < score.stderr < math.inf


def test_each_timed_pass_reads_other_tokens(model) -> None:
    seen = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        assert len(forward_seconds(model, 3)) == 3
    finally:
        hook.remove()
    assert len(seen) == 4  # one that is not timed
    assert len({tuple(tokens.flatten().tolist()) for tokens in seen}) == 4
    assert {tokens.dtype for tokens in seen} == {torch.int64}
