"""Controller protocol: `ask` proposes genotypes, `tell` reports their fitness, `stop` gives reasons to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from evomerge.controllers._model_weights import ModelWeights
from evomerge.objectives import Scalarisation
from evomerge.pareto import Bounds


@dataclass(frozen=True)
class WarmStartPoint:
    """A point known before the search: a candidate of another run, or a recipe to start from."""

    genotype: tuple[float, ...]  # (d,)
    fitness: tuple[float, ...] | None = None  # (m,) measured elsewhere, higher is better; None: not known


@dataclass(frozen=True)
class SearchProblem:
    """What a controller knows about the search before it begins."""

    dimensions: int  # d, length of a genotype
    seed: int = 0  # all of the controller's random generators derive from it
    objectives: int = 1  # m, length of a fitness
    weights: tuple[float, ...] = ()  # (m,) of the scalarised objective, of any sum; empty: equal weights
    start: tuple[float, ...] | None = None  # (d,) genotype to begin from; None: the centre of the cube
    budget: int | None = None  # how many candidates the search will ask for, where that is known
    choices: tuple[int, ...] = ()  # (d,) number of categories of a gene, 0 for a number; empty: all are numbers
    switches: tuple[tuple[int, int], ...] = ()  # (gene, layer) per slot of a route that a gene switches, in slot order
    items: tuple[int, ...] = ()  # (m,) items behind each fitness, the same ones for every candidate; empty: not known
    model_weights: ModelWeights | None = None  # genes that are weights of models; None: no such genes
    prior: tuple[WarmStartPoint, ...] = ()  # warm start, known before the first ask
    asynchronous: bool = False  # results arrive one by one, and workers ask before a generation is complete
    bounds: Bounds | None = None  # constraints on the fitness; None: no constraint
    staleness: int | None = None  # asynchronous: most updates between ask and tell; None: the controller's default

    @property
    def scalarisation(self) -> Scalarisation:
        """The weighted mean of the objectives, by which reports rank too."""
        return Scalarisation(self.weights or (1.0,) * self.objectives)


class Controller(Protocol):
    """Proposes genotypes and learns from their fitness, which is always maximised.

    A controller is a pure function of its seed and of the sequence of its `ask` and `tell` calls: replaying the same
    calls in a fresh process gives the same proposals. It owns its random generators and touches no global one.
    """

    def ask(self) -> list[np.ndarray]:
        """Return the next batch of genotypes, each (d,) float64 in [0, 1].

        Called when every earlier proposal has been handed out. A generational controller returns [] while it waits
        for tells; the loop then collects results and asks again. An ask that returns [] changes nothing, so it need
        not be replayed. If `SearchProblem.asynchronous` is set, a controller that supports it proposes one candidate
        at a time and never waits.
        """
        ...

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn the fitness (m,) of proposal `index` (0, 1, ... in the order of asking); None: it failed.

        Args:
            index: of the proposal: 0, 1, ... in the order of asking.
            fitness: (m,) higher is better; None: it failed.

        Raises:
            InputError: the proposal was never made, or was observed before.
        """
        ...

    def stop(self) -> dict[str, str]:
        """Return the reasons to stop, by name; empty while there is none."""
        ...


@runtime_checkable
class CountsUpdates(Protocol):
    """A controller that counts updates of the model from which it proposes."""

    @property
    def updates(self) -> int:
        """How many updates there have been; the staleness of a result is how many fell between its ask and its tell."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """A controller that can replay stored proposals without recomputing them, since it learns from results alone.

    The replay is fast, and does not depend on the rounding of another processor or BLAS.
    """

    def repeat(self, points: Sequence[np.ndarray]) -> bool:
        """Take stored genotypes for the batch that `ask` would return now; False: `ask` must be called."""
        ...


@runtime_checkable
class NoiseAware(Protocol):
    """A controller that uses the standard error of a fitness."""

    def tell_noisy(self, index: int, fitness: Sequence[float], stderr: Sequence[float]) -> None:
        """Learn a fitness (m,) with its standard errors (m,) as an estimate of the fitness on all pinned items.

        Called in place of `tell` if candidates answer different numbers of items.

        Args:
            index: of the proposal, in the order of asking.
            fitness: (m,) higher is better.
            stderr: (m,) in the same units; 0 where all items were answered.
        """
        ...


@runtime_checkable
class Recommender(Protocol):
    """A controller that estimates the optimum, beyond the points that it has proposed."""

    def recommended(self) -> list[np.ndarray]:
        """Return points (d,) in the unit cube that are worth a full evaluation at the end; [] before the first update.

        With few noisy evaluations the best sample is biased upward; the mean of a settled distribution is a better
        estimate of the optimum.
        """
        ...


def tell(
    controller: Controller, index: int, fitness: Sequence[float] | None, stderr: Sequence[float] | None = None
) -> None:
    """Report a fitness, with its standard errors if they are known and the controller is noise-aware.

    Args:
        controller: learns the fitness.
        index: of the proposal, in the order of asking.
        fitness: (m,) higher is better; None: it failed.
        stderr: (m,) standard errors of it; None: not known.
    """
    if fitness is not None and stderr is not None and isinstance(controller, NoiseAware):
        controller.tell_noisy(index, fitness, stderr)
    else:
        controller.tell(index, fitness)
