"""Who searches: our controllers, and two peers' ways of searching, driven at equal numbers of candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evomerge.controllers import CONTROLLERS, SearchProblem, build
from evomerge.errors import ExtraMissing

Evaluate = Callable[[np.ndarray], np.ndarray]  # genotype (d,) -> fitness (m,), maximised


def ours(name: str, items: tuple[int, ...] = ()) -> Callable[[Evaluate, int, int, int, int], None]:
    """Return a search by one of our controllers, told in order, with its defaults; a search knows its items."""

    def search(evaluate: Evaluate, genes: int, objectives: int, budget: int, seed: int) -> None:
        controller = build(name, SearchProblem(genes, seed, objectives, budget=budget, items=items))
        told = 0
        while told < budget and not controller.stop():
            for point in controller.ask()[: budget - told]:
                controller.tell(told, evaluate(point).tolist())
                told += 1

    return search


def as_mergenetic(evaluate: Evaluate, genes: int, objectives: int, budget: int, seed: int) -> None:
    """NSGA-II by pymoo with its defaults (simulated binary crossover, polynomial mutation), generations of 25."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    class Merges(Problem):
        def __init__(self) -> None:
            super().__init__(n_var=genes, n_obj=objectives, xl=0.0, xu=1.0)

        def _evaluate(self, x: np.ndarray, out: dict[str, np.ndarray], *args: object, **kwargs: object) -> None:
            out["F"] = np.array([-evaluate(row) for row in x])

    minimize(Merges(), NSGA2(pop_size=25), ("n_eval", budget), seed=seed, verbose=False)


def as_mergekit_evolve(evaluate: Evaluate, genes: int, objectives: int, budget: int, seed: int) -> None:
    """CMA-ES by pycma on the mean of the objectives: step 1/6, default population, unbounded, no restarts."""
    import cma

    options = {"seed": seed + 1, "verbose": -9, "maxfevals": budget, "verb_log": 0, "signals_filename": ""}
    strategy = cma.CMAEvolutionStrategy(np.full(genes, 0.5), 1 / 6, options)
    used = 0
    while used < budget and not strategy.stop():
        points = strategy.ask()
        if used + len(points) > budget:
            points = points[: budget - used]
        losses = [-float(np.mean(evaluate(np.clip(point, 0.0, 1.0)))) for point in points]
        used += len(points)
        if len(points) == strategy.popsize:
            strategy.tell(points, losses)


def random(evaluate: Evaluate, genes: int, objectives: int, budget: int, seed: int) -> None:
    for point in np.random.default_rng(seed).random((budget, genes)):
        evaluate(point)


BASELINES: dict[str, Callable[[Evaluate, int, int, int, int], None]] = {
    "pymoo NSGA-II": as_mergenetic,
    "pycma": as_mergekit_evolve,
    "random": random,
    "Sobol": ours("sobol"),
}
# Left out: the Gaussian process takes minutes per search, the Latin hypercube differs little from Sobol points, soups
# need a weight per model
NAMED = ("nehvi", "quadratic", "cma-es", "tpe", "nsga-ii", "nsga-iii")
OURS: Sequence[str] = [name for name in NAMED if name in CONTROLLERS]


def method(name: str, items: tuple[int, ...] = ()) -> Callable[[Evaluate, int, int, int, int], None]:
    """Return a method by its name in the table; ours are `evomerge NAME`.

    Args:
        name: of the method.
        items: behind each objective's score.

    Raises:
        ExtraMissing: pymoo is not installed.
    """
    if name.startswith("evomerge "):
        return ours(name.removeprefix("evomerge "), items)
    if name == "pymoo NSGA-II":
        try:
            import pymoo  # noqa: F401
        except ModuleNotFoundError as error:
            raise ExtraMissing("pymoo", "dev") from error
    return BASELINES[name]


NAMES = [*(f"evomerge {name}" for name in OURS), *BASELINES]
