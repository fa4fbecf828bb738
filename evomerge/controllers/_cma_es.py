"""CMA-ES with restarts, by pycma: the only file that imports cma."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cma
import numpy as np

from evomerge.controllers._proposals import Proposals, bounded
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._registry import CmaEsOptions
from evomerge.errors import InputError

LEAST_ASYNCHRONOUS = 3  # smallest population: without mirrors, two points cannot tell a step size
DIAGONAL_ABOVE = 200  # genes: learning a larger full covariance takes longer than a search lasts
SMALLEST_STEP = 1e-5  # fraction of the range: smaller differences in a coefficient vanish in a merge's rounding
# Warm start: fraction of another run's candidates that counts as its best, and the sd of a normal around each.
BEST_FRACTION, PRIOR_WIDTH = 0.1, 0.1
STALENESS = 8  # asynchronous: most updates of the distribution between ask and tell
AVERAGED = (1 / 3, 2 / 3)  # the means over these last fractions of the trajectory are recommended
FLAT_GENERATIONS = 5  # a restart follows so many generations in a row without any difference in fitness


def cma_es(problem: SearchProblem, options: CmaEsOptions) -> CmaEs | AsynchronousCmaEs:
    """Return a CMA-ES controller.

    Args:
        problem: dimensions, seed, start point, and the weights of the scalarised objective.
        options: `population`, proposals per generation, None: 4 + floor(3 ln d); `sigma`, first step size, in units of
            the gene's range; `restarts`, how often to begin again, with twice the population and from a random point,
            once converged; `diagonal`, keep only variances per gene, None: beyond `DIAGONAL_ABOVE` genes.

    Source: Hansen and Ostermeier 2001; restarts as in Auger and Hansen 2005 (IPOP); diagonal as in Ros and Hansen 2008.
    """
    size = 4 + int(3 * math.log(problem.dimensions)) if options.population is None else options.population
    if problem.asynchronous and size < LEAST_ASYNCHRONOUS:
        raise InputError(f"population of cma-es, asynchronous, must be {LEAST_ASYNCHRONOUS} or more, got {size}")
    distribution = _Distribution(problem, size, options)
    return AsynchronousCmaEs(problem, distribution) if problem.asynchronous else CmaEs(problem, distribution)


class _Distribution:
    """The search distribution of CMA-ES with its restarts, in the cube of genotypes.

    Failed points rank last in their generation, tied among themselves. A generation in which all failed leaves the
    distribution as it is.
    """

    def __init__(self, problem: SearchProblem, population: int, options: CmaEsOptions) -> None:
        self.population = population  # points of a generation; doubled by a restart
        self.diagonal = problem.dimensions > DIAGONAL_ABOVE if options.diagonal is None else options.diagonal
        self.stopped: dict[str, str] = {}  # why the last allowed restart ended
        self._problem, self._sigma, self._restarts_left = problem, options.sigma, options.restarts
        self._generator = np.random.default_rng(problem.seed)
        self._centres: list[list[np.ndarray]] = [[]]  # per restart and generation
        start, self._spread = self._warm_start()
        self._strategy = self._begin(start)

    @property
    def restarts(self) -> int:
        """How many restarts there have been."""
        return len(self._centres) - 1

    def sample(self, count: int | None = None) -> list[np.ndarray]:
        """Return points (d,) of the distribution: `count`, or a generation."""
        with _global_generator_unchanged():
            # rounding in pycma's bound transformation may leave the cube by an ulp
            return [np.clip(point, 0.0, 1.0) for point in self._strategy.ask(count)]

    def move(
        self,
        points: list[np.ndarray],
        values: Sequence[float | None],
        variances: Sequence[float],
        injected: Sequence[int] = (),
    ) -> None:
        """Update the distribution with one generation of points.

        Args:
            points: proposals, (d,) each.
            values: scalarised fitness, higher is better; None for a failure; at least one is not None.
            variances: squared standard errors of the values; 0 for exact ones.
            injected: indices of points that an earlier distribution proposed, whose length pycma limits.
        """
        values = shrunken(values, variances)
        known = [value for value in values if value is not None]
        last = min(known) - (max(known) - min(known)) - 1.0
        # pycma minimises; no other line of the controller changes a sign
        losses = [-(last if value is None else value) for value in values]
        with _global_generator_unchanged():
            self._strategy.tell(points, losses, check_points=list(injected) or None)
            reasons = dict(self._strategy.stop())
            self._centres[-1].append(np.clip(self._strategy.result.xfavorite, 0.0, 1.0))
        if reasons:
            self._restart({name: f"{name} reached {limit}" for name, limit in reasons.items()})

    def recommended(self) -> list[np.ndarray]:
        """Return the last centre, and the means of the centres over the last third and the last two thirds of the run.

        The run is the restart that went on longest. The centre is the estimate of the optimum where fitness is noisy
        (Hansen 2009, arXiv:0811.2922, 3.6), and averages over a noisy trajectory are better still (Polyak and Juditsky
        1992).
        """
        trajectory = max(self._centres, key=len)
        if not trajectory:
            return []
        lengths = dict.fromkeys(max(1, round(len(trajectory) * last)) for last in (0.0, *AVERAGED))
        return [np.mean(trajectory[-length:], axis=0) for length in lengths]

    def _restart(self, reasons: dict[str, str]) -> None:
        if self._restarts_left == 0:
            self.stopped = reasons
            return
        self._restarts_left -= 1
        self._spread = None  # the warm start has led to this optimum already; a restart explores
        self.population *= 2
        self._centres.append([])
        self._strategy = self._begin(self._generator.random(self._problem.dimensions))

    def _warm_start(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return where to begin, and the first steps per gene (None: sigma for all).

        Both come from the best candidates of another run: their mean, and the sd of a mixture of small normals around
        them, the diagonal of WS-CMA-ES (Nomura et al. 2021). A point without fitness, such as a recipe, only gives the
        start.
        """
        d, prior = self._problem.dimensions, self._problem.prior
        known = [one for one in prior if one.fitness is not None]
        if not known:
            begin = next((one.genotype for one in prior), self._problem.start)
            return (np.full(d, 0.5) if begin is None else np.array(begin)), None
        values = np.array([one.fitness for one in known], dtype=float)
        scores = np.array(
            [self._problem.scalarisation.scalarise(bounded(row.tolist(), self._problem.bounds)) for row in values]
        )
        count = max(1, int(np.ceil(BEST_FRACTION * len(known))))
        order = np.argsort(-scores, kind="stable")[:count]
        best = np.array([known[index].genotype for index in order], dtype=float)
        spread = np.sqrt(PRIOR_WIDTH**2 + best.var(axis=0))
        return best.mean(axis=0), np.minimum(spread, self._sigma)

    def _begin(self, start: np.ndarray) -> Any:
        options: dict[str, Any] = {
            "bounds": [0, 1],
            "popsize": self.population,
            "CMA_diagonal": self.diagonal,
            "randn": lambda *shape: self._generator.standard_normal(shape),
            "seed": np.nan,  # pycma would seed NumPy's global generator otherwise
            # scores over few items tie often: equal values mean that the items cannot separate them, not convergence
            **{"tolfun": 0, "tolfunhist": 0, "tolx": SMALLEST_STEP, "tolflatfitness": FLAT_GENERATIONS},
            # below 6 points pycma mirrors the worst of a generation in the next one, which is proposed in pieces here
            **({"CMA_mirrors": 0} if self._problem.asynchronous else {}),
            # pycma 4.5 raises ValueError for its cap on the step, a third of the range, if there is one gene
            **({"maxstd": np.inf} if self._problem.dimensions == 1 else {}),
            # silent, and no files: not its logs, nor the options file that it would read from the working directory
            **({} if self._spread is None else {"CMA_stds": list(self._spread / self._sigma)}),
            **{"verbose": -10, "verb_log": 0, "verb_disp": 0, "signals_filename": ""},
        }
        with _global_generator_unchanged():
            return cma.CMAEvolutionStrategy(start, self._sigma, options)


