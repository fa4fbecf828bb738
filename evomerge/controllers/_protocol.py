"""What a controller is: it proposes by `ask`, learns by `tell`, and says by `stop` why it would end."""

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
    """A point known before the search begins: from another run's archive, or a recipe to begin from."""

    genotype: tuple[float, ...]  # (d,)
    fitness: tuple[float, ...] | None = None  # (m,) measured elsewhere, higher is better; None: not known


@dataclass(frozen=True)
class SearchProblem:
    """What a controller knows about the search before it begins."""

    dimensions: int  # d, length of a genotype
    seed: int = 0  # of the controller's own generators
    objectives: int = 1  # m, length of a fitness
    weights: tuple[float, ...] = ()  # (m,) of the weighted mean, of any sum; empty: equal weights
    start: tuple[float, ...] | None = None  # (d,) genotype to begin from; None: the centre of the cube
    budget: int | None = None  # how many candidates the search will ask for, where that is known
    choices: tuple[int, ...] = ()  # (d,) how many names a gene chooses among, 0 for a number; empty: all are numbers
    switches: tuple[tuple[int, int], ...] = ()  # (gene, layer) per slot of a route that a gene switches, in slot order
    items: tuple[int, ...] = ()  # (m,) items behind each fitness, the same ones for every candidate; empty: not known
    model_weights: ModelWeights | None = None  # how genes give weight to models, where they do
    prior: tuple[WarmStartPoint, ...] = ()  # what the search may build on, known before the first ask
    asynchronous: bool = False  # results arrive one by one, and proposals are wanted before a generation ends
    bounds: Bounds | None = None  # what a candidate's fitness must meet; None: nothing
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
    """A controller that counts how often what it learned has changed what it proposes."""

    @property
    def updates(self) -> int:
        """How many updates there have been; the staleness of a result is how many fell between its ask and its tell."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """A controller that need not compute again what it proposed before, since it learns from results alone.

    A replay is then quick, and does not depend on how another processor or BLAS rounds on the way to a proposal.
    """

    def repeat(self, points: Sequence[np.ndarray]) -> bool:
        """Take stored genotypes for the batch that `ask` would return now; False: `ask` must be called."""
        ...


@runtime_checkable
class NoiseAware(Protocol):
    """A controller that can use how sure a fitness is."""

    def tell_noisy(self, index: int, fitness: Sequence[float], stderr: Sequence[float]) -> None:
        """Learn a fitness (m,) with its standard errors (m,), about what all pinned items would have given.

        Called in place of `tell` where candidates answer different numbers of items; 0 where all were answered.

        Args:
            index: of the proposal, in the order of asking.
            fitness: (m,) higher is better.
            stderr: (m,) in the same units; 0 where all items were answered.
        """
        ...


@runtime_checkable
class Recommender(Protocol):
    """A controller that can say where the best merge should lie, beyond the points that it has proposed."""

    def recommended(self) -> list[np.ndarray]:
        """Return points (d,) in the unit cube that are worth a full measurement at the end; [] before it knows any.

        Of few and noisy answers, the highest belongs to a lucky point; where a distribution has settled, luck averages
        out.
        """
        ...


def tell(
    controller: Controller, index: int, fitness: Sequence[float] | None, stderr: Sequence[float] | None = None
) -> None:
    """Tell a fitness, with its standard errors where they are known and the controller can use them.

    Args:
        controller: who learns.
        index: of the proposal, in the order of asking.
        fitness: (m,) higher is better; None: it failed.
        stderr: (m,) standard errors of it; None: not known.
    """
    if fitness is not None and stderr is not None and isinstance(controller, NoiseAware):
        controller.tell_noisy(index, fitness, stderr)
    else:
        controller.tell(index, fitness)
