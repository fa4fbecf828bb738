"""Uniformly random points: the baseline that every search has to beat."""

from __future__ import annotations

import numpy as np

from evomerge.controllers.designs import Design
from evomerge.controllers.protocol import Setup


def uniform(setup: Setup, *, population: int = 32) -> Design:
    """Return a controller of independent uniform points of the cube.

    Args:
        setup: dimensions and seed.
        population: proposals per ask; the points do not depend on it.
    """
    generator = np.random.default_rng(setup.seed)
    return Design(lambda count: generator.random((count, setup.dimensions)), population, setup.objectives)
