"""Nested MAP: merge many experts two at a time, for a single preference. The tree is a value; callers evaluate.

Repeat until one node is left: take the two most similar nodes, find their front with a two-expert MAP, choose a point
by the preference, and replace both by the merged node. Every node is a linear combination of the original task vectors,
so the final model is written once, from the experts, and no merged checkpoint is loaded again.

    state = NestedState.begin(metrics, preference)
    while (pair := state.next_pair()) is not None:
        ...two-expert MAP on the tasks of both nodes; choose coefficients and the metric to record...
        state = state.join(pair, coefficients, metric)
    state.nodes[-1].coefficients   # (N,) over the original experts

Source: Li et al. 2024 (MAP), nested merging. Pairs by closest recorded metric as there; by similarity of task
vectors is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from evomerge._arguments import Array, at_least, vector
from evomerge.errors import InputError
from evomerge.pareto import preference_weights


@dataclass(frozen=True)
class MergeNode:
    """A node of the merge tree: an expert (a leaf), or two merged nodes."""

    members: tuple[int, ...]  # original experts, and with them tasks, that it combines, ascending
    coefficients: Array  # (N,) of the original task vectors
    metric: float  # the recorded metric by which nodes are paired
    parents: tuple[int, int] | None  # indices into the state's nodes; None for an expert
    local: tuple[float, float] | None  # coefficients of the two parents' task vectors


@dataclass(frozen=True)
class NestedState:
    """State of the merge tree. Nodes are appended and never change; `open` nodes are not merged further yet."""

    nodes: tuple[MergeNode, ...]
    open: tuple[int, ...]
    preference: Array  # (N,) over the original tasks, sum 1
    similarity: Array | None  # (N, N) of the experts, or None to pair by metric

    @classmethod
    def begin(cls, metrics: ArrayLike, preference: ArrayLike = 1.0, similarity: ArrayLike | None = None) -> NestedState:
        """Return the initial state: every expert is an open leaf.

        Args:
            metrics: (N,) each expert's metric on its own task; any scale shared by the tasks.
            preference: (N,) or scalar, importance of each task.
            similarity: (N, N) symmetric, for instance cosines of task vectors; larger is more similar. If given, it
                chooses the pairs instead of the closeness of the metric.

        Raises:
            InputError: shapes do not match, NaN, no experts, or the similarity is not symmetric.
        """
        values = np.atleast_1d(np.asarray(metrics, dtype=np.float64))
        n = at_least(len(values), 1, "the number of metrics")
        values = vector(values, n, "metrics", "one metric per expert")
        table = None
        if similarity is not None:
            table = np.asarray(similarity, dtype=np.float64)
            if table.shape != (n, n) or not np.allclose(table, table.T, equal_nan=False):
                raise InputError(f"similarity must be ({n}, {n}), symmetric and not NaN; got shape {table.shape}")
        weights = preference_weights(np.broadcast_to(np.asarray(preference, dtype=np.float64), (n,)), n)
        # a leaf's coefficients are its unit vector, so that `join` stays linear in the experts
        leaves = tuple(MergeNode((i,), np.eye(n)[i], float(values[i]), None, None) for i in range(n))
        return cls(leaves, tuple(range(n)), weights, table)

    def next_pair(self) -> tuple[int, int] | None:
        """Return the two open nodes to merge next, as indices into `nodes`, or None when one is left.

        The closest recorded metrics, or the highest mean similarity between members; ties go to the earliest pair.
        """
        best: tuple[int, int] | None = None
        highest = -np.inf
        for position, left in enumerate(self.open):
            for right in self.open[position + 1 :]:
                a, b = self.nodes[left], self.nodes[right]
                if self.similarity is None:
                    closeness = -abs(a.metric - b.metric)
                else:
                    closeness = float(self.similarity[np.ix_(a.members, b.members)].mean())
                if closeness > highest + 1e-12:  # the margin keeps rounding from breaking ties
                    best, highest = (left, right), closeness
        return best

    def join(self, pair: tuple[int, int], coefficients: ArrayLike, metric: float | None = None) -> NestedState:
        """Return the state with two open nodes merged into a new one, the last of `nodes`.

        Args:
            pair: two different open nodes.
            coefficients: (2,) of the two nodes' task vectors in the merged model.
            metric: what to record for the merged node; default the preference-weighted mean of the two.

        Raises:
            InputError: a node is not open, or the coefficients are not two finite numbers.
        """
        left, right = pair
        if left == right or left not in self.open or right not in self.open:
            raise InputError(f"pair must be two different open nodes, got {pair}; open are {list(self.open)}")
        local = vector(coefficients, 2, "coefficients", "one per node of the pair")
        if not np.isfinite(local).all():
            raise InputError(f"coefficients must be finite, got {local.tolist()}")
        a, b = self.nodes[left], self.nodes[right]
        if metric is None:
            metric = float(self.pair_preference(pair) @ [a.metric, b.metric])
        if not np.isfinite(metric):
            raise InputError(f"metric must be finite, got {metric}")
        node = MergeNode(
            members=tuple(sorted((*a.members, *b.members))),
            coefficients=local[0] * a.coefficients + local[1] * b.coefficients,
            metric=float(metric),
            parents=(left, right),
            local=(float(local[0]), float(local[1])),
        )
        still = tuple(index for index in self.open if index not in pair)
        return replace(self, nodes=(*self.nodes, node), open=(*still, len(self.nodes)))

    def pair_preference(self, pair: tuple[int, int]) -> Array:
        """Return the preference between two nodes, (2,) with sum 1: the summed preference of their members.

        Two nodes whose tasks all have preference 0 count equally.
        """
        sums = np.array([self.preference[list(self.nodes[index].members)].sum() for index in pair])
        return sums / sums.sum() if sums.sum() > 0 else np.full(2, 0.5)

    def tasks_of(self, pair: tuple[int, int]) -> tuple[int, ...]:
        """Return the tasks on which the pair's merges must be evaluated: the members of both, ascending."""
        return tuple(sorted(member for index in pair for member in self.nodes[index].members))
