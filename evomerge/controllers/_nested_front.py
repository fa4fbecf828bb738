"""Nested MAP within the quadratic controller: merge two models at a time, until one mixture of all is left.

Each pair costs a design in two coefficients, however many models there are. In return the search serves a single
preference, fixed beforehand, and the tree limits which mixtures are evaluated.

Source: Li et al. 2024 (MAP), nested merging; see `pareto.nested`.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from evomerge._arguments import Array
from evomerge.controllers._protocol import SearchProblem
from evomerge.errors import InputError
from evomerge.pareto import choose_by_preference
from evomerge.surrogates import (
    NestedState,
    fit_objectives,
    guess_link,
    initial_design,
    predicted_front,
)

SMALLEST_DESIGN, LARGEST_DESIGN = 9, 20  # points per pair: 1.5 per coefficient; as many as the paper takes


class NestedFront:
    """State of the merge tree. Proposes batches of points; None once the final mixture was proposed."""

    def __init__(self, problem: SearchProblem) -> None:
        parts = problem.model_weights
        if parts is None or not parts.plain:
            raise InputError(
                "nested needs a space whose genes are one weight per model and nothing else, as in "
                "parameters.weight: {search: [0, 1], per: [model]}; leave nested out for this space"
            )
        parts.require(np.ones(parts.count), "nested")
        parts.require(np.zeros(parts.count), "nested")
        self._problem, self._parts = problem, parts
        n = parts.count
        # n experts, n - 1 pairs and the final mixture have to fit into the budget
        affordable = SMALLEST_DESIGN if problem.budget is None else (problem.budget - n - 1) // max(n - 1, 1)
        self._per_pair = min(max(affordable, SMALLEST_DESIGN), LARGEST_DESIGN)
        self._state: NestedState | None = None
        self._pair: tuple[int, int] | None = None
        self._experts_proposed = self.done = False

    def propose(self, points: Array, values: Array, rng: np.random.Generator) -> Array | None:
        """Return the next batch (q, d), given all that was observed: (n, d) points and (n, m) values."""
        if self.done:
            return None
        if not self._experts_proposed:
            self._experts_proposed = True
            return np.array([self._parts.point(alone) for alone in np.eye(self._parts.count)])
        if self._state is None:
            self._state = self._begin(points, values)
        if self._pair is not None:
            self._state = self._state.join(self._pair, self._choice(points, values, rng))
        self._pair = self._state.next_pair()
        if self._pair is None:
            self.done = True
            return self._parts.point(self._state.nodes[-1].coefficients)[None]
        design = initial_design(self._per_pair, 2, rng)
        batch = np.array([self._parts.point(weights) for weights in design @ self._plane()])
        # the design's anchors, the nodes alone and the base, have mostly been evaluated by now
        return np.array([point for point in batch if not (points == point).all(axis=1).any()])

    def _begin(self, points: Array, values: Array) -> NestedState:
        """Return the tree of single models, paired by kinship if it was measured, else by their scores."""
        n, m = self._parts.count, self._problem.objectives
        alone = np.array([self._parts.point(one) for one in np.eye(n)])
        table = np.zeros((n, m))  # standardised scores; a failed expert keeps 0, the average
        scale = np.where(np.ptp(values, axis=0) > 0, np.ptp(values, axis=0), 1.0) if len(values) else np.ones(m)
        for expert, point in enumerate(alone):
            rows = np.flatnonzero((points == point).all(axis=1))
            if len(rows):
                table[expert] = (values[rows[-1]] - values.mean(axis=0)) / scale
        weights = np.array(self._problem.weights or (1.0,) * m)
        self._task = np.full(n, -1)  # (n,) objective of each expert; -1: all objectives count for all
        metric = table @ weights / weights.sum()
        if n == m:  # one objective per model: assign each model to its own, to maximise the sum of scores
            experts, tasks = linear_sum_assignment(-table)
            self._task[experts] = tasks
            metric = table[experts, tasks]
        preference = weights[self._task] if n == m else np.ones(n)
        similarity = self._parts.similarity() if self._parts.products else None
        return NestedState.begin(metric, preference, similarity)

    def _plane(self) -> Array:
        """Return the coefficients (2, n) of the pair's two nodes."""
        assert self._state is not None
        assert self._pair is not None
        return np.array([self._state.nodes[node].coefficients for node in self._pair])

    def _choice(self, points: Array, values: Array, rng: np.random.Generator) -> Array:
        """Return the two coefficients that suit the preference best, by the surrogates over the pair's plane."""
        assert self._state is not None
        assert self._pair is not None
        plane = self._plane()
        own = self._parts.count == self._problem.objectives
        wanted = self._task[list(self._state.tasks_of(self._pair))] if own else np.arange(self._problem.objectives)
        weights = np.array(self._problem.weights or (1.0,) * self._problem.objectives)[wanted]
        if not weights.any():  # tasks without preference: any choice is as good, so weigh them equally
            weights = np.ones(len(wanted))
        at, observed = self._on_plane(points, plane), values[:, wanted]
        inside = ~np.isnan(at).any(axis=1)
        if int(inside.sum()) < 3:  # too few points on the plane even for a linear surface
            return np.full(2, 0.5)
        links = [guess_link(column) for column in observed[inside].T]
        counts = np.array(self._problem.items, dtype=float)[wanted] if self._problem.items else None
        fits = fit_objectives(
            at[inside], observed[inside], links=links, items=counts, shared_items=True, box=[0.0, 1.0]
        )
        front = predicted_front(fits, rng, size=200, population=100, generations=30)
        return front.c[choose_by_preference(front.scores, weights)]

    def _on_plane(self, points: Array, plane: Array) -> Array:
        """Return the pair's coefficients (n, 2) of points that lie on its plane, NaN for others."""
        low, high = np.array(self._parts.low), np.array(self._parts.high)
        member = np.array(self._parts.member)
        weights = np.empty((len(points), self._parts.count))
        weights[:, member] = low + points * (high - low)
        u, *_ = np.linalg.lstsq(plane.T, weights.T, rcond=None)  # (2, n points)
        off = np.abs(plane.T @ u - weights.T).max(axis=0, initial=0.0) > 1e-9
        at = u.T.copy()
        at[off | (at < -1e-9).any(axis=1) | (at > 1 + 1e-9).any(axis=1)] = np.nan
        return np.clip(at, 0.0, 1.0)
