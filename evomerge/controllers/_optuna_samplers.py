"""TPE, Gaussian process, NSGA-II and NSGA-III by Optuna: the only file that imports optuna.

The study is in memory and holds nothing beyond the archive; replay rebuilds it, as for every controller.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import Trial, TrialState, create_trial

from evomerge.controllers._proposals import HUGE, Proposals
from evomerge.controllers._protocol import SearchProblem
from evomerge.controllers._registry import GpOptions, NsgaOptions, TpeOptions
from evomerge.pareto import non_dominated, representatives

_BOUNDS = "bounds"  # name of the only constraint: the total violation of all bounds
_MOST = 2**32 - 1  # Optuna's seeds are those of NumPy's RandomState


def tpe(problem: SearchProblem, options: TpeOptions) -> OptunaStudy:
    """Return a tree-structured Parzen estimator, which models all genes jointly.

    Args:
        problem: dimensions, seed, objectives, start.
        options: `batch_size`, proposals per ask, which are evaluated in parallel; `startup`, random ones at first.

    Source: Bergstra et al. 2011; several objectives as in Ozaki et al. 2020.
    """
    with _quiet():
        # constant_liar: pending trials repel the next proposals of a batch
        sampler = TPESampler(
            seed=_seed(problem), multivariate=True, constant_liar=True, n_startup_trials=options.startup
        )
    return OptunaStudy(problem, sampler, options.batch_size)


def gp(problem: SearchProblem, options: GpOptions) -> OptunaStudy:
    """Return Bayesian optimisation with a Gaussian process; for up to some tens of genes and hundreds of candidates.

    Args:
        problem: dimensions, seed, objectives, start.
        options: `batch_size`, proposals per ask; `startup`, random ones at first.
    """
    # without torch Optuna would fail at the first modelled proposal, hours into the search
    import torch  # noqa: F401

    with _quiet():
        sampler = GPSampler(seed=_seed(problem), n_startup_trials=options.startup)
    return OptunaStudy(problem, sampler, options.batch_size)


def nsga_ii(problem: SearchProblem, options: NsgaOptions) -> OptunaStudy:
    """Return NSGA-II with `population` proposals per generation.

    Source: Deb et al. 2002.
    """
    sampler = NSGAIISampler(seed=_seed(problem), population_size=options.population)
    return OptunaStudy(problem, sampler, options.population)


def nsga_iii(problem: SearchProblem, options: NsgaOptions) -> OptunaStudy:
    """Return NSGA-III, for more than three objectives, with `population` proposals per generation.

    Source: Deb and Jain 2014.
    """
    with _quiet():
        sampler = NSGAIIISampler(seed=_seed(problem), population_size=options.population)
    return OptunaStudy(problem, sampler, options.population)


class OptunaStudy:
    """Proposes a batch, waits until all of it is observed, and reports it to Optuna in proposal order.

    The proposals therefore do not depend on the order in which results arrive. Failures become failed trials, which
    Optuna's samplers ignore.

    Asynchronous, it proposes one candidate at a time and reports each result as it arrives; the samplers know the
    pending trials. Each result is then one update; with a bound on staleness, results are reported together, once no
    pending proposal would become too old by it.
    """

    def __init__(self, problem: SearchProblem, sampler: BaseSampler, batch_size: int) -> None:
        self._batch_size = 1 if problem.asynchronous else batch_size
        self._asynchronous, self._staleness = problem.asynchronous, problem.staleness
        self._proposed_at: dict[int, int] = {}  # unobserved proposal -> updates when it was made
        self._updates = 0
        self._proposals = Proposals(problem.objectives)
        self._bounds = problem.bounds
        self._names = [f"gene{i:05d}" for i in range(problem.dimensions)]  # zero-padded: Optuna sorts by name
        self._choices = problem.choices or (0,) * problem.dimensions
        self._genes = {name: _distribution(count) for name, count in zip(self._names, self._choices, strict=True)}
        self._trials: dict[int, Trial] = {}  # pending proposal -> its trial
        self._values: dict[int, tuple[float, ...] | None] = {}
        self._study = _quiet_study(sampler, problem.objectives)
        self._begin(problem, batch_size, models=not isinstance(sampler, NSGAIISampler | NSGAIIISampler))

    def _begin(self, problem: SearchProblem, batch_size: int, models: bool) -> None:
        """Add the warm start to the study: points to propose first, and finished trials.

        A model-based sampler uses results of another run like its own. NSGA selects from its own generations only, so
        there the front of these results, thinned to one generation, is proposed again in the first generation.
        """
        first = [problem.start] if problem.start is not None else []
        first += [one.genotype for one in problem.prior if one.fitness is None]
        known = [one for one in problem.prior if one.fitness is not None]
        if not models and known:
            values = np.array([one.fitness for one in known], dtype=float)
            if self._bounds is not None and (met := self._bounds.met(values)).any():
                values = np.where(met[:, None], values, np.nan)  # NaN rows never join a front
            front = np.flatnonzero(non_dominated(values, duplicates=False))
            front = front[representatives(values[front], batch_size)]
            first += [known[index].genotype for index in front]
            known = []
        for point in dict.fromkeys(first):  # without duplicates, in order
            self._study.enqueue_trial(self._parameters(point))
        for one in known:
            assert one.fitness is not None
            observed = [min(max(value, -HUGE), HUGE) for value in one.fitness]
            genes = self._parameters(one.genotype)
            missed = {} if self._bounds is None else {_BOUNDS: float(self._bounds.violation(observed))}
            self._study.add_trial(
                create_trial(params=genes, distributions=dict(self._genes), values=observed, constraints=missed)
            )

    def ask(self) -> list[np.ndarray]:
        """Return a batch, or [] while one is not observed completely; asynchronous: one proposal."""
        if self._proposals.waiting and not self._asynchronous:
            return []
        indices = self._proposals.hand_out(self._batch_size)
        with _quiet():
            proposed = {index: self._study.ask(dict(self._genes)) for index in indices}
        self._trials.update(proposed)
        self._proposed_at.update(dict.fromkeys(indices, self._updates))
        return [self._point(trial) for trial in proposed.values()]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        """Learn one fitness; the study learns the batch when its last one arrives."""
        self._values[index] = self._proposals.take_back(index, fitness)
        del self._proposed_at[index]
        if not self._may_learn():
            return
        self._updates += 1
        for number in sorted(self._values):  # proposal order, whatever the order of arrival
            trial, values = self._trials.pop(number), self._values.pop(number)
            with _quiet():
                if values is None:
                    self._study.tell(trial, state=TrialState.FAIL)
                else:
                    if self._bounds is not None:
                        trial.set_constraint(_BOUNDS, float(self._bounds.violation(values)))
                    self._study.tell(trial, list(values))

    @property
    def updates(self) -> int:
        """How often the study has learned: a batch at a time, or a result at a time."""
        return self._updates

    def _may_learn(self) -> bool:
        if not self._asynchronous or self._staleness is None:
            return self._asynchronous or not self._proposals.waiting
        oldest = min(self._proposed_at.values(), default=self._updates)
        return self._updates + 1 - oldest <= self._staleness  # this update counts against the oldest pending proposal

    def stop(self) -> dict[str, str]:
        """Return {}: these samplers have no end of their own."""
        return {}

    def _parameters(self, genotype: Sequence[float]) -> dict[str, float | int]:
        genes = zip(self._names, self._choices, genotype, strict=True)
        return {name: _parameter(x, count) for name, count, x in genes}

    def _point(self, trial: Trial) -> np.ndarray:
        """Return a trial as a genotype (d,); a category maps to the middle of its interval."""
        genes = zip(self._names, self._choices, strict=True)
        values = [(trial.params[name] + 0.5) / count if count else trial.params[name] for name, count in genes]
        return np.array(values, dtype=np.float64)


def _distribution(count: int) -> BaseDistribution:
    """Return the Optuna distribution of a gene: categorical with `count` categories, or a float for 0."""
    return CategoricalDistribution(tuple(range(count))) if count else FloatDistribution(0.0, 1.0)


def _parameter(coordinate: float, count: int) -> float | int:
    return min(int(coordinate * count), count - 1) if count else coordinate  # coordinate 1.0 is the last category


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's warnings of experimental arguments, and NumPy's of overflow between nearly equal values."""
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _quiet_study(sampler: BaseSampler, objectives: int) -> optuna.Study:
    """Return an in-memory study that maximises; creating one is the only moment at which Optuna logs."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return optuna.create_study(directions=["maximize"] * objectives, sampler=sampler)
    finally:
        logger.setLevel(level)


def _seed(problem: SearchProblem) -> int:
    return int(np.random.SeedSequence(problem.seed).generate_state(1)[0]) % _MOST
