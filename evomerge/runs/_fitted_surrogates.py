"""The quadratic surrogates of a run, with their cross-validated errors.

A pure function of the archive. All candidates of a run answer the same items, so what the surrogates predict is the
score on these items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evomerge._arguments import Array
from evomerge.candidate import Objective
from evomerge.errors import InputError
from evomerge.runs._evaluations import best_number, fitness_table
from evomerge.runs._run_data import RunData
from evomerge.surrogates import (
    LinkName,
    PredictedFront,
    Surrogate,
    fit_objectives,
    guess_link,
    predict,
    predicted_front,
    reliability_warnings,
)

if TYPE_CHECKING:
    import pandas as pd

FEWEST_CANDIDATES = 3  # a constant model with an error needs two, a line three
LEVEL = 0.9  # all intervals of predictions have this level
FOLDS = 10  # parts of the cross-validation that measures coverage
LOWEST_COVERAGE = 0.7  # below this coverage of left-out candidates a warning says not to trust the prediction
FRONT_SIZE = 500  # points of the predicted front from which the shown ones are chosen
SEED = 0  # fixed, so that the same archive gives the same predicted front


@dataclass(frozen=True)
class RunSurrogates:
    """Surrogates of a run's objectives, in the genes that vary; n candidates, k genes, m objectives."""

    objectives: tuple[Objective, ...]
    names: tuple[str, ...]  # (k,) genes
    genes: tuple[int, ...]  # (k,) their indices in the genotype
    through: Array  # (d,) genotype of the best candidate: what the other genes are held at
    best: int  # its number
    numbers: tuple[int, ...]  # (n,) candidates behind the fits
    points: Array  # (n, k) coordinates
    fitness: Array  # (n, m) higher is better
    items: Array  # (n, m)
    fits: tuple[Surrogate, ...]  # (m,)
    held: tuple[str, ...]  # genes that choose among names, held at the best candidate's choice

    def genotypes(self, points: Array) -> Array:
        """Return whole genotypes (q, d) of points (q, k)."""
        whole = np.tile(self.through, (len(points), 1))  # (q, d)
        whole[:, list(self.genes)] = points
        return whole

    def front(self) -> PredictedFront:
        """Return the front that the surrogates predict; fitness is higher-is-better in it."""
        return predicted_front(self.fits, np.random.default_rng(SEED), size=FRONT_SIZE, start=self.points, level=LEVEL)


def surrogates_of(run: RunData) -> RunSurrogates:
    """Return the surrogates of a run.

    Genes that choose among names have no order that a quadratic could use: they are held at the best candidate's
    choice, and the surrogates are fitted to the candidates with the same choice.

    Raises:
        InputError: too few candidates have scores, or none of the genes varies.
    """
    evaluations = run.evaluations()
    numbers, fitness, _ = fitness_table(evaluations, run.objectives)
    best = best_number(evaluations, run.objectives)  # infeasible ones too: they inform the fit as well
    if best is None or len(numbers) < FEWEST_CANDIDATES:
        raise InputError(
            f"{len(numbers)} candidates have scores, and a surrogate needs {FEWEST_CANDIDATES} or more; search longer"
        )
    candidates = {candidate.number: candidate for candidate in run.candidates()}
    genotypes = np.array([candidates[number].genotype for number in numbers], dtype=float)  # (n, d)
    through = np.array(candidates[best].genotype, dtype=float)
    rows = np.ones(len(numbers), dtype=bool)  # (n,) candidates with the best one's choices
    held = []
    for index, gene in enumerate(run.space.genes):
        if gene.kind == "choice":
            held.append(gene.name)
            chosen = gene.value(float(through[index]))  # compared by value: coordinates within one choice differ
            rows &= np.array([gene.value(float(row[index])) == chosen for row in genotypes])
    free = [
        index
        for index, gene in enumerate(run.space.genes)
        # a constant column makes the regression singular
        if gene.kind != "choice" and np.ptp(genotypes[rows, index]) > 0
    ]
    if not free or int(rows.sum()) < FEWEST_CANDIDATES:
        raise InputError(
            f"only {int(rows.sum())} candidates have the same choices as the best, and {len(free)} genes "
            "vary among them; a surrogate needs more"
        )
    points, table = genotypes[rows][:, free], fitness[rows]  # (n, k), (n, m)
    kept = tuple(number for number, row in zip(numbers, rows, strict=True) if row)
    items = np.array([[evaluations[n].scores[o.name].items for o in run.objectives] for n in kept], dtype=float)
    return RunSurrogates(
        run.objectives,
        tuple(run.space.names[index] for index in free),
        tuple(free),
        through,
        best,
        kept,
        points,
        table,
        np.maximum(items, 1.0),
        _fit(points, table, np.maximum(items, 1.0), run.objectives),
        tuple(held),
    )


