"""Pareto fronts of a run: measured and predicted, under constraints, ordered by a preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge._arguments import Array, Mask
from evomerge.candidate import Objective
from evomerge.errors import InputError
from evomerge.objectives import Objectives
from evomerge.pareto import (
    AUGMENTATION,
    desirability,
    dominates,
    hypervolume,
    knee,
    non_dominated,
    not_dominated_by_any,
    overall_desirability,
    representatives,
)
from evomerge.runs._evaluations import fitness_table, front_numbers, preference_of, reference_point
from evomerge.runs._feasibility import Constraint, parent_scores, read_constraints, require_feasible
from evomerge.runs._fitted_surrogates import LEVEL, RunSurrogates, errors_of, reasons_to_doubt, surrogates_of
from evomerge.runs._frame_output import plain
from evomerge.runs._run_data import RunData
from evomerge.surrogates import PredictedFront, check_front

if TYPE_CHECKING:
    import pandas as pd

    from evomerge.runs._front_table import Front


@dataclass(frozen=True)
class FrontRequest:
    """What is wanted of a front; the defaults give the measured front, best overall first."""

    predicted: int = 0  # most predicted points, spread over their front
    where: tuple[str, ...] = ()  # constraints, see `constraints`
    beats_parents: bool = False  # only points that no parent dominates
    prefer: str | None = None  # 'add=2,sort=1': best first by this preference
    desire: str | None = None  # 'add=0.5..0.9,sort=0.2..0.8': best first by desirability


MEASURED = FrontRequest()


@dataclass(frozen=True)
class FrontAnswer:
    """A front with intervals, errors and warnings; f rows, measured ones first unless a preference orders them."""

    objectives: tuple[Objective, ...]  # m of them, in the order of the columns
    candidates: tuple[int | None, ...]  # (f,) None: only predicted
    fitness: Array  # (f, m) higher is better
    stderr: Array  # (f, m) of predicted ones the sd of the prediction
    low: Array  # (f, m) ends of the 90% interval of predicted ones, as fitness; NaN for measured ones
    high: Array  # (f, m)
    genotypes: Array  # (f, d)
    knee: int | None  # its candidate
    surrogates: RunSurrogates | None = None  # the surrogates behind predicted points; None without such points
    errors: pd.DataFrame | None = None  # see `surrogates.errors_of`
    warnings: tuple[str, ...] = field(default=())  # reasons to doubt the predicted points, a sentence each
    estimated: frozenset[int] = frozenset()  # candidates whose scores are estimated from few items

    @property
    def measured(self) -> tuple[bool, ...]:
        """(f,) whether a row was measured: not only predicted, nor estimated from few items."""
        return tuple(number is not None and number not in self.estimated for number in self.candidates)

    def frame(self) -> pd.DataFrame:
        """Return candidate (missing where only predicted), measured, then score.*, stderr.*, in the metrics' units."""
        import pandas as pd

        # the columns' order
        table: dict[str, Any] = {"candidate": list(self.candidates), "measured": list(self.measured)}
        for index, objective in enumerate(self.objectives):
            table[f"score.{objective.name}"] = [objective.fitness(float(value)) for value in self.fitness[:, index]]
        for index, objective in enumerate(self.objectives):
            table[f"stderr.{objective.name}"] = self.stderr[:, index]
        frame = pd.DataFrame(table)
        whole = None not in self.candidates  # int64 has no missing value; Int64 does
        return frame.astype({"candidate": "int64" if whole else "Int64", "measured": bool})

    def points(self) -> list[dict[str, Any]]:
        """Return the rows as plain data, the form of `front --json`; predicted ones with interval and genotype."""
        rows = []
        for index, (number, measured) in enumerate(zip(self.candidates, self.measured, strict=True)):
            row: dict[str, Any] = {
                "candidate": number,
                "measured": measured,
                "score": self._by_name(self.fitness[index], turn=True),
                "stderr": self._by_name(self.stderr[index]),
            }
            if number is None:  # measured points have stderr instead, and their genotype is in the trials
                ends = [self._by_name(self.low[index], turn=True), self._by_name(self.high[index], turn=True)]
                # a minimised objective swaps the ends
                row["interval"] = {name: sorted(end[name] for end in ends) for name in ends[0]}
                row["genotype"] = [float(gene) for gene in self.genotypes[index]]
            rows.append(row)
        return rows

    def _by_name(self, row: Array, turn: bool = False) -> dict[str, float]:
        return {
            o.name: o.fitness(float(value)) if turn else float(value)
            for o, value in zip(self.objectives, row, strict=True)
        }


