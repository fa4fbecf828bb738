"""The contents of the report, read from the run once, so that its parts agree while a search goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.candidate import Candidate, Evaluation, Objective, Score
from evomerge.controllers import CONTROLLERS
from evomerge.errors import InputError
from evomerge.objectives import Objectives
from evomerge.run_config import RunConfig
from evomerge.runs import (
    Final,
    FrontAnswer,
    FrontRequest,
    errors_of,
    front_numbers,
    generalisation_frame,
    surrogates_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from evomerge.runs import Run

FEWEST, MOST = 20, 500  # numbers of candidates between which the report fits surrogates of its own
BELIEVABLE = 0.5  # cross-validated R2 that every objective needs for its predicted front to be shown
SHOWN_PREDICTED = 8  # points


@dataclass(frozen=True)
class Findings:
    """A run at one moment."""

    run: Run
    config: RunConfig
    objectives: tuple[Objective, ...]
    status: Mapping[str, Any]
    candidates: Mapping[int, Candidate]  # parents included
    evaluations: Mapping[int, Evaluation]  # scored and failed candidates, on search items
    parents: Mapping[int, Evaluation]  # likewise
    front: tuple[int, ...]  # best overall first
    best: int | None
    marks: Mapping[int, list[str]]  # candidate -> what it is outstanding in
    finals: tuple[Final, ...]
    history: pd.DataFrame
    work: pd.DataFrame
    utilisation: pd.DataFrame
    failures: pd.DataFrame
    generalisation: pd.DataFrame
    predicted: FrontAnswer | None  # the front with points that surrogates predict; None where there is nothing to show
    estimated: frozenset[int]  # candidates whose scores are estimated from few items
    answer_flags: Mapping[int, Mapping[tuple[str, str], float]]
    moment: str  # time of the last event in the report

    @property
    def in_points(self) -> bool:
        """True where all averaged objectives are fractions of items, which are shown in points of 100."""
        return all(objective.kind == "task" for objective in Objectives(self.objectives).scores())

    @property
    def workers(self) -> int:
        """How many workers there were."""
        return len(self.utilisation)

    @property
    def busy(self) -> float:
        """Fraction of the workers' time that was spent on evaluations, in [0, 1]."""
        return float(self.status["busy_share"] or 0.0)

    @property
    def winner(self) -> Final | None:
        """The best candidate by search items, with its held-out scores; None without them."""
        found = [final for final in self.finals if final.number == self.best and final.gain is not None]
        return found[0] if found else None

    def best_parent(self) -> tuple[str, float] | None:
        """Return name and overall fitness of the parent that did best on the search items."""
        scored = {n: e.fitness(self.objectives) for n, e in self.parents.items()}
        values = {
            n: Objectives(self.objectives).scalarise(fitness) for n, fitness in scored.items() if fitness is not None
        }
        if not values:
            return None
        number = max(values, key=lambda n: values[n])  # max takes the first of equal parents
        return self.candidates[number].name, values[number]

    def name(self, number: int) -> str:
        """Return the display name of a candidate or parent."""
        return f"candidate {number}" if number >= 0 else f"parent {self.candidates[number].name}"


def findings_of(run: Run) -> Findings:
    """Return the contents of the report of `run` at this moment."""
    evaluations, objectives = run.data.evaluations(), run.objectives
    parents, finals = run.data.evaluations(kind="parent"), tuple(run.finals())
    numbers, best = front_numbers(run.data.feasible(), objectives), run.best()
    events = run.tables.events()
    moment = events["time"].iloc[-1].strftime("%Y-%m-%d %H:%M UTC") if len(events) else ""
    models = [*run.data.candidates("parent"), *run.data.candidates("search")]
    return Findings(
        run=run,
        config=run.config,
        objectives=objectives,
        status=run.status(),
        candidates={model.number: model for model in models},
        evaluations=evaluations,
        parents=parents,
        front=tuple(numbers),
        best=best.number if best is not None else None,
        marks=run.front().marks() if numbers else {},
        finals=finals,
        history=run.tables.history(),
        work=run.tables.work(),
        utilisation=run.tables.utilisation(),
        failures=run.tables.failures(),
        generalisation=generalisation_frame(finals, {**evaluations, **parents}, objectives),
        predicted=predictions_of(run, len([n for n, e in evaluations.items() if e.fitness(objectives) is not None])),
        estimated=frozenset(evaluations) - frozenset(run.data.full_candidates()) if run.data.estimated else frozenset(),
        answer_flags=run.data.answer_flags(),
        moment=moment,
    )


def predictions_of(run: Run, scored: int) -> FrontAnswer | None:
    """Return the front with predicted points, given several objectives and reliable surrogates.

    Args:
        run: the run.
        scored: how many candidates have scores.
    """
    info = CONTROLLERS.get(run.config.controller.name)  # one that is registered elsewhere may be unknown here
    own = info is not None and info.predicts_front  # its surrogates drove the search, so that they are shown
    # one objective has no front to predict
    if len(run.objectives) < 2 or (not own and not FEWEST <= scored <= MOST) or not scored:
        return None
    try:
        errors = errors_of(surrogates_of(run.data))
    except InputError:  # too few candidates, or no gene that varies
        return None
    if not own and not float(errors["left_out_r2"].min()) >= BELIEVABLE:  # `not >=` is also true for NaN
        return None
    return run.front_answer(FrontRequest(predicted=SHOWN_PREDICTED))


def with_error(score: Score, in_points: bool) -> str:
    """Return a score with its standard error; what is exact, such as a count of layers, alone.

    >>> with_error(Score(0.5, 0.05, 100), True), with_error(Score(24.0, 0.0, 1), False)
    ('50.0 ± 5.0', '24')
    """
    shown = points(score.value, in_points)
    return shown if score.stderr == 0 else f"{shown} ± {points(score.stderr, in_points)}"


def points(value: float, in_points: bool, digits: int = 1) -> str:
    """Return a score or difference as text: in points of 100 where it is a fraction of items.

    >>> points(0.1234, True), points(12.3456, False)
    ('12.3', '12.35')
    """
    if not np.isfinite(value):
        return "–"
    # a half is rounded away from zero, as in the page's script: both show the same digits
    return f"{100 * value + math.copysign(1e-9, value):.{digits}f}" if in_points else f"{value:.4g}"