def errors_of(found: RunSurrogates) -> pd.DataFrame:
    """Return how far each surrogate can be trusted, one row per objective.

    Columns: objective; link; complexity (constant, linear, diagonal, full); candidates (fitted to); parameters; r2
    (fraction of the variance explained); left_out_r2 and left_out_error (the same and the root mean squared error, in
    the metric's units, for candidates left out one at a time); noise (standard error of the scores themselves; missing
    where not known); coverage (fraction of candidates, left out in ten groups, that lie inside their 90% interval).
    """
    import pandas as pd

    coverage = _coverage(found)
    rows = []
    for index, (objective, fit) in enumerate(zip(found.objectives, found.fits, strict=True)):
        seen = fit.diagnostics
        rows.append(
            {
                "objective": objective.name,
                "link": fit.link.name,
                "complexity": fit.complexity,
                "candidates": int(seen.used.sum()),
                "parameters": seen.parameters,
                "r2": seen.r2,
                "left_out_r2": seen.loo_r2,
                "left_out_error": seen.loo_sd,
                "noise": np.nan if seen.noise_floor is None else seen.noise_floor,  # exact objectives have no noise
                "coverage": coverage[index],
            }
        )
    return pd.DataFrame(rows)


def reasons_to_doubt(found: RunSurrogates, front: PredictedFront | None, errors: pd.DataFrame) -> list[str]:
    """Return reasons not to trust the predicted front, one sentence each; [] without any."""
    warnings = reliability_warnings(found.fits, front, [objective.name for objective in found.objectives])
    for name, covered in zip(errors["objective"], errors["coverage"], strict=True):
        if covered < LOWEST_COVERAGE:
            warnings.append(
                f"{name}: only {covered:.0%} of the held-out candidates lie inside their {LEVEL:.0%} interval"
            )
    if found.held:
        warnings.append(f"it is valid only for the choices of candidate {found.best}: {', '.join(found.held)}")
    return warnings


def _fit(points: Array, fitness: Array, items: Array, objectives: tuple[Objective, ...]) -> tuple[Surrogate, ...]:
    links: list[LinkName] = [guess_link(column) for column in fitness.T]  # per objective: logit for scores in [0, 1]
    names = [objective.name for objective in objectives]
    return fit_objectives(points, fitness, links=links, items=items, shared_items=True, box=[0.0, 1.0], names=names)


def _coverage(found: RunSurrogates) -> Array:
    """Return per objective (m,) the fraction of candidates inside the interval of a fit that did not see them."""
    n = len(found.points)
    fold = np.random.default_rng(SEED).permutation(n) % min(FOLDS, n)  # (n,) equally large folds, same ones every time
    inside = np.zeros((n, len(found.objectives)), dtype=bool)
    for part in range(int(fold.max()) + 1):
        out, rest = fold == part, fold != part
        fits = _fit(found.points[rest], found.fitness[rest], found.items[rest], found.objectives)
        for index, fit in enumerate(fits):
            seen = predict(fit, found.points[out], level=LEVEL)
            value = found.fitness[out, index]
            # the slack admits intervals of width 0 of exact objectives
            inside[out, index] = (value >= seen.low - 1e-12) & (value <= seen.high + 1e-12)
    return np.asarray(inside.mean(axis=0))