def front_of(run: RunData, request: FrontRequest = MEASURED) -> FrontAnswer:
    """Return the front of a run as requested.

    Conditions come first, the search's own constraints and those of the request: the front is that of the candidates
    that meet them. Predicted points are those of the
    surrogates' front that meet them too and that no measured candidate dominates.

    Raises:
        InputError: no candidate meets the constraints, or a text of the request names something unknown.
    """
    objectives = run.objectives
    numbers, fitness, stderr = fitness_table(run.feasible(), objectives)
    genotype = {candidate.number: candidate.genotype for candidate in run.candidates()}
    kept_by = _Filter.of(run, request)  # its parents' scores are read once for both uses
    kept = kept_by.mask(fitness)
    # the search's own constraints may leave an empty front
    if len(numbers) and (request.where or request.beats_parents):
        kept_by.require(kept, fitness)
    rows = list(np.flatnonzero(kept))
    # indices into numbers
    members = [rows[i] for i in np.flatnonzero(non_dominated(fitness[rows], duplicates=False))] if rows else []
    order = sorted(members, key=lambda i: (-Objectives(objectives).scalarise(fitness[i]), numbers[i]))
    m, d = len(objectives), run.space.dimension
    nothing = np.full((len(order), m), np.nan)  # (f, m) measured points have no prediction interval
    answer = FrontAnswer(
        objectives,
        tuple(numbers[i] for i in order),
        fitness[order].reshape(-1, m),
        stderr[order].reshape(-1, m),
        nothing,
        nothing,
        np.array([genotype[numbers[i]] for i in order], dtype=float).reshape(-1, d),
        numbers[order[knee(fitness[order])]] if order else None,
        estimated=frozenset(numbers) - frozenset(run.full_candidates()) if run.estimated else frozenset(),
    )
    if request.predicted:
        answer = _with_predictions(run, answer, request.predicted, kept_by)
    return _ordered(answer, request)


def front_frame(run: RunData, request: FrontRequest = MEASURED) -> Front:
    """Return the front as a frame that shows itself in a notebook: candidate, measured, score.*, stderr.*."""
    from evomerge.runs._front_table import front_table

    return front_table(front_of(run, request).frame(), run.objectives)


def front_mapping(run: RunData, request: FrontRequest = MEASURED) -> dict[str, Any]:
    """Return the front as plain data, the form of `front --json`; the hypervolume is that of measured points.

    Args:
        run: its data.
        request: what is wanted; default: the measured front, best overall first.
    """
    answer = front_of(run, request)
    numbers = [number for number in answer.candidates if number is not None]
    mapping = {
        "objectives": [objective.name for objective in run.objectives],
        "reference": reference_of(run),
        "hypervolume": _volume(run, numbers),
        "points": answer.points(),
    }
    if request.predicted:
        rows = [] if answer.errors is None else answer.errors.to_dict(orient="records")
        mapping["surrogates"] = [{str(key): plain(value) for key, value in row.items()} for row in rows]
        mapping["warnings"] = list(answer.warnings)
    return mapping


def reference_of(run: RunData) -> dict[str, float]:
    """Return objective -> the worst parent's score: the reference point of hypervolumes."""
    return reference_point(run.evaluations("parent"), run.objectives)


def front_volume(run: RunData) -> float:
    """Return the hypervolume of the measured front above `reference_of`; 0 without a front."""
    return _volume(run, front_numbers(run.feasible(), run.objectives))


