"""CMA-ES with restarts, by pycma: the only file that imports cma."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cma
import numpy as np

from evomerge.controllers.protocol import Setup
from evomerge.controllers.tally import HUGE, Tally
from evomerge.errors import InputError

DIAGONAL_ABOVE = 200  # genes; a full covariance of more needs longer to learn than searches last
SMALLEST_STEP = 1e-5  # of the unit range: finer differences in a coefficient are below a merge's rounding
# Of another run's candidates, the share that decides where to begin, and the width of a normal around each of them.
BEST_SHARE, PRIOR_WIDTH = 0.1, 0.1
FLAT_GENERATIONS = 5  # in a row with one fitness for all, before the search starts elsewhere


def cma_es(
    setup: Setup,
    *,
    population: int | None = None,
    sigma: float = 0.25,
    restarts: int = 9,
    diagonal: bool | None = None,
) -> CmaEs:
    """Return a CMA-ES controller.

    Args:
        setup: dimensions, seed, start point, and the weights that turn several objectives into one number.
        population: proposals per generation; None: 4 + floor(3 ln d).
        sigma: first step size, in units of the gene's range.
        restarts: how often to begin again, with twice the population and from a random point, once converged.
        diagonal: keep only variances per gene; None: beyond `DIAGONAL_ABOVE` genes.

    Source: Hansen and Ostermeier 2001; restarts as in Auger and Hansen 2005 (IPOP); diagonal as in Ros and Hansen 2008.
    """
    size = population if population is not None else 4 + int(3 * math.log(setup.dimensions))
    if size < 2:
        raise InputError(f"population of cma-es must be 2 or more, got {population}")
    if not 0.0 < sigma <= 1.0:
        raise InputError(f"sigma of cma-es must be in (0, 1], in units of a gene's range, got {sigma}")
    if restarts < 0:
        raise InputError(f"restarts of cma-es must be 0 or more, got {restarts}")
    separable = setup.dimensions > DIAGONAL_ABOVE if diagonal is None else diagonal
    return CmaEs(setup, size, sigma, restarts, separable)


class CmaEs:
    """Proposes a generation, waits until all of it is told, then moves its distribution.

    Failed proposals rank last in their generation, tied among themselves. A generation in which all failed teaches
    nothing: another one is drawn from the same distribution.
    """

    def __init__(self, setup: Setup, population: int, sigma: float, restarts: int, diagonal: bool) -> None:
        self._setup = setup
        self._population, self._sigma, self._restarts, self._diagonal = population, sigma, restarts, diagonal
        weights = np.array(setup.weights or (1.0,) * setup.objectives, dtype=float)
        self._weights = weights / weights.sum()
        self._generator = np.random.default_rng(setup.seed)
        self._tally = Tally(setup.objectives)
        self._generation = range(0)
        self._points: list[np.ndarray] = []
        self._values: dict[int, float | None] = {}  # told of this generation, maximised
        self._stopped: dict[str, str] = {}
        start, self._spread = self._warm_start()
        self._strategy = self._begin(start)

    def ask(self) -> list[np.ndarray]:
        """Return a generation, or [] while one is not told completely."""
        if self._tally.waiting or self._stopped:
            return []
        with _global_generator_unchanged():
            # rounding in pycma's bound transformation may leave the cube by an ulp
            self._points = [np.clip(point, 0.0, 1.0) for point in self._strategy.ask()]
        self._generation = self._tally.hand_out(len(self._points))
        self._values = {}
        return [point.copy() for point in self._points]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the distribution moves when the generation's last one arrives."""
        values = self._tally.take_back(index, fitness)
        self._values[index] = None if values is None else float(np.dot(values, self._weights))
        if not self._tally.waiting:
            self._learn()

    def stop(self) -> dict[str, str]:
        """Return why the last allowed restart ended, in pycma's names; {} before."""
        return dict(self._stopped)

    def _learn(self) -> None:
        told = [self._values[index] for index in self._generation]
        known = [value for value in told if value is not None]
        if not known:
            return
        last = min(known) - (max(known) - min(known)) - 1.0
        # pycma minimises; this is the only minus sign
        losses = [-(last if value is None else value) for value in told]
        with _global_generator_unchanged():
            self._strategy.tell(self._points, losses)
            reasons = dict(self._strategy.stop())
        if reasons:
            self._restart({name: f"{name} reached {limit}" for name, limit in reasons.items()})

    def _restart(self, reasons: dict[str, str]) -> None:
        if self._restarts == 0:
            self._stopped = reasons
            return
        self._restarts -= 1
        self._spread = None  # what was known beforehand has led here already
        self._population *= 2
        self._strategy = self._begin(self._generator.random(self._setup.dimensions))

    def _warm_start(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return where to begin, and the first steps per gene (None: sigma for all).

        Another run's best decide both: their mean, and the sd of a mixture of small normals around them, the diagonal
        of WS-CMA-ES (Nomura et al. 2021). A point without fitness, as of a recipe, is only where to begin.
        """
        d, prior = self._setup.dimensions, self._setup.prior
        known = [one for one in prior if one.fitness is not None]
        if not known:
            begin = next((one.genotype for one in prior), self._setup.start)
            return (np.full(d, 0.5) if begin is None else np.array(begin)), None
        values = np.array([one.fitness for one in known], dtype=float)
        scores = np.array([float(np.dot(np.clip(row, -HUGE, HUGE), self._weights)) for row in values])
        count = max(1, int(np.ceil(BEST_SHARE * len(known))))
        order = np.argsort(-scores, kind="stable")[:count]
        best = np.array([known[index].genotype for index in order], dtype=float)
        spread = np.sqrt(PRIOR_WIDTH**2 + best.var(axis=0))
        return best.mean(axis=0), np.minimum(spread, self._sigma)

    def _begin(self, start: np.ndarray) -> Any:
        options: dict[str, Any] = {
            "bounds": [0, 1],
            "popsize": self._population,
            "CMA_diagonal": self._diagonal,
            "randn": lambda *shape: self._generator.standard_normal(shape),
            "seed": np.nan,  # pycma would seed NumPy's global generator otherwise
            # Scores over few items tie often: equal values mean 'cannot tell', not 'converged'.
            **{"tolfun": 0, "tolfunhist": 0, "tolx": SMALLEST_STEP, "tolflatfitness": FLAT_GENERATIONS},
            # with one gene, pycma's cap on the step (a third of the range) raises ValueError (cma 4.5)
            **({"maxstd": np.inf} if self._setup.dimensions == 1 else {}),
            # silent, and no files: not its logs, nor the options file that it would read from the working directory
            **({} if self._spread is None else {"CMA_stds": list(self._spread / self._sigma)}),
            **{"verbose": -10, "verb_log": 0, "verb_disp": 0, "signals_filename": ""},
        }
        with _global_generator_unchanged():
            return cma.CMAEvolutionStrategy(start, self._sigma, options)


@contextmanager
def _global_generator_unchanged() -> Iterator[None]:
    """Put NumPy's global generator back as it was: pycma draws from it to pick what its self-checks look at."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
