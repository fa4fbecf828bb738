"""`auto`: which controller suits a search, by its dimension, budget, objectives and kinds of genes, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evomerge.controllers._protocol import Controller, SearchProblem
from evomerge.controllers._registry import BatchOptions, build, controller_info
from evomerge.surrogates import points_needed

MOST_QUADRATIC_GENES = 40  # a refit for more takes longer than scoring a small model
MOST_QUADRATIC_BUDGET = 1000  # a larger budget lets evolution find structure that no quadratic expresses
# Budgets for Gaussian processes: with fewer candidates a quadratic needs less data; with more, O(n^3) is too slow.
LEAST_GAUSSIAN, MOST_GAUSSIAN = 64, 500
CANDIDATES_PER_GENE = 4  # least for Gaussian processes: half of them are a space-filling design
MOST_MODELLED = 1000  # candidates up to which Optuna's TPE proposes in reasonable time
MOST_CROWDED = 3  # objectives that NSGA-II's crowding distance spreads well; NSGA-III takes more
TOO_FEW = 8  # a smaller budget ends before a model could be fitted


@dataclass(frozen=True)
class Choice:
    """Name of a controller, and the reasons for it as one sentence."""

    name: str
    why: str


def auto(problem: SearchProblem, options: BatchOptions) -> Controller:
    """Return the controller chosen for the search, with `batch_size` as its batch size or population if given."""
    name = choose(problem).name
    return build(name, problem, auto_options(name, options.batch_size))


def auto_options(name: str, batch_size: int | None) -> dict[str, Any]:
    """Return `batch_size` as an option of the controller that was chosen; {} where it is None or has no such option."""
    key = controller_info(name).batch_option
    return {} if batch_size is None or key is None else {key: batch_size}


def choose(problem: SearchProblem) -> Choice:
    """Return the controller chosen for a search.

    The choice depends on the search alone, never on which extras are installed, so it is the same on every machine.
    """
    d, m, budget = problem.dimensions, problem.objectives, problem.budget
    names = sum(count > 0 for count in problem.choices)
    facts = [
        f"{d} gene{'s' if d > 1 else ''}" + (f", {names} of them choosing among names" if names else ""),
        f"{m} objective{'s' if m > 1 else ''}",
        f"a budget of {budget} candidates" if budget is not None else "no limit of candidates",
    ]
    for rule in RULES:
        found = rule(problem)
        if found is not None:
            return Choice(found[0], f"{found[0]} for {', '.join(facts)}: {found[1]}")
    raise AssertionError("the last rule always applies")


def _few(problem: SearchProblem) -> tuple[str, str] | None:
    if problem.budget is not None and problem.budget < TOO_FEW and not problem.prior:
        return "sobol", "too few candidates for a model, so a space-filling design"
    return None


def _routes(problem: SearchProblem) -> tuple[str, str] | None:
    if not problem.switches:
        return None
    return "evolution", "its mutations insert, delete, swap and repeat the layers of a route"


def _names(problem: SearchProblem) -> tuple[str, str] | None:
    if not any(problem.choices):
        return None
    if problem.budget is not None and problem.budget <= MOST_MODELLED:
        return "tpe", "choices are unordered; quadratic surrogates and CMA-ES assume ordered genes"
    return _evolution(problem, "choices are unordered, and crossover preserves them")


def _gaussian(problem: SearchProblem) -> tuple[str, str] | None:
    budget, d = problem.budget, problem.dimensions
    if problem.objectives == 1 or budget is None or d > MOST_QUADRATIC_GENES:
        return None
    if not max(LEAST_GAUSSIAN, CANDIDATES_PER_GENE * d) <= budget <= MOST_GAUSSIAN:
        return None
    return "nehvi", (
        "enough candidates for Gaussian processes, which fit more than quadratics, and few enough for their cost"
    )


def _quadratic(problem: SearchProblem) -> tuple[str, str] | None:
    if problem.budget is None or problem.dimensions > MOST_QUADRATIC_GENES or problem.budget > MOST_QUADRATIC_BUDGET:
        return None
    if problem.objectives == 1:
        return None
    needed = points_needed(problem.dimensions, "linear")
    if problem.budget < 2 * needed:
        return None
    return "quadratic", f"surrogates can be fitted from {needed} candidates on, and say where the front is uncertain"


def _single_objective(problem: SearchProblem) -> tuple[str, str] | None:
    if problem.objectives > 1:
        return None
    return "cma-es", "scalarised objective with continuous genes"


def _many(problem: SearchProblem) -> tuple[str, str]:
    return _evolution(problem, "too many genes or candidates for surrogates")


def _evolution(problem: SearchProblem, why: str) -> tuple[str, str]:
    name = "nsga-ii" if problem.objectives <= MOST_CROWDED else "nsga-iii"
    return name, why


# The first rule that applies decides, so special cases stand before the general ones.
RULES: tuple[Callable[[SearchProblem], tuple[str, str] | None], ...] = (
    _few,
    _routes,
    _names,
    _single_objective,
    _gaussian,
    _quadratic,
    _many,
)