class CmaEs:
    """Proposes a generation, waits until all of it is observed, then moves its distribution."""

    def __init__(self, problem: SearchProblem, distribution: _Distribution) -> None:
        self._distribution = distribution
        self._scalarisation = problem.scalarisation
        self._proposals = Proposals(problem.objectives, problem.bounds)
        self._generation = range(0)
        self._points: list[np.ndarray] = []
        self._values: dict[int, float | None] = {}  # observed in this generation, maximised
        self._variances: dict[int, float] = {}  # only values with a known standard error have an entry

    def ask(self) -> list[np.ndarray]:
        """Return a generation, or [] while one is not observed completely."""
        if self._proposals.waiting or self._distribution.stopped:
            return []
        self._points = self._distribution.sample()
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
        """Learn one fitness with its standard errors; ranks then use the errors, see `shrunken`."""
        self._variances[index] = self._scalarisation.variance(stderr)
        try:
            self.tell(index, fitness)
        except InputError:
            self._variances.pop(index, None)
            raise

    def stop(self) -> dict[str, str]:
        """Return why the last allowed restart ended, in pycma's names; {} before."""
        return dict(self._distribution.stopped)

    def recommended(self) -> list[np.ndarray]:
        """Return centres of the distribution, see `_Distribution.recommended`."""
        return self._distribution.recommended()

    def _learn(self) -> None:
        values = [self._values[index] for index in self._generation]
        variances = [self._variances.pop(index, 0.0) for index in self._generation]
        if any(value is not None for value in values):
            self._distribution.move(self._points, values, variances)


