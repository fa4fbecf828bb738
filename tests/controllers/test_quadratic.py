"""The quadratic controller: it finds fronts with few evaluations, uses what others measured, and survives the rest."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.controllers import SearchProblem, WarmStartPoint, build
from evomerge.controllers._model_weights import ModelWeights
from evomerge.controllers._quadratic_front import design_size, fits_to
from evomerge.errors import InputError
from evomerge.pareto import hypervolume
from tests.contracts.test_controllers import drive

BEST = np.array([[0.2, 0.3, 0.8], [0.8, 0.4, 0.3]])  # of two objectives


def two(index: int, point: np.ndarray) -> list[float]:
    """Two accuracies, each a logistic of a quadratic: 0.95 at its best point."""
    return [float(1 / (1 + np.exp(-3 + 6 * ((point - best) ** 2).sum()))) for best in BEST]


def volume(points: list[np.ndarray]) -> float:
    return hypervolume(np.array([two(0, point) for point in points]), [0.4, 0.4])


def mixture(n: int, products: bool = False) -> ModelWeights:
    names = tuple("abcdefgh"[:n])
    rows = tuple(tuple(1.0 if i == j else 0.1 for j in range(n)) for i in range(n)) if products else ()
    return ModelWeights(names, tuple(range(n)), (0.0,) * n, (1.0,) * n, (0.5,) * n, rows)


def test_it_finds_more_of_a_front_than_a_design_of_the_same_size() -> None:
    """The measured front of 30 candidates against the best of what Sobol points and NSGA-II do with 30; two seeds."""
    for seed in range(2):
        problem = SearchProblem(3, seed, 2, budget=30)
        found = volume(drive(build("quadratic", problem), 30, two))
        others = [volume(drive(build(name, problem), 30, two)) for name in ("sobol", "nsga-ii")]
        front = volume(list(np.linspace(BEST[0], BEST[1], 200)))  # the whole front: the line between the best points
        assert found > max(others) + 0.02
        assert found > 0.95 * front


def test_the_design_holds_equal_shares_each_model_and_nothing() -> None:
    problem = SearchProblem(3, 1, 1, budget=40, model_weights=mixture(3))
    design = np.array(build("quadratic", problem).ask())
    assert np.allclose(design[:5], [[1 / 3] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert len(design) == design_size(3, 40) == 15  # 1.5 points for each of a full quadratic's ten coefficients


@pytest.mark.parametrize(("d", "budget", "size"), [(3, 40, 15), (3, 20, 6), (8, 40, 14), (8, None, 26), (5, 1, 1)])
def test_the_design_is_as_large_as_the_budget_affords(d: int, budget: int | None, size: int) -> None:
    assert design_size(d, budget) == size


def test_results_of_another_run_replace_the_design() -> None:
    points = drive(build("sobol", SearchProblem(3, 5, 2)), 20, two)
    prior = tuple(WarmStartPoint(tuple(point), tuple(two(0, point))) for point in points)
    controller = build("quadratic", SearchProblem(3, 1, 2, budget=40, prior=prior))
    first = controller.ask()
    assert len(first) == 4  # a round, not a design: 20 known points are more than the 15 of a design
    assert volume([*points, *first]) > volume(points) * 1.05
    assert not any(np.array_equal(point, other) for point in first for other in points)


def test_a_recipe_is_proposed_first() -> None:
    prior = (WarmStartPoint((0.1, 0.2, 0.3)),)
    first = build("quadratic", SearchProblem(3, 1, 2, prior=prior)).ask()[0]
    assert tuple(first) == (0.1, 0.2, 0.3)


def test_failed_points_are_not_proposed_again_and_leave_no_trace_in_the_fit() -> None:
    def fails(index: int, point: np.ndarray) -> list[float] | None:
        return None if point[0] > 0.6 else two(index, point)

    points = np.array(drive(build("quadratic", SearchProblem(3, 1, 2, budget=40)), 40, fails))
    assert len(np.unique(points, axis=0)) == 40
    assert np.isfinite(points).all()


def test_correlated_and_constant_objectives() -> None:
    """The same objective twice, its opposite beside it, and one that never moves: as many points, all in the cube."""

    def same(index: int, point: np.ndarray) -> list[float]:
        value = two(index, point)[0]
        return [value, value, 0.5, 100 - 50 * value]

    points = np.array(drive(build("quadratic", SearchProblem(3, 1, 4, budget=24)), 24, same))
    assert points.shape == (24, 3)
    assert ((points >= 0) & (points <= 1)).all()


def test_more_objectives_than_samples() -> None:
    def many(index: int, point: np.ndarray) -> list[float]:
        return [float(point @ np.cos(np.arange(3) + j)) for j in range(12)]

    points = drive(build("quadratic", SearchProblem(3, 1, 12, budget=10), {"startup": 4}), 10, many)
    assert len(np.unique(np.array(points), axis=0)) == 10


def test_a_choice_is_proposed_at_one_place_only() -> None:
    points = np.array(drive(build("quadratic", SearchProblem(3, 1, 2, budget=30, choices=(0, 3, 0))), 30, two))
    assert set(np.round(points[:, 1] * 6).astype(int)) <= {1, 3, 5}
    assert np.allclose(points[:, 1] * 6 % 2, 1)


def test_it_stops_where_no_gain_is_promised_only_if_asked_to() -> None:
    def flat(index: int, point: np.ndarray) -> list[float]:
        return [0.5 + 0.01 * float(point[0]), 0.5 + 0.01 * float(point[0])]

    patient = build("quadratic", SearchProblem(2, 1, 2, budget=40))
    assert len(drive(patient, 40, flat)) == 40
    assert patient.stop() == {}
    saving = build("quadratic", SearchProblem(2, 1, 2, budget=40), {"tolerance": 0.05})
    assert len(drive(saving, 40, flat)) < 40
    assert "expected hypervolume gain below 0.05" in saving.stop()["gain"]


def test_scores_on_few_items_weigh_less() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((40, 1))
    truth = 0.3 + 0.4 * points
    wrong = truth.copy()
    wrong[::2] += 0.2  # half of the rows are off, and say so
    errors = np.zeros_like(wrong)
    errors[::2] = 0.2
    observed = fits_to(points, wrong, (400,), errors)[0]
    plain = fits_to(points, wrong, (400,))[0]
    middle = np.array([[0.5]])
    off = [abs(float(fit.link.inverse(fit.basis(middle) @ fit.centred)[0]) - 0.5) for fit in (observed, plain)]
    assert off[0] < 0.02
    assert off[1] > 0.08


def test_told_with_errors_it_proposes_otherwise_and_replays() -> None:
    def run(noisy: bool) -> list[list[float]]:
        controller = build("quadratic", SearchProblem(3, 1, 2, budget=40, items=(100, 100)))
        points: list[np.ndarray] = []
        while len(points) < 20:
            batch = controller.ask()
            for point in batch:
                fitness = two(0, point)
                if noisy and len(points) % 2:
                    controller.tell_noisy(len(points), fitness, [0.2, 0.2])  # type: ignore[attr-defined]
                else:
                    controller.tell(len(points), fitness)
                points.append(point)
        return [point.tolist() for point in points]

    assert run(True) == run(True)
    assert run(True) != run(False)


# -- nested --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("products", [False, True], ids=["by score", "by kinship"])
def test_nested_merges_all_models_two_at_a_time_for_one_preference(products: bool) -> None:
    """Five models, five tasks, each best with its own model at 0.6 and hurt by the others."""
    n = 5

    def tasks(index: int, point: np.ndarray) -> list[float]:
        return [
            float(np.exp(-((point[t] - 0.6) ** 2) - 0.3 * (np.delete(point, t) ** 2).sum())) * 0.9 for t in range(n)
        ]

    controller = build(
        "quadratic", SearchProblem(n, 3, n, budget=60, model_weights=mixture(n, products)), {"nested": True}
    )
    batches: list[np.ndarray] = []
    while len(batches) < 6:  # the models, four pairs, and the mixture of all
        batch = controller.ask()
        proposed = sum(map(len, batches))
        for index, point in enumerate(batch, start=proposed):
            controller.tell(index, tasks(0, point))
        batches.append(np.array(batch))
    assert np.array_equal(batches[0], np.eye(n))
    together = [(batch.sum(axis=0) > 0).sum() for batch in batches[1:]]
    assert together[0] == 2
    assert together[-2:] == [n, n]
    assert all(2 <= count <= n for count in together)
    assert all(8 <= len(batch) <= 13 for batch in batches[1:-1])
    (tree,) = batches[-1]
    worst = min(tasks(0, tree))
    assert (tree > 0).all()
    assert worst > max(min(tasks(0, point)) for point in np.eye(n)) + 0.1
    assert worst > min(tasks(0, np.full(n, 1.0))) + 0.1


def test_nested_needs_one_weight_per_model_and_nothing_else() -> None:
    with pytest.raises(InputError, match="nested needs a space whose genes are one weight per model"):
        build("quadratic", SearchProblem(3, 1, 2), {"nested": True})
    narrow = ModelWeights(("a", "b"), (0, 1), (0.2, 0.0), (1.0, 1.0), (0.5, 0.5))
    with pytest.raises(InputError, match=r"'a' can have 0.2 to 1; search its weight in \[0, 1\]"):
        build("quadratic", SearchProblem(2, 1, 2, model_weights=narrow), {"nested": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size of controller 'quadratic' must be a whole number of at least 1"),
        ({"startup": 0}, "startup of controller 'quadratic' must be a whole number of at least 1"),
        ({"tolerance": 1.0}, "must be a number of at least 0 and below 1, got 1.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("quadratic", SearchProblem(2), options)
