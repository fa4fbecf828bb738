"""Controller, race and report rank by one number, also where a size of the model is among the objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from evomerge.candidate import Evaluation, Objective, Score
from evomerge.controllers import SearchProblem, build
from evomerge.controllers._cma_es import CmaEs
from evomerge.objectives import Objectives
from evomerge.runs import best_number
from evomerge.scoring import Measure

TASK = Objective("left", "left", "acc")
ROWS = {0: (0.80, 24.0), 1: (0.20, 22.0)}  # accuracy, layers


def layers(weight: float | None = None) -> Objective:
    return Measure("layers", "layers").objective(weight=weight)


def ranked_by_cma_es(objectives: Sequence[Objective], rows: Sequence[Sequence[float]]) -> list[float]:
    """Return what CMA-ES takes each fitness for."""
    problem = SearchProblem(2, objectives=len(objectives), weights=Objectives(objectives).scalarisation.relative)
    controller = build("cma-es", problem, {"population": len(rows) + 1})  # one more: the generation is not complete
    assert isinstance(controller, CmaEs)
    controller.ask()
    for index, row in enumerate(rows):
        controller.tell(index, row)
    return [float(controller._values[index] or 0.0) for index in range(len(rows))]


def fitness_of(objectives: Sequence[Objective]) -> list[tuple[float, ...]]:
    return [tuple(o.fitness(v) for o, v in zip(objectives, row, strict=True)) for row in ROWS.values()]


@pytest.mark.parametrize(("weight", "best"), [(None, 0), (0.02, 0), (0.5, 1), (1.0, 1)])
def test_controller_and_report_rank_alike(weight: float | None, best: int) -> None:
    objectives = (TASK, layers(weight))
    numbers = ranked_by_cma_es(objectives, fitness_of(objectives))
    assert numbers == pytest.approx([Objectives(objectives).scalarise(row) for row in fitness_of(objectives)])
    assert int(np.argmax(numbers)) == best
    evaluations = {
        number: Evaluation(number, {"left": Score(fraction, 0.0, 10), "layers": Score(depth, 0.0, 1)})
        for number, (fraction, depth) in ROWS.items()
    }
    assert best_number(evaluations, objectives) == best


def test_a_size_without_a_weight_is_left_out_everywhere() -> None:
    assert Objectives((TASK, layers())).weights().tolist() == [1.0, 0.0]
    assert [one.name for one in Objectives((TASK, layers())).left_out()] == ["layers"]
    assert ranked_by_cma_es((TASK, layers()), fitness_of((TASK, layers()))) == [0.80, 0.20]
    assert Objectives((layers(),)).weights().tolist() == [1.0]  # there is nothing else to rank by
    assert Objectives((layers(),)).left_out() == []


def test_a_weight_of_one_counts_where_the_file_says_so() -> None:
    assert Objectives((TASK, layers(1.0))).weights().tolist() == [0.5, 0.5]