def _volume(run: RunData, numbers: Sequence[int]) -> float:
    evaluations, reference = run.evaluations(), reference_of(run)
    point = [objective.fitness(reference[objective.name]) for objective in run.objectives]  # (m,)
    rows = [evaluations[number].fitness(run.objectives) for number in numbers]
    return hypervolume(np.array(rows, dtype=float), point) if rows else 0.0


def remeasured_lines(run: RunData) -> list[str]:
    """Return what re-measuring predicted points showed, a line per objective; [] where none was re-measured."""
    predicted, measured = _remeasured(run)
    if not len(measured):
        return []
    known = ~np.isnan(measured).any(axis=1)  # (r,) a failed evaluation has no fitness to compare
    if not known.any():
        return [f"{len(measured)} predicted points were re-measured, and all failed"]
    value, sd, low, high = (part[known] for part in predicted)
    # the check reads no genotypes: fitness stands in
    front = PredictedFront(value, value, sd, low, high, np.zeros(len(value), dtype=bool), LEVEL)
    check = check_front(front, measured[known])
    lines = [f"{len(value)} predicted points were re-measured (on the search items):"]
    for index, objective in enumerate(run.objectives):
        lines.append(
            f"  {objective.name}: predicted too high by {check.bias[index]:+.3g} on average, "
            f"error {check.rmse[index]:.3g}, {check.coverage[index]:.0%} inside the {LEVEL:.0%} interval"
        )
    return lines


def _remeasured(run: RunData) -> tuple[tuple[Array, ...], Array]:
    """Return predicted fitness, its sd and its interval's ends, and the measured fitness of the same points, (r, m)."""
    evaluations = run.evaluations()
    with run.open_archive() as archive:
        events = list(archive.events("remeasured"))
    m = len(run.objectives)
    predicted = tuple(
        np.array([row for event in events for row in event.payload[part]], dtype=float).reshape(-1, m)
        for part in ("fitness", "sd", "low", "high")  # four arrays (r, m), recorded before the points were measured
    )
    numbers = [number for event in events for number in event.payload["numbers"]]
    found = [evaluations[n].fitness(run.objectives) if n in evaluations else None for n in numbers]
    rows = [[np.nan] * m if row is None else list(row) for row in found]
    return predicted, np.array(rows, dtype=float).reshape(-1, m)


@dataclass(frozen=True)
class _Filter:
    """The rows that a request keeps: feasible, and on request not dominated by a parent."""

    run: RunData
    request: FrontRequest
    constraints: tuple[Constraint, ...]
    parents: Array  # (p, m) fitness

    @classmethod
    def of(cls, run: RunData, request: FrontRequest) -> _Filter:
        evaluations = run.evaluations("parent")
        scores = parent_scores(run.candidates("parent"), evaluations)  # names in constraints refer to these
        _, parents, _ = fitness_table(evaluations, run.objectives)
        constraints = (*(run.constraints() or ()), *read_constraints(request.where, run.objectives, scores))
        return cls(run, request, constraints, parents)

    def mask(self, fitness: Array) -> Mask:
        """Return which rows of fitness (n, m) are let through."""
        scores = self._scores(fitness)
        kept = np.ones(len(fitness), dtype=bool)  # (n,)
        for constraint in self.constraints:
            kept &= constraint.met(scores)
        if self.request.beats_parents and len(self.parents) and len(fitness):
            kept &= not_dominated_by_any(fitness, self.parents)
        return kept

    def require(self, kept: Mask, fitness: Array) -> None:
        """Raise InputError where nothing is let through."""
        scores = self._scores(fitness)
        met = np.ones(len(fitness), dtype=bool)  # (n,) constraints only: the two reasons get two messages
        for constraint in self.constraints:
            met &= constraint.met(scores)
        require_feasible(met, scores, self.constraints, self.run.objectives)
        if not kept.any():
            raise InputError("every candidate is dominated by a parent; search longer, or leave out --beats-parents")

    def _scores(self, fitness: Array) -> Array:
        signs = np.array([objective.fitness(1.0) for objective in self.run.objectives])
        return np.asarray(fitness.reshape(-1, len(signs)) * signs)


