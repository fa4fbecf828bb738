"""Packed log likelihoods equal those of ordinary passes, with and without a root, stems, and branches."""

from __future__ import annotations

import random

import pytest
import torch

from evomerge.scoring.batched._likelihood import SHORTEST_STEM, PackedBatches, plain_scores
from evomerge.scoring.batched._packing import Likelihood, pack_sequences
from tests.scoring.worlds import FAMILIES

CPU = torch.device("cpu")


def questions(root: int, stem: int) -> list[Likelihood]:
    """Return three questions with four choices of one to four tokens each, two of them beginning alike."""
    draw = random.Random(0)
    shared = [draw.randrange(400) for _ in range(root)]
    found = []
    for _ in range(3):
        start = [*shared, *(draw.randrange(400) for _ in range(stem))]
        first = draw.randrange(400)
        for length in (1, 2, 3, 4):
            choice = [first if length > 2 else draw.randrange(400), *(draw.randrange(400) for _ in range(length - 1))]
            found.append(Likelihood((*start, *choice[:-1]), tuple(choice)))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("root", [0, 40])
@pytest.mark.parametrize("stem", [5, SHORTEST_STEM + 10])
@pytest.mark.parametrize("budget", [1, 100, 10**6])
def test_packed_scores_are_plain_scores(models, family, root, stem, budget):
    sequences = questions(root, stem)
    forest = PackedBatches(pack_sequences(sequences, budget, 4 * max(budget, stem)), CPU)
    assert len(forest.root) == root
    stems = [row.stem.shape[1] for row in forest._rows]
    assert any(stems) == (stem >= SHORTEST_STEM and budget <= 100)  # a row of one question has a stem
    packed = forest.score(models[family])
    plain = plain_scores(models[family], sequences, CPU)
    assert [value for value, _ in packed] == pytest.approx(plain, rel=1e-5, abs=1e-4)


def test_first_choices_are_recognised(models):
    model = models["llama"]
    start = tuple(range(20, 50))
    with torch.no_grad():
        best = int(model(torch.tensor([start])).logits[0, -1].argmax())
    forest = PackedBatches(pack_sequences([Likelihood(start, (best,)), Likelihood(start, (best + 1,))], 100, 100), CPU)
    assert [first for _, first in forest.score(model)] == [True, False]


def test_the_softmax_may_be_taken_in_another_type(models):
    sequences = questions(0, 5)
    forest = PackedBatches(pack_sequences(sequences, 100, 100), CPU)
    exact = forest.score(models["llama"], torch.float64)
    coarse = forest.score(models["llama"], torch.bfloat16)
    assert [value for value, _ in exact] == pytest.approx(plain_scores(models["llama"], sequences, CPU), rel=1e-5)
    assert [value for value, _ in coarse] != [value for value, _ in exact]
