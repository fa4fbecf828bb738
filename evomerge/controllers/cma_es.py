"""CMA-ES with restarts, by pycma: the only file that imports cma."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cma
import numpy as np

from evomerge.controllers.proposals import Proposals, bounded
from evomerge.controllers.protocol import Setup
from evomerge.controllers.registry import CmaEsOptions
from evomerge.errors import InputError

LEAST_ASYNCHRONOUS = 3  # candidates of a generation
DIAGONAL_ABOVE = 200  # genes; a full covariance of more needs longer to learn than searches last
SMALLEST_STEP = 1e-5  # of the unit range: finer differences in a coefficient are below a merge's rounding
# Of another run's candidates, the share that decides where to begin, and the width of a normal around each of them.
BEST_SHARE, PRIOR_WIDTH = 0.1, 0.1
STALENESS = 8  # moves of the distribution between ask and tell, at most, when results are told on arrival
AVERAGED = (1 / 3, 2 / 3)  # shares of the way whose mean is recommended at the end
FLAT_GENERATIONS = 5  # in a row with one fitness for all, before the search starts elsewhere


def cma_es(setup: Setup, options: CmaEsOptions) -> CmaEs:
    """Return a CMA-ES controller.

    Args:
        setup: dimensions, seed, start point, and the weights that turn several objectives into one number.
        options: `population`, proposals per generation, None: 4 + floor(3 ln d); `sigma`, first step size, in units of
            the gene's range; `restarts`, how often to begin again, with twice the population and from a random point,
            once converged; `diagonal`, keep only variances per gene, None: beyond `DIAGONAL_ABOVE` genes.

    Source: Hansen and Ostermeier 2001; restarts as in Auger and Hansen 2005 (IPOP); diagonal as in Ros and Hansen 2008.
    """
    size = 4 + int(3 * math.log(setup.dimensions)) if options.population is None else options.population
    # without mirrors, two points are too few to learn a step size from
    if setup.asynchronous and size < LEAST_ASYNCHRONOUS:
        raise InputError(f"population of cma-es, asynchronous, must be {LEAST_ASYNCHRONOUS} or more, got {size}")
    separable = setup.dimensions > DIAGONAL_ABOVE if options.diagonal is None else options.diagonal
    kind = AsynchronousCmaEs if setup.asynchronous else CmaEs
    return kind(setup, size, options.sigma, options.restarts, separable)


class CmaEs:
    """Proposes a generation, waits until all of it is told, then moves its distribution.

    Failed proposals rank last in their generation, tied among themselves. A generation in which all failed teaches
    nothing: another one is drawn from the same distribution.
    """

    def __init__(self, setup: Setup, population: int, sigma: float, restarts: int, diagonal: bool) -> None:
        self._setup = setup
        self._population, self._sigma, self._restarts, self._diagonal = population, sigma, restarts, diagonal
        self._scalarisation = setup.scalarisation
        self._generator = np.random.default_rng(setup.seed)
        self._proposals = Proposals(setup.objectives, setup.bounds)
        self._generation = range(0)
        self._points: list[np.ndarray] = []
        self._values: dict[int, float | None] = {}  # told of this generation, maximised
        self._variances: dict[int, float] = {}  # of those that were told with their errors
        self._stopped: dict[str, str] = {}
        self._centres: list[list[np.ndarray]] = [[]]  # of the distribution, per restart and generation
        start, self._spread = self._warm_start()
        self._strategy = self._begin(start)

    def ask(self) -> list[np.ndarray]:
        """Return a generation, or [] while one is not told completely."""
        if self._proposals.waiting or self._stopped:
            return []
        with _global_generator_unchanged():
            # rounding in pycma's bound transformation may leave the cube by an ulp
            self._points = [np.clip(point, 0.0, 1.0) for point in self._strategy.ask()]
        self._generation = self._proposals.hand_out(len(self._points))
        self._values = {}
        return [point.copy() for point in self._points]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the distribution moves when the generation's last one arrives."""
        values = self._proposals.take_back(index, fitness)
        self._values[index] = None if values is None else self._scalarisation.scalarise(values)
        if not self._proposals.waiting:
            self._learn()

    def tell_noisy(self, index: int, fitness: Sequence[float], stderr: Sequence[float]) -> None:
        """Learn one fitness of which part is chance; ranks then use the errors, see `shrunken`."""
        self._variances[index] = self._scalarisation.variance(stderr)
        try:
            self.tell(index, fitness)
        except InputError:
            self._variances.pop(index, None)
            raise

    def stop(self) -> dict[str, str]:
        """Return why the last allowed restart ended, in pycma's names; {} before."""
        return dict(self._stopped)

    def recommended(self) -> list[np.ndarray]:
        """Return the distribution's last centre, and its means over the last third and the last two thirds of its way.

        Of the restart that went on longest. The centre is the estimate of the optimum where fitness is noisy (Hansen
        2009, arXiv:0811.2922, 3.6), and averages of a noisy way are better still (Polyak and Juditsky 1992).
        """
        way = max(self._centres, key=len)
        if not way:
            return []
        lengths = dict.fromkeys(max(1, round(len(way) * share)) for share in (0.0, *AVERAGED))
        return [np.mean(way[-length:], axis=0) for length in lengths]

    def _learn(self) -> None:
        told = [self._values[index] for index in self._generation]
        noise = [self._variances.pop(index, 0.0) for index in self._generation]
        if any(value is not None for value in told):
            self._move(self._points, told, noise)

    def _move(
        self, points: list[np.ndarray], told: list[float | None], noise: list[float], stale: Sequence[int] = ()
    ) -> None:
        """Move the distribution by one generation, some of whose points an earlier distribution may have proposed."""
        told = shrunken(told, noise)
        known = [value for value in told if value is not None]
        last = min(known) - (max(known) - min(known)) - 1.0
        # pycma minimises; this is the only minus sign
        losses = [-(last if value is None else value) for value in told]
        with _global_generator_unchanged():
            self._strategy.tell(points, losses, check_points=list(stale) or None)
            reasons = dict(self._strategy.stop())
            self._centres[-1].append(np.clip(self._strategy.result.xfavorite, 0.0, 1.0))
        if reasons:
            self._restart({name: f"{name} reached {limit}" for name, limit in reasons.items()})

    def _restart(self, reasons: dict[str, str]) -> None:
        if self._restarts == 0:
            self._stopped = reasons
            return
        self._restarts -= 1
        self._spread = None  # what was known beforehand has led here already
        self._population *= 2
        self._centres.append([])
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
        scores = np.array([self._scalarisation.scalarise(bounded(row.tolist(), self._setup.bounds)) for row in values])
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
            # below 6 points pycma mirrors the worst of a generation in the next one, which is asked in pieces here
            **({"CMA_mirrors": 0} if self._setup.asynchronous else {}),
            # with one gene, pycma's cap on the step (a third of the range) raises ValueError (cma 4.5)
            **({"maxstd": np.inf} if self._setup.dimensions == 1 else {}),
            # silent, and no files: not its logs, nor the options file that it would read from the working directory
            **({} if self._spread is None else {"CMA_stds": list(self._spread / self._sigma)}),
            **{"verbose": -10, "verb_log": 0, "verb_disp": 0, "signals_filename": ""},
        }
        with _global_generator_unchanged():
            return cma.CMAEvolutionStrategy(start, self._sigma, options)