def _with_predictions(run: RunData, answer: FrontAnswer, count: int, kept_by: _Filter) -> FrontAnswer:
    """Return the answer with up to `count` predicted rows, or with the reason why there are none."""
    try:
        found = surrogates_of(run)
    except InputError as error:
        return replace(answer, warnings=(f"no predicted front: {error}",))
    front = found.front()
    errors = errors_of(found)
    warnings = tuple(reasons_to_doubt(found, front, errors))
    kept = kept_by.mask(front.scores) & ~front.extrapolates  # (q,) extrapolated points are too uncertain to show
    if len(answer.fitness):
        kept &= ~np.asarray(dominates(answer.fitness[None], front.scores[:, None])).any(axis=1)  # (q, f) -> (q,)
    rows = np.flatnonzero(kept)
    if len(rows) == 0:
        more = ("no predicted point improves on the measured front",)
        return replace(answer, surrogates=found, errors=errors, warnings=(*warnings, *more))
    rows = rows[representatives(front.scores[rows], count)]  # spread over the front, not the densest part
    return replace(
        answer,
        candidates=(*answer.candidates, *[None] * len(rows)),
        fitness=np.vstack([answer.fitness, front.scores[rows]]),
        stderr=np.vstack([answer.stderr, front.sd[rows]]),
        low=np.vstack([answer.low, front.low[rows]]),
        high=np.vstack([answer.high, front.high[rows]]),
        genotypes=np.vstack([answer.genotypes, found.genotypes(front.c[rows])]),
        surrogates=found,
        errors=errors,
        warnings=warnings,
    )


def _ordered(answer: FrontAnswer, request: FrontRequest) -> FrontAnswer:
    """Return the answer with its rows in the order of the preference or of the desirability, where one is given."""
    if request.prefer is not None and request.desire is not None:
        raise InputError("--prefer and --desire both rank the front; use one of them")
    if len(answer.fitness) == 0:
        return answer
    if request.prefer is not None:
        weights = np.array(preference_of(request.prefer, answer.objectives, "--prefer"), dtype=float)
        low, high = answer.fitness.min(axis=0), answer.fitness.max(axis=0)
        # (f, m) from the ideal point
        shortfall = (high - answer.fitness) / np.where(high > low, high - low, 1.0) * weights
        worth = -(shortfall.max(axis=1) + AUGMENTATION * shortfall.sum(axis=1))  # (f,) augmented Tchebycheff
    elif request.desire is not None:
        low, high = _desired(request.desire, answer.objectives)
        worth = overall_desirability(desirability(answer.fitness, low, high))
    else:
        return answer
    order = np.argsort(-worth, kind="stable")  # ties keep "best overall first"
    return replace(
        answer,
        candidates=tuple(answer.candidates[i] for i in order),
        **{name: getattr(answer, name)[order] for name in ("fitness", "stderr", "low", "high", "genotypes")},
    )


def _desired(text: str, objectives: Sequence[Objective]) -> tuple[Array, Array]:
    """Return the fitness of desirability 0 and that of desirability 1, (m,) each."""
    names = [objective.name for objective in objectives]
    ends: dict[str, tuple[float, float]] = {}
    for part in text.split(","):
        name, _, span = part.partition("=")
        low, dots, high = span.partition("..")
        if name.strip() not in names or not dots:
            raise InputError(
                f"--desire {text!r}: expected worthless..ideal per objective, as in 'add=0.5..0.9,sort=0.2..0.8'; "
                f"objectives are {', '.join(names)}"
            )
        try:
            ends[name.strip()] = (float(low), float(high))
        except ValueError:
            raise InputError(f"--desire {text!r}: {span!r} must be two numbers with .. between them") from None
    # an objective that is not named is always good enough
    free = (-np.finfo(float).max / 4, -np.finfo(float).max / 8)
    turned = [
        # the metric's units -> fitness
        tuple(objective.fitness(end) for end in ends[objective.name]) if objective.name in ends else free
        for objective in objectives
    ]
    return np.array([pair[0] for pair in turned]), np.array([pair[1] for pair in turned])
