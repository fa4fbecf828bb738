"""Scrambled Sobol points: a design that fills the cube evenly whenever it is stopped."""

from __future__ import annotations

from scipy.stats import qmc

from evomerge.controllers.designs import Design
from evomerge.controllers.protocol import Setup
from evomerge.errors import InputError


def sobol(setup: Setup, *, batch: int = 32) -> Design:
    """Return a controller of scrambled Sobol points.

    Args:
        setup: dimensions and seed, which keys the scrambling.
        batch: proposals per ask, best a power of two; the points do not depend on it.

    Raises:
        InputError: more dimensions than there are direction numbers.

    Source: Sobol 1967; direction numbers of Joe and Kuo 2008; scrambling of Matousek 1998, all as in SciPy.
    """
    if setup.dimensions > qmc.Sobol.MAXDIM:
        raise InputError(f"sobol has {qmc.Sobol.MAXDIM} dimensions at most, got {setup.dimensions}; use random")
    # The engine's own generator; drawing by 32 from the first point on keeps the power-of-two blocks intact.
    engine = qmc.Sobol(setup.dimensions, scramble=True, seed=setup.seed)
    return Design(engine.random, batch, setup.objectives)