@dataclass(frozen=True)
class _Pending:
    """A proposal that is not observed yet."""

    point: np.ndarray
    update: int  # number of updates of the distribution when it was proposed
    restart: int  # number of restarts when it was proposed


class AsynchronousCmaEs:
    """Proposes one candidate at a time from the distribution as it is, and never waits.

    The distribution moves whenever a population's worth of results has arrived, of whichever proposals; points of an
    earlier distribution are treated as pycma treats injected ones, whose length is limited. A move waits while it would
    leave a pending candidate more than `staleness` moves behind; workers go on with proposals meanwhile. Results of
    proposals from before a restart are discarded.

    Source: injected points as in Hansen 2011, arXiv:1110.4181.
    """

    def __init__(self, problem: SearchProblem, distribution: _Distribution) -> None:
        self._distribution = distribution
        self._scalarisation = problem.scalarisation
        self._proposals = Proposals(problem.objectives, problem.bounds)
        self._staleness = STALENESS if problem.staleness is None else problem.staleness
        self._updates = 0
        self._pending: dict[int, _Pending] = {}
        # Observed and not learned yet, in the order of arrival: proposal, scalarised fitness, its variance.
        self._observed: list[tuple[_Pending, float | None, float]] = []
        self._proposed_since_move = False

    @property
    def updates(self) -> int:
        """How often the distribution has moved."""
        return self._updates

    def ask(self) -> list[np.ndarray]:
        """Return one proposal, or [] once the last restart has ended."""
        if self._distribution.stopped:
            return []
        (point,) = self._distribution.sample(1)
        (index,) = self._proposals.hand_out(1)
        self._proposed_since_move = True
        self._pending[index] = _Pending(point, self._updates, self._distribution.restarts)
        return [point.copy()]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the distribution moves when enough of them are there and none would become too stale."""
        self._observe(index, fitness, 0.0)

    def tell_noisy(self, index: int, fitness: Sequence[float], stderr: Sequence[float]) -> None:
        """Learn one fitness with its standard errors; ranks then use the errors, see `shrunken`."""
        self._observe(index, fitness, self._scalarisation.variance(stderr))

    def stop(self) -> dict[str, str]:
        """Return why the last allowed restart ended, in pycma's names; {} before."""
        return dict(self._distribution.stopped)

    def recommended(self) -> list[np.ndarray]:
        """Return centres of the distribution, see `_Distribution.recommended`."""
        return self._distribution.recommended()

    def _observe(self, index: int, fitness: Sequence[float] | None, variance: float) -> None:
        values = self._proposals.take_back(index, fitness)
        proposal = self._pending.pop(index)
        if proposal.restart != self._distribution.restarts or self._distribution.stopped:
            return
        self._observed.append((proposal, None if values is None else self._scalarisation.scalarise(values), variance))
        while len(self._observed) >= self._distribution.population and self._within_staleness():
            self._learn()

    def _within_staleness(self) -> bool:
        """Return whether a move now would leave every pending candidate within the bound of staleness."""
        oldest = min((one.update for one in self._pending.values()), default=self._updates)
        return self._updates + 1 - oldest <= self._staleness

    def _learn(self) -> None:
        """Move by the results that have waited longest, a population of them."""
        count, restarts = self._distribution.population, self._distribution.restarts
        batch, self._observed = self._observed[:count], self._observed[count:]
        values = [value for _, value, _ in batch]
        if all(value is None for value in values):
            return
        injected = [index for index, (proposal, _, _) in enumerate(batch) if proposal.update < self._updates]
        if not self._proposed_since_move:
            self._distribution.sample(1)  # pycma wants an ask between two tells; this point is not evaluated
        self._updates += 1
        self._proposed_since_move = False
        points = [proposal.point for proposal, _, _ in batch]
        self._distribution.move(points, values, [variance for _, _, variance in batch], injected)
        if self._distribution.restarts != restarts:
            self._observed = []


def shrunken(values: Sequence[float | None], variances: Sequence[float]) -> list[float | None]:
    """Return values shrunk towards their mean by the fraction of their variance that is noise.

    With errors of one size the order stays as it was; a value that few items support falls behind an equally good one
    that all items support. Nothing changes where nothing is uncertain, or where chance explains all the spread.

    Source: the empirical Bayes estimator of Efron and Morris 1975 for unequal variances, by moments.
    """
    known = np.array([value for value in values if value is not None])
    noise = np.array([variance for value, variance in zip(values, variances, strict=True) if value is not None])
    if len(known) < 2 or not noise.any():
        return list(values)
    between = known.var(ddof=1) - noise.mean()
    if between <= 0.0:
        return list(values)
    mean = float(known.mean())
    return [
        None if value is None else mean + (value - mean) * between / (between + variance)
        for value, variance in zip(values, variances, strict=True)
    ]


@contextmanager
def _global_generator_unchanged() -> Iterator[None]:
    """Put NumPy's global generator back as it was: pycma draws from it to pick what its self-checks look at."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
