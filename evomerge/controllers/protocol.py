"""What a controller is: it proposes by `ask`, learns by `tell`, and says by `stop` why it would end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Setup:
    """What every controller is told about the search before it begins."""

    dimensions: int  # d, length of a genotype
    seed: int = 0
    objectives: int = 1  # m, length of a fitness
    weights: tuple[float, ...] = ()  # (m,) for controllers that need one number; empty: equal weights
    start: tuple[float, ...] | None = None  # (d,) genotype to begin from; None: the centre of the cube
    budget: int | None = None  # how many candidates the search will ask for, where that is known
    choices: tuple[int, ...] = ()  # (d,) how many unordered values each gene chooses from, 0 for a range; empty: ranges
    switches: tuple[tuple[int, int], ...] = ()  # (gene, layer) per slot of a route that a gene switches, in slot order


class Controller(Protocol):
    """Proposes genotypes and learns from their fitness, which is always maximised.

    A controller is a pure function of its seed and of the sequence of its `ask` and `tell` calls: replaying the same
    calls in a fresh process gives the same proposals. It owns its random generators and touches no global one.
    """

    def ask(self) -> list[np.ndarray]:
        """Return the next batch of genotypes, each (d,) float64 in [0, 1].

        Called when every earlier proposal has been handed out. A generational controller returns [] while it waits
        for tells; the loop then collects results and asks again. An ask that returns [] changes nothing, so it need
        not be replayed.
        """
        ...

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn the fitness (m,) of proposal `index` (0, 1, ... in the order of asking); None: it failed.

        Raises:
            InputError: the proposal was never asked, or was told before.
        """
        ...

    def stop(self) -> dict[str, str]:
        """Return the reasons to stop, by name; empty while there is none."""
        ...
