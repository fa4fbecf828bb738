"""The quadratic controller (MAP): a design, then rounds of points from surrogates refitted to all results.

Each objective is a quadratic in the genes behind a link. The next points maximise the expected gain of hypervolume
under the surrogates' posterior, or, if no gain is expected, the uncertainty about the front. A front then costs tens
of evaluations instead of thousands. This file adapts the surrogates to ask and tell.

Source: Li et al. 2024, 'MAP: Low-compute Model Merging with Amortized Pareto Fronts via Quadratic Approximation'.
Ours: see `pareto.bayesian`; scores of another run enter the fits as data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge._arguments import Array
from evomerge.controllers._nested_front import NestedFront
from evomerge.controllers._proposals import Proposals
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._registry import QuadraticOptions
from evomerge.pareto import Bounds
from evomerge.surrogates import (
    LinkName,
    Surrogate,
    anchor_points,
    d_optimal,
    fit_objectives,
    guess_link,
    next_points,
    points_needed,
    richest_complexity,
    sobol_points,
    stop_reason,
)

DESIGN_FRACTION = 0.5  # the design takes at most this fraction of the budget; the rest refines the front
LARGEST_DESIGN = 64  # most points of the design if the budget is not known
MOST_ANCHORS = 8  # one anchor per gene would use up the design of a larger space
ROUND = 4  # proposals per refit
POOL_PER_POINT, SMALLEST_POOL = 8, 256  # Sobol points from which a design is chosen


def quadratic(problem: SearchProblem, options: QuadraticOptions) -> QuadraticFront:
    """Return the quadratic controller.

    Args:
        problem: dimensions, seed, objectives, budget; items, where known, say how noisy shares are; priors with fitness
            are data from the first fit on, and replace as many points of the design.
        options: `batch_size`, proposals per round, which are evaluated in parallel between two refits; `startup`,
            points of the design, None: 1.5 per coefficient of the richest surrogate that half the budget affords;
            `tolerance`, 0: use the whole budget; `nested`, merge the models two at a time first (Nested MAP), for
            more models than a full quadratic can afford. It needs one weight gene per model and no other.

    Raises:
        InputError: `nested` is not possible in this space.
    """
    count = design_size(problem.dimensions, problem.budget) if options.startup is None else options.startup
    nested = NestedFront(problem) if options.nested else None
    return QuadraticFront(problem, options.batch_size or ROUND, count, options.tolerance, nested)


def design_size(dimensions: int, budget: int | None) -> int:
    """Return how many points a design should have: enough for the richest surrogate that the budget affords."""
    most = LARGEST_DESIGN if budget is None else max(1, int(DESIGN_FRACTION * budget))
    level = richest_complexity(dimensions, most)
    return most if level is None else points_needed(dimensions, level)


class QuadraticFront:
    """Proposes a design, then rounds of points; waits until all of a round is observed, then refits.

    Failed proposals add no data and are not proposed again. Proposals depend only on the observations and on the seed
    of the round, so a replay repeats them.

    Asynchronous, it proposes one point at a time and never waits, except during Nested MAP: a round uses the
    observations so far and keeps away from pending points. The age of a result does not matter to a fit, so nothing
    becomes stale.
    """

    def __init__(
        self, problem: SearchProblem, population: int, startup: int, tolerance: float, nested: NestedFront | None
    ) -> None:
        self._problem, self._batch, self._tolerance, self._nested = problem, population, tolerance, nested
        self._proposals = Proposals(problem.objectives)
        self._points: list[Array] = []  # (d,) genotypes by proposal index
        self._values: dict[int, tuple[float, ...] | None] = {}  # proposal index -> fitness (m,), None for a failure
        known = [one for one in problem.prior if one.fitness is not None]
        self._prior_points = np.array([one.genotype for one in known], dtype=float).reshape(-1, problem.dimensions)
        self._prior_values = np.array([one.fitness for one in known], dtype=float).reshape(-1, problem.objectives)
        self._startup = 0 if nested else max(0, startup - len(np.unique(self._prior_points, axis=0)))
        self._errors: dict[int, tuple[float, ...]] = {}  # proposal index -> standard errors (m,), if reported
        self._queue: list[Array] = []  # asynchronous: rest of the current round, not asked for yet
        self._round = 0
        self._gains: list[float] = []  # expected gain of hypervolume per round, for `stop`
        self._volumes: list[float] = []

    def ask(self) -> list[np.ndarray]:
        """Return the design, or the next round's points; [] while one is not observed completely."""
        if self.stop() or (self._proposals.waiting and not self._free):
            return []
        points = self._queue or [self._on_choices(point) for point in self._next_points(self._generator())]
        if self._free:
            points, self._queue = points[:1], points[1:]
        self._points += points
        self._proposals.hand_out(len(points))
        return [point.copy() for point in points]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the surrogates are refitted at the next ask."""
        self._values[index] = self._proposals.take_back(index, fitness)

    def tell_noisy(self, index: int, fitness: Sequence[float], stderr: Sequence[float]) -> None:
        """Learn one fitness with the standard errors (m,) from items not answered; it weighs less in the fits."""
        self.tell(index, fitness)
        self._errors[index] = tuple(float(error) for error in stderr)

    def stop(self) -> dict[str, str]:
        """Return {'gain': ...} after two rounds with an expected gain below the tolerance; else {}."""
        if self._tolerance == 0.0:
            return {}
        reason = stop_reason(self._gains, self._volumes, tolerance=self._tolerance)
        return {} if reason is None else {"gain": reason}

    def _next_points(self, rng: np.random.Generator) -> Array:
        if self._nested is not None:
            batch = self._nested.propose(*self._data(), rng)
            if batch is not None:
                return batch
        if self._round == 1 and self._startup:
            return self._design(rng)
        points, values = self._data()
        fits = fits_to(points, values, self._problem.items, self._noise())
        proposed = np.vstack([self._prior_points, *self._points]) if len(self._prior_points) or self._points else points
        if not fits:  # all evaluations failed so far: explore elsewhere
            return sobol_points(self._batch, self._problem.dimensions, rng)
        proposal = next_points(fits, proposed, self._batch, rng, bounds=_fitted_bounds(self._problem.bounds, values))
        self._gains.append(float(proposal.gain.sum()))
        self._volumes.append(proposal.volume)
        return proposal.c

    def _data(self) -> tuple[Array, Array]:
        """Return all points with a fitness (n, d), and the fitness (n, m): priors first, then in proposal order."""
        observed = [
            (self._points[index], values) for index, values in sorted(self._values.items()) if values is not None
        ]
        points = np.array([point for point, _ in observed]).reshape(-1, self._problem.dimensions)
        values = np.array([value for _, value in observed], dtype=float).reshape(-1, self._problem.objectives)
        return np.vstack([self._prior_points, points]), np.vstack([self._prior_values, values])

    def _noise(self) -> Array:
        """Return the standard errors of the rows of `_data`, (n, m); 0 where every item was answered."""
        none = (0.0,) * self._problem.objectives
        observed = [
            self._errors.get(index, none) for index, values in sorted(self._values.items()) if values is not None
        ]
        known = np.zeros((len(self._prior_points), self._problem.objectives))
        return np.vstack([known, np.array(observed, dtype=float).reshape(-1, self._problem.objectives)])

    @property
    def _free(self) -> bool:
        """Whether the next proposal need not wait for pending results."""
        return self._problem.asynchronous and (self._nested is None or self._nested.done)

    def _design(self, rng: np.random.Generator) -> Array:
        """Return the start, the anchors, Sobol points, and a D-optimal choice of further Sobol points, (count, d)."""
        d, count = self._problem.dimensions, self._startup
        first = distinct(np.vstack([*starts(self._problem), _anchors(self._problem)]), self._prior_points)[:count]
        left = count - len(first)
        if left == 0:
            return first
        pool = sobol_points(max(POOL_PER_POINT * left, SMALLEST_POOL), d, rng)
        even, rest = pool[: left // 4], pool[left // 4 :]  # a space-filling part guards against non-quadratic surfaces
        have = count + len(self._prior_points)
        level = richest_complexity(d, have)
        level = "linear" if level in (None, "constant") else level  # D-optimality needs more than a constant
        keep = np.vstack([self._prior_points, first, even])
        chosen = d_optimal(rest, left - len(even), complexity=level, keep=keep, box=[0.0, 1.0])
        return np.vstack([first, even, rest[chosen]])

    def _on_choices(self, point: Array) -> Array:
        """Return the point with each choice gene at the middle of its category: one candidate per category."""
        if not any(self._problem.choices):
            return np.clip(point, 0.0, 1.0)
        count = np.array(self._problem.choices)
        middle = (np.minimum(np.floor(point * count), count - 1) + 0.5) / np.maximum(count, 1)
        return np.clip(np.where(count > 0, middle, point), 0.0, 1.0)

    def _generator(self) -> np.random.Generator:
        """Return the generator of the next round."""
        self._round += 1
        return np.random.default_rng([self._problem.seed, self._round])  # a replay may then skip rounds


def fits_to(
    points: Array, values: Array, items: Sequence[int] = (), stderr: Array | None = None
) -> tuple[Surrogate, ...]:
    """Return one surrogate per objective over the unit cube, () without any row.

    Fractions are fitted behind a logit, with the binomial noise of their items if the numbers are known; other values
    are standardised first, so that no unit is too large or too small to square. All rows answered the same items.

    Args:
        points: (n, d).
        values: (n, m), higher is better.
        items: (m,) items behind each value, or ().
        stderr: (n, m) additional noise of rows that answered fewer items; used only with `items`.
    """
    if len(points) == 0:
        return ()
    columns, links = [], list[LinkName]()
    for column in values.T:
        link = guess_link(column)
        scale = float(column.std())
        if link == "identity":
            column = (column - column.mean()) / scale if scale > 1e-12 * float(np.abs(column).max()) else 0.0 * column
        columns.append(column)
        links.append(link)
    table = np.stack(columns, axis=1)
    counts = None
    if len(items):
        counts = np.broadcast_to(np.array(items, dtype=float), values.shape)
        if stderr is not None and stderr.any():
            counts = _effective(counts, values, stderr)
    return fit_objectives(points, table, links=links, items=counts, shared_items=True, box=[0.0, 1.0])


def _fitted_bounds(bounds: Bounds | None, values: Array) -> Bounds | None:
    """Return bounds on the scale of `fits_to`, which standardises columns that are not fractions."""
    if bounds is None:
        return None
    fractions = np.array([guess_link(column) != "identity" for column in values.T])  # (m,)
    scale = np.where(values.std(axis=0) > 0, values.std(axis=0), 1.0)
    return bounds.scaled(np.where(fractions, 0.0, values.mean(axis=0)), np.where(fractions, 1.0, scale))


def _effective(items: Array, values: Array, stderr: Array) -> Array:
    """Return the effective numbers of items (n, m): binomial variance plus `stderr**2` as one binomial variance."""
    inside = (values >= 0) & (values <= 1)
    # at least a quarter of an item's worth: a fraction of 0 or 1 would otherwise count as exact
    spread = np.maximum(np.where(inside, values * (1 - values), 0.25), 0.25 / items)
    return np.asarray(items / (1 + items * stderr**2 / spread))


def starts(problem: SearchProblem) -> list[Array]:
    """Return the starting points, (1, d) each: the start, and priors without fitness."""
    wanted = [problem.start] if problem.start is not None else []
    wanted += [one.genotype for one in problem.prior if one.fitness is None]
    return [np.array([point], dtype=float) for point in wanted]


def _anchors(problem: SearchProblem) -> Array:
    """Return the anchors of a design, (a, d): equal weights, each model alone and the base, or the cube's centre."""
    parts = problem.model_weights
    if parts is not None:
        n = parts.count
        mixtures = [np.full(n, 1.0 / n), *np.eye(n), np.zeros(n)]
        return np.array([parts.point(weights) for weights in mixtures])
    if problem.dimensions <= MOST_ANCHORS:
        return anchor_points(problem.dimensions)
    return np.full((1, problem.dimensions), 0.5)


def distinct(points: Array, known: Array) -> Array:
    """Return the points without repeats and without those known already, in order."""
    kept: list[Array] = []
    for point in points:
        if not any(np.array_equal(point, other) for other in [*kept, *known]):
            kept.append(point)
    return np.array(kept).reshape(-1, points.shape[1])
