"""Greedy soup, and top-k greedy merging by model kinship: controllers over mixtures of models.

Both choose weights of the models and encode them as a genotype; all other genes stay at their start. They need a space
in which models have weights of their own (`parameters.weight` with `per: [model]`), and maximise the scalarised
objective, as CMA-ES does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from evomerge._arguments import Array
from evomerge.controllers._model_weights import PARAMETER, ModelWeights
from evomerge.controllers._proposals import Proposals
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._registry import KinshipOptions
from evomerge.errors import InputError
from evomerge.option_fields import NoOptions

ALIKE = 0.9  # the paper stops once the mean kinship of the best exceeds this: merging them adds nothing new


def greedy_soup(problem: SearchProblem, options: NoOptions) -> GreedySoup:
    """Return the greedy soup: evaluate every model alone, then average them in, best first, keeping what helps.

    Costs 2n - 1 candidates for n models.

    Source: Wortsman et al. 2022, 'Model soups', the greedy recipe. Ours: any merge method, not only averaging.
    """
    return GreedySoup(problem, _model_weights(problem, "greedy-soup"))


def kinship(problem: SearchProblem, options: KinshipOptions) -> TopKinship:
    """Return top-k greedy merging with exploration by kinship.

    Each generation averages all pairs of the best `top` mixtures, and the best mixture with the least similar one.

    Args:
        problem: with `model_weights` that hold the inner products of the task vectors.
        options: `top` is k, the number of best mixtures merged with each other.

    Source: Hu et al. 2024, 'Exploring Model Kinship for Merging Large Language Models'. Ours: mixtures are averages
        of coefficients, written by the search's own merge method; kinship between mixtures is computed, not measured.
    """
    parts = _model_weights(problem, "kinship")
    if not parts.products:
        raise InputError("kinship needs the inner products of the models' task vectors; see weights.kinship")
    return TopKinship(problem, parts, options.top)


def _model_weights(problem: SearchProblem, name: str) -> ModelWeights:
    parts = problem.model_weights
    if parts is None:
        raise InputError(
            f"{name} needs a {PARAMETER} per model to search, as in parameters.{PARAMETER}: "
            "{search: [0, 1], per: [model]}; this space has none for two models or more"
        )
    parts.require(np.ones(parts.count), name)
    parts.require(np.zeros(parts.count), name)
    return parts


class _Mixing:
    """Shared bookkeeping: proposed mixtures, their scalarised fitness, and waiting for whole batches."""

    def __init__(self, problem: SearchProblem, parts: ModelWeights) -> None:
        self._parts = parts
        self._scalarisation = problem.scalarisation
        self._proposals = Proposals(problem.objectives, problem.bounds)
        self._mixtures: list[Array] = []  # proposed, (n,) weights each, by index
        self._scores: dict[int, float | None] = {}  # scalarised fitness by index; None for a failure

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness."""
        values = self._proposals.take_back(index, fitness)
        self._scores[index] = None if values is None else self._scalarisation.scalarise(values)

    def _propose(self, mixtures: Sequence[Array]) -> list[np.ndarray]:
        self._proposals.hand_out(len(mixtures))
        self._mixtures += [np.asarray(mixture, dtype=float) for mixture in mixtures]
        return [self._parts.point(mixture) for mixture in mixtures]

    def _ranked(self) -> list[int]:
        """Return the indices of the mixtures that did not fail, the best first, the earlier one on a tie."""
        known = [(-score, index) for index, score in self._scores.items() if score is not None]
        return [index for _, index in sorted(known)]


