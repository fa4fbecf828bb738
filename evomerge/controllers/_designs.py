"""Designs: points drawn in advance, without learning from results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import qmc

from evomerge.controllers._proposals import Proposals
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._registry import BatchOptions
from evomerge.errors import InputError

BATCH_SIZE = 32  # proposals per ask; the sequence of points does not depend on it
LARGEST_HYPERCUBE = 4096  # most points of one Latin hypercube; a longer search draws independent further ones
_BLOCK = 64  # Sobol points drawn at a time: a power of two keeps the sequence balanced (SciPy warns otherwise)


class Design:
    """Proposes the points of `draw`; never waits, and checks fitness values without using them."""

    def __init__(self, draw: Callable[[int], np.ndarray], batch_size: int, objectives: int) -> None:
        self._draw = draw
        self._batch_size = batch_size
        self._proposals = Proposals(objectives)

    def ask(self) -> list[np.ndarray]:
        """Return the next `batch_size` points."""
        self._proposals.hand_out(self._batch_size)
        return [np.array(point, dtype=np.float64) for point in self._draw(self._batch_size)]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Check the index and the fitness; a design learns nothing."""
        self._proposals.take_back(index, fitness)

    def stop(self) -> dict[str, str]:
        """Return {}: a design has no end of its own."""
        return {}


def uniform(problem: SearchProblem, options: BatchOptions) -> Design:
    """Return a controller of independent uniform points of the cube: the baseline that every search has to beat."""
    generator = np.random.default_rng(problem.seed)
    return Design(
        lambda count: generator.random((count, problem.dimensions)),
        options.batch_size or BATCH_SIZE,
        problem.objectives,
    )


def latin(problem: SearchProblem, options: BatchOptions) -> Design:
    """Return a controller of Latin hypercube points: each gene takes each of n strata exactly once.

    Args:
        problem: dimensions, seed, and the budget where it is known.
        options: `batch_size` is the size n of the hypercube; None: the whole budget. Another hypercube follows it.

    Source: McKay, Beckman and Conover 1979.
    """
    count = options.batch_size or min(problem.budget or BATCH_SIZE, LARGEST_HYPERCUBE)
    engine = qmc.LatinHypercube(problem.dimensions, seed=np.random.default_rng(problem.seed))
    return Design(engine.random, count, problem.objectives)


def sobol(problem: SearchProblem, options: BatchOptions) -> Design:
    """Return a controller of scrambled Sobol points, which fill the cube evenly whenever they are stopped.

    Args:
        problem: dimensions and seed, which keys the scrambling.
        options: `batch_size`, on which the points do not depend.

    Raises:
        InputError: more dimensions than there are direction numbers.

    Source: Sobol 1967; direction numbers of Joe and Kuo 2008; scrambling of Matousek 1998, all as in SciPy.
    """
    if problem.dimensions > qmc.Sobol.MAXDIM:
        raise InputError(f"sobol has {qmc.Sobol.MAXDIM} dimensions at most, got {problem.dimensions}; use random")
    engine = qmc.Sobol(problem.dimensions, scramble=True, seed=problem.seed)
    drawn = np.empty((0, problem.dimensions))

    def draw(count: int) -> np.ndarray:
        nonlocal drawn
        while len(drawn) < count:
            drawn = np.concatenate([drawn, engine.random(_BLOCK)])  # (n + block, d)
        points, drawn = drawn[:count], drawn[count:]  # the rest of a block opens the next batch
        return points

    return Design(draw, options.batch_size or BATCH_SIZE, problem.objectives)
