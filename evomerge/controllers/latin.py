"""Latin hypercube designs: each gene takes each of n strata exactly once."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from evomerge.controllers.designs import Design
from evomerge.controllers.protocol import Setup

_POINTS_WITHOUT_BUDGET = 32
_MOST_POINTS = 4096  # of one hypercube; more come as further, independent ones


def latin(setup: Setup, *, population: int | None = None) -> Design:
    """Return a controller of Latin hypercube points.

    Args:
        setup: dimensions, seed, and the budget where it is known.
        population: size n of the hypercube; None: the whole budget. Where more are asked, another hypercube follows.

    Source: McKay, Beckman and Conover 1979.
    """
    count = population if population is not None else min(setup.budget or _POINTS_WITHOUT_BUDGET, _MOST_POINTS)
    engine = qmc.LatinHypercube(setup.dimensions, seed=np.random.default_rng(setup.seed))
    return Design(engine.random, count, setup.objectives)
