"""Greedy soup, kinship, and where genes meet models."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.controllers import SearchProblem, build
from evomerge.controllers._model_weights import ModelWeights, model_weights_of
from evomerge.errors import InputError
from evomerge.space import Gene
from tests.contracts.test_controllers import drive


def parts(products: list[list[float]] | None = None, n: int = 3) -> ModelWeights:
    rows = () if products is None else tuple(map(tuple, products))
    return ModelWeights(tuple("abcd"[:n]), tuple(range(n)), (0.0,) * n, (1.0,) * n, (0.5,) * n, rows)


def test_a_greedy_soup_keeps_what_helps_in_the_order_of_the_scores() -> None:
    """Alone a, b, c, d score 3, 2, 1 and nothing; b helps a, c spoils it, d failed and is left out."""
    scores = {
        (1, 0, 0, 0): 3.0,
        (0, 1, 0, 0): 2.0,
        (0, 0, 1, 0): 1.0,
        (0.5, 0.5, 0, 0): 3.5,
        (1 / 3, 1 / 3, 1 / 3, 0): 3.4,
    }

    def observed(index: int, point: np.ndarray) -> list[float] | None:
        value = next((v for k, v in scores.items() if np.allclose(k, point)), None)
        return None if value is None else [value]

    controller = build("greedy-soup", SearchProblem(4, model_weights=parts(n=4)))
    points = drive(controller, 99, observed)
    assert np.allclose(points, [*np.eye(4), [0.5, 0.5, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0]])
    assert controller.stop() == {"soup": "every model was tried; kept: a, b"}
    assert controller.ask() == []


def test_a_soup_of_failures_says_so() -> None:
    controller = build("greedy-soup", SearchProblem(3, model_weights=parts()))
    assert len(drive(controller, 99, lambda index, point: None)) == 3
    assert controller.stop() == {"soup": "every model was tried; kept: none, for all failed"}


def test_kinship_merges_pairs_of_the_best_and_explores_the_least_similar() -> None:
    """a, b, c, d score 4, 3, 2, 1. With top 2: the pair a b, and a with the one least similar to it, d."""
    products = [[1.0, 0.5, 0.4, 0.1], [0.5, 1.0, 0.3, 0.3], [0.4, 0.3, 1.0, 0.3], [0.1, 0.3, 0.3, 1.0]]
    best = np.array([0.6, 0.4, 0.0, 0.0])
    order = np.array([4.0, 3.0, 2.0, 1.0])

    def observed(index: int, point: np.ndarray) -> list[float]:
        return [float(point @ order) / 10 - float(((point - best) ** 2).sum())]

    controller = build("kinship", SearchProblem(4, model_weights=parts(products, 4)), {"top": 2})
    points = drive(controller, 99, observed)
    assert np.allclose(points[:6], [*np.eye(4), [0.5, 0.5, 0, 0], [0.5, 0, 0, 0.5]])
    (name,) = controller.stop()
    assert name in ("gain", "kinship")
    assert max(observed(0, point)[0] for point in points) > observed(0, points[0])[0]


def test_kinship_ends_where_the_best_are_alike() -> None:
    same = [[1.0, 0.99, 0.99], [0.99, 1.0, 0.99], [0.99, 0.99, 1.0]]
    controller = build("kinship", SearchProblem(3, model_weights=parts(same)))
    assert len(drive(controller, 99, lambda index, point: [float(index)])) == 3
    assert controller.stop() == {"kinship": "the best 3 are too similar: mean kinship 0.990"}


def test_kinship_is_the_correlation_of_mixtures() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, 500))
    vectors -= vectors.mean(axis=1, keepdims=True)
    found = parts((vectors @ vectors.T).tolist())
    left, right = np.array([0.5, 0.5, 0.0]), np.array([0.0, 1.0, 0.3])
    assert found.kinship(left, right) == pytest.approx(np.corrcoef(left @ vectors, right @ vectors)[0, 1], abs=1e-12)
    assert found.kinship(np.zeros(3), right) == 0.0
    assert np.allclose(found.similarity(), np.corrcoef(vectors), atol=1e-12)


def test_weights_are_found_among_the_genes_by_the_models_names() -> None:
    genes = [
        Gene("weight.add.v2.block0", "float", 0.0, 1.5),
        Gene("weight.add.block0", "float", 0.0, 1.0),
        Gene("density.add", "float", 0.0, 1.0, start=0.25),
        Gene("weight.add.v2.block1", "float", 0.0, 1.5),
        Gene("weight.log", "float", 0.1, 1.0, log=True),
    ]
    found, models = model_weights_of(genes, {"/x/add": "add", "/x/add.v2": "add.v2", "/x/log": "log"})
    assert found is not None
    assert models == ("/x/add", "/x/add.v2")
    assert found.member == (1, 0, -1, 1, -1)
    assert not found.plain
    assert np.allclose(found.point([0.5, 0.75]), [0.5, 0.5, 0.25, 0.5, 0.5])
    assert model_weights_of(genes[2:], {"/x/add": "add", "/x/add.v2": "add.v2"})[0] is None


@pytest.mark.parametrize("name", ["greedy-soup", "kinship"])
def test_a_space_without_weights_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} needs a weight per model"):
        build(name, SearchProblem(3))


def test_kinship_without_measurements_and_with_too_few_of_the_best() -> None:
    with pytest.raises(InputError, match="needs the inner products"):
        build("kinship", SearchProblem(3, model_weights=parts()))
    with pytest.raises(InputError, match="top of controller 'kinship' must be a whole number of at least 2, got 1"):
        build("kinship", SearchProblem(3, model_weights=parts(np.eye(3).tolist())), {"top": 1})
