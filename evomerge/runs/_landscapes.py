"""Gene importance, and slices of the surrogates' landscape through a candidate, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge._arguments import Array
from evomerge.candidate import Candidate
from evomerge.controllers import model_weights_in
from evomerge.errors import InputError
from evomerge.runs._candidate_selection import picked_candidate
from evomerge.runs._evaluations import fitness_table
from evomerge.runs._fitted_surrogates import LEVEL, RunSurrogates, surrogates_of
from evomerge.runs._run_data import RunData
from evomerge.surrogates import (
    binned_variance_fractions,
    partial_rank_correlation,
    path_between,
    predict,
    rank_correlation,
    slice_points,
    sobol_indices,
)

if TYPE_CHECKING:
    import pandas as pd

IMPORTANCE_COLUMNS = (
    *("gene", "objective", "alone", "involved", "rank_correlation", "partial_correlation", "share_of_variance"),
    "left_out_r2",
)
LANDSCAPE_COLUMNS = (*("kind", "line", "position", "value", "objective", "score", "low", "high", "extrapolates"),)


def importance_frame(run: RunData) -> pd.DataFrame:
    """Return gene importance within the searched region, one row per gene and objective.

    Columns:
        gene, objective: names.
        alone: fraction of the surrogate's variance over the whole space that is due to the gene alone, [0, 1]; missing
            where the surrogate does not hold the gene (a choice, or it never varied).
        involved: fraction that involves the gene, alone or together with another; at least `alone`.
        rank_correlation: Spearman's, of the gene with the fitness over the candidates; above 0: more is better.
        partial_correlation: the same with all other genes held fixed linearly; 0 without enough candidates.
        share_of_variance: of the fitness between groups of candidates with similar values of the gene, [0, 1], chance
            taken off; holds for influence of any shape and for choices.
        left_out_r2: of the objective's surrogate, cross-validated: below 0.5, `alone` and `involved` are
            unreliable.

    Sources: Sobol 1993 (fractions of variance, in closed form for a quadratic), Iman and Conover 1980 (PRCC).
    """
    import pandas as pd

    numbers, fitness, _ = fitness_table(run.evaluations(), run.objectives)
    genotype_of = {candidate.number: candidate.genotype for candidate in run.candidates()}
    d, m = run.space.dimension, len(run.objectives)
    genotypes = np.array([genotype_of[number] for number in numbers], dtype=float).reshape(-1, d)  # (n, d)
    rank, partial = rank_correlation(genotypes, fitness), partial_rank_correlation(genotypes, fitness)
    binned = binned_variance_fractions(genotypes, fitness)  # (d, m)
    try:
        found: RunSurrogates | None = surrogates_of(run)
    except InputError:
        found = None  # too few candidates: correlations can still be given
    alone, involved, trust = np.full((d, m), np.nan), np.full((d, m), np.nan), np.full(m, np.nan)
    for index, fit in enumerate(found.fits if found is not None else ()):
        assert found is not None  # for mypy: the loop is empty otherwise
        indices = sobol_indices(fit)
        alone[list(found.genes), index], involved[list(found.genes), index] = indices.first, indices.total
        trust[index] = fit.diagnostics.loo_r2
    rows = [
        (name, objective.name, alone[g, t], involved[g, t], rank[g, t], partial[g, t], binned[g, t], trust[t])
        for g, name in enumerate(run.space.names)
        for t, objective in enumerate(run.objectives)
    ]
    return pd.DataFrame(rows, columns=list(IMPORTANCE_COLUMNS))


def landscape_frame(run: RunData, pick: str = "best", to: Sequence[str] = (), steps: int = 21) -> pd.DataFrame:
    """Return what the surrogates predict along every gene through a candidate, and on lines to other candidates.

    Columns:
        kind: slice or line.
        line: the gene that varies, or where the line leads: 'candidate 7', 'parent add'.
        position: from 0 to 1; of a slice the gene's coordinate, of a line 0 is the picked candidate.
        value: of the gene, in the user's units; for lines missing.
        objective, score: the prediction, in the metric's own units.
        low, high: ends of its 90% interval.
        extrapolates: true where no evaluated candidate is as far out; unreliable.

    Raises:
        InputError: too few candidates for a surrogate, or a pick that does not exist or lies outside the space.
    """
    import pandas as pd

    found = surrogates_of(run)
    start = _coordinates(run, found, pick)
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(found.names):
        grid = np.linspace(0.0, 1.0, steps)
        gene = run.space.genes[found.genes[index]]
        values = [gene.value(float(x)) for x in grid]  # coordinates -> the user's units
        rows += _rows(run, found, "slice", name, grid, values, slice_points(start, index, grid))
    for other in to:
        end = _coordinates(run, found, other)
        candidate = picked_candidate(run, other)
        label = f"parent {candidate.name}" if candidate.kind == "parent" else f"candidate {candidate.number}"
        grid = np.linspace(0.0, 1.0, steps)
        rows += _rows(run, found, "line", label, grid, [np.nan] * steps, path_between(start, end, steps))
    return pd.DataFrame(rows, columns=list(LANDSCAPE_COLUMNS))


def _coordinates(run: RunData, found: RunSurrogates, pick: str) -> Array:
    """Return where a candidate or a parent lies among the surrogates' genes, (k,)."""
    candidate = picked_candidate(run, pick)
    whole = np.array(candidate.genotype, dtype=float)
    if candidate.kind == "parent":
        corner = _parent_genotype(run, candidate)
        if corner is None:
            raise InputError(
                f"parent {candidate.name!r} is not a point of this space: the space needs one weight per model"
            )
        whole = corner
    return whole[list(found.genes)]  # (d,) -> (k,): the other genes stay at the best candidate's


def _parent_genotype(run: RunData, parent: Candidate) -> Array | None:
    """Return where a parent alone lies in the space (d,); None where models have no weights of their own to search."""
    parts = model_weights_in(run.config.merge, run.space)
    if parts is None or not (parent.name in parts.names or parent.number == -1):  # -1 is the base: no weights at all
        return None
    return parts.point([1.0 if name == parent.name else 0.0 for name in parts.names])


def _rows(
    run: RunData, found: RunSurrogates, kind: str, line: str, grid: Array, values: Sequence[Any], points: Array
) -> list[dict[str, Any]]:
    rows = []
    for objective, fit in zip(run.objectives, found.fits, strict=True):
        seen = predict(fit, points, level=LEVEL)  # points (steps, k)
        for index, position in enumerate(grid):
            # minimising swaps low and high
            ends = sorted(objective.fitness(float(end)) for end in (seen.low[index], seen.high[index]))
            score = objective.fitness(float(seen.value[index]))
            numbers = (float(position), values[index], objective.name, score, *ends, bool(seen.extrapolates[index]))
            rows.append(dict(zip(LANDSCAPE_COLUMNS, (kind, line, *numbers), strict=True)))
    return rows