@dataclass(frozen=True)
class _Proposal:
    """A point on its way through a worker."""

    point: np.ndarray
    update: int  # of the distribution that proposed it
    strategy: Any  # that proposed it; a restart begins another one


class AsynchronousCmaEs(CmaEs):
    """Proposes one candidate at a time from the distribution as it is, and never waits.

    The distribution moves whenever a population's worth of results has been told, whoever proposed them; points of an
    earlier distribution are treated as pycma treats injected ones, whose length is limited. A move waits while it would
    leave an untold candidate more than `staleness` moves behind; workers go on with proposals meanwhile. Results that
    were proposed before a restart are told to nobody.

    Source: injected points as in Hansen 2011, arXiv:1110.4181.
    """

    def __init__(self, setup: Setup, population: int, sigma: float, restarts: int, diagonal: bool) -> None:
        super().__init__(setup, population, sigma, restarts, diagonal)
        self._staleness = STALENESS if setup.staleness is None else setup.staleness
        self._updates = 0
        self._pending: dict[int, _Proposal] = {}  # not observed yet
        self._told: list[tuple[_Proposal, float | None, float]] = []  # not learned yet: fitness, variance
        self._asked_since_move = False

    @property
    def updates(self) -> int:
        """How often the distribution has moved."""
        return self._updates

    def ask(self) -> list[np.ndarray]:
        """Return one proposal, or [] once the last restart has ended."""
        if self._stopped:
            return []
        with _global_generator_unchanged():
            (point,) = (np.clip(one, 0.0, 1.0) for one in self._strategy.ask(1))
        (index,) = self._proposals.hand_out(1)
        self._asked_since_move = True
        self._pending[index] = _Proposal(point, self._updates, self._strategy)
        return [point.copy()]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the distribution moves when enough of them are there and none would become too stale."""
        values = self._proposals.take_back(index, fitness)
        proposal = self._pending.pop(index)
        variance = self._variances.pop(index, 0.0)
        if proposal.strategy is not self._strategy or self._stopped:
            return
        self._told.append((proposal, None if values is None else self._scalarisation.scalarise(values), variance))
        while len(self._told) >= self._population and self._nobody_too_old():
            self._learn_told()

    def _nobody_too_old(self) -> bool:
        """Return whether a move now would leave every untold candidate within the bound of staleness."""
        oldest = min((one.update for one in self._pending.values()), default=self._updates)
        return self._updates + 1 - oldest <= self._staleness

    def _learn_told(self) -> None:
        """Move by the results that have waited longest, a population of them."""
        told, self._told = self._told[: self._population], self._told[self._population :]
        if all(value is None for _, value, _ in told):
            return
        points = [proposal.point for proposal, _, _ in told]
        stale = [place for place, (proposal, _, _) in enumerate(told) if proposal.update < self._updates]
        before = self._strategy
        if not self._asked_since_move:
            with _global_generator_unchanged():
                self._strategy.ask(1)  # pycma wants an ask between two tells; this point is not evaluated
        self._updates += 1
        self._asked_since_move = False
        self._move(points, [value for _, value, _ in told], [variance for _, _, variance in told], stale)
        if self._strategy is not before:
            self._told = []


def shrunken(told: Sequence[float | None], variances: Sequence[float]) -> list[float | None]:
    """Return values drawn towards their mean by as much of their spread as is chance: the best guess of the truth.

    With errors of one size the order stays as it was; a value that few items support falls behind an equally good one
    that all items support. Nothing changes where nothing is uncertain, or where chance explains all the spread.

    Source: the empirical Bayes estimator of Efron and Morris 1975 for unequal variances, by moments.
    """
    known = np.array([value for value in told if value is not None])
    noise = np.array([variance for value, variance in zip(told, variances, strict=True) if value is not None])
    if len(known) < 2 or not noise.any():
        return list(told)
    between = known.var(ddof=1) - noise.mean()
    if between <= 0.0:
        return list(told)
    mean = float(known.mean())
    return [
        None if value is None else mean + (value - mean) * between / (between + variance)
        for value, variance in zip(told, variances, strict=True)
    ]


@contextmanager
def _global_generator_unchanged() -> Iterator[None]:
    """Put NumPy's global generator back as it was: pycma draws from it to pick what its self-checks look at."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
