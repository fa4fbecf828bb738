"""Noisy expected hypervolume improvement under Gaussian processes: the controller `nehvi`.

Each objective is a Gaussian process in the genes behind a link. After a space-filling design, each round proposes the
points with the largest expected gain of hypervolume over the latent values of the evaluated points, averaged over joint
draws of all surfaces. A lucky measurement is therefore not mistaken for a good point, and pending points count as
evaluated.

Source: Daulton, Balandat and Bakshy 2021, 'Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected
Hypervolume Improvement'. Ours: volume is counted by samples, points are chosen greedily from a pool around the front
that the surfaces' means predict, and shares lie behind a logit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge._arguments import Array
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._quadratic_front import ROUND, QuadraticFront, distinct, starts
from evomerge.controllers._registry import StartupOptions
from evomerge.surrogates import GaussianProcess, Hyperparameters, fit_process, improving, sobol_points

POINTS_PER_GENE, SMALLEST_DESIGN, LARGEST_DESIGN = 2, 8, 64
DESIGN_FRACTION = 0.25  # the space-filling design takes at most this fraction of the budget
REFIT_GROWTH = 0.1  # length scales are fitted again once the data have grown by this fraction


def nehvi(problem: SearchProblem, options: StartupOptions) -> GaussianFront:
    """Return a controller that proposes by noisy expected hypervolume improvement under Gaussian processes.

    Args:
        problem: dimensions, seed, objectives, budget; items, where known, say how shares of 0 and 1 are to be read;
            priors with fitness are data from the first fit on, and replace as many points of the design.
        options: `batch_size`, proposals per round, which are evaluated in parallel; `startup`, points of the
            space-filling design, None: two per gene, a quarter of the budget at most.
    """
    startup = design_points(problem.dimensions, problem.budget) if options.startup is None else options.startup
    return GaussianFront(problem, options.batch_size or ROUND, startup)


def design_points(dimensions: int, budget: int | None) -> int:
    """Return the number of space-filling points before the first fit."""
    wanted = int(np.clip(POINTS_PER_GENE * dimensions, SMALLEST_DESIGN, LARGEST_DESIGN))
    return wanted if budget is None else max(1, min(wanted, int(DESIGN_FRACTION * budget)))


class GaussianFront(QuadraticFront):
    """Proposes a space-filling design, then rounds of points; batches and waits like the quadratic controller."""

    def __init__(self, problem: SearchProblem, population: int, startup: int) -> None:
        super().__init__(problem, population, startup, 0.0, None)
        self._hyper: list[Hyperparameters] = []  # per objective, after the fits to `_sizes[:_fitted]` rows
        self._sizes: list[int] = []  # rows of data at which length scales are fitted anew, each fit from the one before
        self._fitted = 0

    def repeat(self, points: Sequence[np.ndarray]) -> bool:
        """Take stored genotypes for the next batch; length scales are fitted when they are needed again.

        In an asynchronous search, rows come in another order than they were learned in, so there it returns False.
        """
        if self._free:
            return False
        self._generator()
        if not (self._round == 1 and self._startup):
            self._schedule(len(self._data()[0]))
        self._points += [np.array(point, dtype=np.float64) for point in points]
        self._proposals.hand_out(len(points))
        return True

    def _next_points(self, rng: np.random.Generator) -> Array:
        if self._round == 1 and self._startup:
            return self._spread(rng)
        points, values = self._data()
        if len(points) == 0:  # all evaluations failed so far: explore elsewhere
            return sobol_points(self._batch, self._problem.dimensions, rng)
        processes = self._fits(points, values)
        proposed = np.vstack([self._prior_points, *self._points]) if self._points else self._prior_points
        return improving(processes, values, proposed, self._batch, rng, self._problem.bounds)

    def _spread(self, rng: np.random.Generator) -> Array:
        """Return the start, or the centre of the cube, and Sobol points."""
        d = self._problem.dimensions
        first = starts(self._problem) or [np.full((1, d), 0.5)]
        return distinct(np.vstack([*first, sobol_points(self._startup, d, rng)]), self._prior_points)[: self._startup]

    def _schedule(self, rows: int) -> None:
        """Schedule a fit of the length scales to the first `rows` rows if the data have grown enough."""
        if rows and (not self._sizes or rows >= (1 + REFIT_GROWTH) * self._sizes[-1]):
            self._sizes.append(rows)

    def _fits(self, points: Array, values: Array) -> list[GaussianProcess]:
        """Return a process per objective."""
        self._schedule(len(points))
        for rows in self._sizes[
            self._fitted :
        ]:  # also those that `repeat` skipped: each fit starts from the one before
            fits = self._processes(points[:rows], values[:rows], refine=True)
            self._hyper, self._fitted = [process.hyper for process in fits], self._fitted + 1
        return self._processes(points, values, refine=False)

    def _processes(self, points: Array, values: Array, *, refine: bool) -> list[GaussianProcess]:
        noise, items = self._noise()[: len(points)], self._problem.items
        return [
            fit_process(
                points,
                values[:, t],
                items=float(items[t]) if items else None,
                stderr=noise[:, t],
                start=self._hyper[t] if self._hyper else None,
                refine=refine,
            )
            for t in range(self._problem.objectives)
        ]