class GreedySoup(_Mixing):
    """Proposes the models, then one soup at a time; ends once every model was tried."""

    def __init__(self, problem: SearchProblem, parts: ModelWeights) -> None:
        super().__init__(problem, parts)
        self._kept: list[int] = []  # models in the soup
        self._best = -np.inf
        self._order: list[int] | None = None  # models still to be tried, the best first
        self._tried: int | None = None  # model added in the pending soup

    def ask(self) -> list[np.ndarray]:
        """Return the models alone, or the next soup; [] while something is unobserved, and at the end."""
        if self._proposals.waiting:
            return []
        if not self._mixtures:
            return self._propose(list(np.eye(self._parts.count)))
        self._learn()
        if not self._order:
            return []
        self._tried = self._order.pop(0)
        return self._propose([self._soup([*self._kept, self._tried])])

    def stop(self) -> dict[str, str]:
        """Return {'soup': the models that were kept} once all were tried."""
        if self._proposals.waiting or not self._mixtures:
            return {}
        self._learn()
        if self._order:
            return {}
        kept = ", ".join(self._parts.names[model] for model in self._kept) or "none, for all failed"
        return {"soup": f"every model was tried; kept: {kept}"}

    def _learn(self) -> None:
        if self._order is None:
            ranked = self._ranked()  # the first n mixtures are the models
            self._kept, self._order = ranked[:1], ranked[1:]
            best = self._scores[ranked[0]] if ranked else None
            self._best = -np.inf if best is None else best
        elif self._tried is not None:
            score = self._scores[len(self._mixtures) - 1]
            if score is not None and score >= self._best:  # a tie keeps the model, as in the paper
                self._kept, self._best = [*self._kept, self._tried], score
            self._tried = None

    def _soup(self, models: Sequence[int]) -> Array:
        weights = np.zeros(self._parts.count)
        weights[list(models)] = 1.0 / len(models)
        return weights


class TopKinship(_Mixing):
    """Proposes the models, then generations of averages of the best; ends if these are similar or nothing improves."""

    def __init__(self, problem: SearchProblem, parts: ModelWeights, top: int) -> None:
        super().__init__(problem, parts)
        self._top = top
        self._best: float | None = None  # best score before the last generation
        self._checked = 0  # number of mixtures at the last check of the stopping rules
        self._stopped: dict[str, str] = {}

    def ask(self) -> list[np.ndarray]:
        """Return the models alone, or the next generation; [] while something is unobserved, and at the end."""
        if self._proposals.waiting or self.stop():
            return []
        return self._propose(self._children() if self._mixtures else list(np.eye(self._parts.count)))

    def stop(self) -> dict[str, str]:
        """Return {'gain': ...}, {'kinship': ...} or {'failed': ...} once no improvement is expected."""
        if not self._proposals.waiting and len(self._mixtures) > self._checked:
            self._checked = len(self._mixtures)
            self._stopped = self._reason()
        return dict(self._stopped)

    def _reason(self) -> dict[str, str]:
        ranked = self._ranked()
        if len(ranked) < 2:
            return {"failed": f"{len(ranked)} of the models could be scored, and two are needed for a merge"}
        best = self._scores[ranked[0]]
        before, self._best = self._best, best
        if before is not None and best is not None and best <= before:
            return {"gain": f"a generation brought nothing better than {before:.4g}"}
        similar = [self._kinship(a, b) for a, b in combinations(ranked[: self._top], 2)]
        if float(np.mean(similar)) > ALIKE:
            return {"kinship": f"the best {self._top} are too similar: mean kinship {np.mean(similar):.3f}"}
        return {} if self._children() else {"gain": "every average of the best was tried"}

    def _children(self) -> list[Array]:
        """Return the new averages of pairs of the best, and of the best with the least similar mixture."""
        ranked = self._ranked()
        pairs = list(combinations(ranked[: self._top], 2))
        pairs.append((ranked[0], min(ranked[1:], key=lambda index: (self._kinship(ranked[0], index), index))))
        children: list[Array] = []
        for a, b in dict.fromkeys(pairs):
            child = (self._mixtures[a] + self._mixtures[b]) / 2
            # evaluations are deterministic, so a duplicate would waste one
            if not any(np.allclose(child, other, atol=1e-9) for other in [*self._mixtures, *children]):
                children.append(child)
        return children

    def _kinship(self, a: int, b: int) -> float:
        return self._parts.kinship(self._mixtures[a], self._mixtures[b])
