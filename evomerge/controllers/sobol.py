"""Scrambled Sobol points: a design that fills the cube evenly whenever it is stopped."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from evomerge.controllers.designs import Design
from evomerge.controllers.protocol import Setup
from evomerge.errors import InputError

_BLOCK = 64  # points drawn at a time: a power of two keeps the sequence balanced (SciPy warns otherwise)


def sobol(setup: Setup, *, population: int = 32) -> Design:
    """Return a controller of scrambled Sobol points.

    Args:
        setup: dimensions and seed, which keys the scrambling.
        population: proposals per ask; the points do not depend on it.

    Raises:
        InputError: more dimensions than there are direction numbers.

    Source: Sobol 1967; direction numbers of Joe and Kuo 2008; scrambling of Matousek 1998, all as in SciPy.
    """
    if setup.dimensions > qmc.Sobol.MAXDIM:
        raise InputError(f"sobol has {qmc.Sobol.MAXDIM} dimensions at most, got {setup.dimensions}; use random")
    engine = qmc.Sobol(setup.dimensions, scramble=True, seed=setup.seed)
    drawn = np.empty((0, setup.dimensions))

    def draw(count: int) -> np.ndarray:
        nonlocal drawn
        while len(drawn) < count:
            drawn = np.concatenate([drawn, engine.random(_BLOCK)])
        points, drawn = drawn[:count], drawn[count:]
        return points

    return Design(draw, population, setup.objectives)
