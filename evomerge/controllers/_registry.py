"""Registry of controllers: one row each, read by the search file, its schema, the docs, `auto` and reports."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.controllers._protocol import Controller, SearchProblem
from evomerge.errors import ExtraMissing, InputError, near
from evomerge.option_fields import NoOptions, option, options_of, read_options

AUTO = "auto"
Factory = Callable[[SearchProblem, Any], Controller]  # called with the problem and an instance of the row's options


@dataclass(frozen=True)
class ControllerInfo:
    """Everything that is known of a controller before it is built."""

    name: str  # as written in a search file
    # A callable, or 'module:function', imported when a controller is built: Sobol points need neither cma nor optuna.
    factory: Factory | str
    options: type = NoOptions  # frozen dataclass; its fields are the keys that a search file may set beside `name`
    warm_start: bool = False  # learns from points that are known beforehand; others refuse them
    scalarises: bool = False  # optimises the weighted sum of the objectives
    needs_similarity: bool = False  # the inner products of the task vectors are measured for it beforehand
    predicts_front: bool = False  # works with surrogates, so a report always shows the front that they predict
    extras: Mapping[str, str] = field(default_factory=dict)  # required package -> extra of evomerge that installs it

    @property
    def batch_option(self) -> str | None:
        """The option that sets how many candidates are proposed at once: population, batch_size, or none."""
        return next((name for name in ("population", "batch_size") if name in options_of(self.options)), None)


def register_controller(info: ControllerInfo) -> None:
    """Register a controller under its name, in this process.

    Raises:
        InputError: another controller has the name.
    """
    if CONTROLLERS.get(info.name, info) != info:  # importing a user's module twice registers the same row
        raise InputError(f"controller {info.name!r} is registered already; choose another name")
    CONTROLLERS[info.name] = info


def controller_info(name: str) -> ControllerInfo:
    """Return the row of a controller.

    Raises:
        InputError: none has this name.
    """
    if name not in CONTROLLERS:
        raise InputError(f"unknown controller {name!r}. {near(name, CONTROLLERS)}")
    return CONTROLLERS[name]


def warm_starting() -> list[str]:
    """Return the names of the controllers that support a warm start; `auto` chooses one of them."""
    return [name for name, info in CONTROLLERS.items() if info.warm_start and name != AUTO]


def build(name: str, problem: SearchProblem, options: Mapping[str, Any] | None = None) -> Controller:
    """Return a fresh controller.

    Args:
        name: of a registered controller.
        problem: dimensions, objectives, budget and the rest of the search.
        options: by name, as written in the search file beside `name`.

    Raises:
        InputError: the name or an option is unknown or out of range, or the problem is impossible.
        ExtraMissing: the controller's library is not installed.
    """
    info = controller_info(name)
    given = read_options(info.options, options or {}, f"controller {name!r}")
    if problem.dimensions < 1:
        raise InputError("the search space has no gene: no value is marked with `search`")
    if problem.prior and not info.warm_start:
        known = ", ".join(warm_starting())
        raise InputError(f"controller {name!r} does not support warm_start; supported: {known}")
    return _factory(info)(_checked(problem), given)


def _factory(info: ControllerInfo) -> Factory:
    if not isinstance(info.factory, str):
        return info.factory
    module, _, function = info.factory.partition(":")
    try:
        found: Factory = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in info.extras:  # a fault of the module itself, not a missing extra
            raise
        raise ExtraMissing(package, info.extras[package]) from error
    return found


def _checked(problem: SearchProblem) -> SearchProblem:
    if problem.weights and len(problem.weights) != problem.objectives:
        raise InputError(
            f"weights must have one value per objective ({problem.objectives}), got {len(problem.weights)}"
        )
    if problem.weights and not (all(weight >= 0.0 for weight in problem.weights) and sum(problem.weights) > 0.0):
        raise InputError(f"weights must be 0 or more, one of them above 0, got {list(problem.weights)}")
    if problem.start is not None:
        if len(problem.start) != problem.dimensions:
            raise InputError(f"start must be a genotype of {problem.dimensions} genes, got {len(problem.start)}")
        if not all(0.0 <= gene <= 1.0 for gene in problem.start):
            raise InputError(f"start must lie in [0, 1] per gene, got {min(problem.start)} to {max(problem.start)}")
    for one in problem.prior:
        if len(one.genotype) != problem.dimensions or not all(0.0 <= gene <= 1.0 for gene in one.genotype):
            raise InputError(f"a prior must be a genotype of {problem.dimensions} genes in [0, 1], got {one.genotype}")
        if one.fitness is not None and not (
            len(one.fitness) == problem.objectives and all(math.isfinite(value) for value in one.fitness)
        ):
            raise InputError(f"the fitness of a prior must be {problem.objectives} finite numbers, got {one.fitness}")
    for name, found, count in (
        ("choices", problem.choices, problem.dimensions),
        ("items", problem.items, problem.objectives),
    ):
        if found and len(found) != count:
            raise InputError(f"{name} must have {count} entries or none, got {len(found)}")
    if any(not 0 <= gene < problem.dimensions for gene, _ in problem.switches):
        raise InputError(f"switches must name genes 0 to {problem.dimensions - 1}, got {list(problem.switches)}")
    return problem


# -- the rows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchOptions:
    """Options of designs, and of `auto`, which hands `batch_size` to the controller it chooses."""

    batch_size: int | None = option(None, "candidates proposed at once; default: the controller's own", ge=1)


@dataclass(frozen=True)
class CmaEsOptions:
    """Options of CMA-ES."""

    population: int | None = option(None, "candidates per generation; default: 4 + floor(3 ln d)", ge=2)
    sigma: float = option(0.25, "first step, as a fraction of each range", gt=0, le=1)
    restarts: int = option(9, "most restarts, each with twice the population", ge=0)
    diagonal: bool | None = option(None, "learn no correlations; default: beyond 200 genes")


@dataclass(frozen=True)
class StartupOptions:
    """Options of controllers that fit a model after some candidates."""

    batch_size: int | None = option(None, "candidates proposed at once; default: the controller's own", ge=1)
    startup: int | None = option(None, "candidates before the model proposes; default: by genes and budget", ge=1)


@dataclass(frozen=True)
class TpeOptions:
    """Options of Optuna's TPE."""

    batch_size: int = option(8, "candidates proposed at once; the more, the less each proposal knows", ge=1)
    startup: int = option(16, "random candidates before the model proposes", ge=0)


@dataclass(frozen=True)
class GpOptions:
    """Options of Optuna's Gaussian process."""

    batch_size: int = option(4, "candidates proposed at once; the more, the less each proposal knows", ge=1)
    startup: int = option(16, "random candidates before the model proposes", ge=0)


@dataclass(frozen=True)
class NsgaOptions:
    """Options of NSGA-II and NSGA-III."""

    population: int = option(24, "candidates per generation", ge=2)


@dataclass(frozen=True)
class QuadraticOptions(StartupOptions):
    """Options of the quadratic surrogates."""

    tolerance: float = option(0.0, "end when a round promises less, as a fraction of the hypervolume", ge=0, lt=1)
    nested: bool = option(False, "merge the models two at a time, for one preference: the objectives' weights")


@dataclass(frozen=True)
class KinshipOptions:
    """Options of top-k merging by model kinship."""

    top: int = option(3, "how many of the best are merged with each other", ge=2)


@dataclass(frozen=True)
class EvolutionOptions:
    """Options of the evolutionary controller."""

    population: int = option(24, "candidates per generation", ge=2)
    mutation: float = option(0.2, "first step of a number, as a fraction of its range", gt=0, le=1)


_HERE = "evomerge.controllers"
_CMA, _OPTUNA = {"cma": "cma"}, {"optuna": "optuna", "torch": "hf"}
_ROWS = (
    ControllerInfo(AUTO, f"{_HERE}._auto:auto", BatchOptions, warm_start=True),
    ControllerInfo("random", f"{_HERE}._designs:uniform", BatchOptions),
    ControllerInfo("sobol", f"{_HERE}._designs:sobol", BatchOptions),
    ControllerInfo("latin", f"{_HERE}._designs:latin", BatchOptions),
    ControllerInfo("cma-es", f"{_HERE}._cma_es:cma_es", CmaEsOptions, warm_start=True, scalarises=True, extras=_CMA),
    ControllerInfo("tpe", f"{_HERE}._optuna_samplers:tpe", TpeOptions, warm_start=True, extras=_OPTUNA),
    ControllerInfo("gp", f"{_HERE}._optuna_samplers:gp", GpOptions, warm_start=True, extras=_OPTUNA),
    ControllerInfo("nsga-ii", f"{_HERE}._optuna_samplers:nsga_ii", NsgaOptions, warm_start=True, extras=_OPTUNA),
    ControllerInfo("nsga-iii", f"{_HERE}._optuna_samplers:nsga_iii", NsgaOptions, warm_start=True, extras=_OPTUNA),
    ControllerInfo(
        "quadratic", f"{_HERE}._quadratic_front:quadratic", QuadraticOptions, warm_start=True, predicts_front=True
    ),
    ControllerInfo("nehvi", f"{_HERE}._nehvi:nehvi", StartupOptions, warm_start=True),
    ControllerInfo("greedy-soup", f"{_HERE}._soups:greedy_soup", scalarises=True),
    ControllerInfo("kinship", f"{_HERE}._soups:kinship", KinshipOptions, scalarises=True, needs_similarity=True),
    ControllerInfo("evolution", f"{_HERE}._route_evolution:evolution", EvolutionOptions, warm_start=True),
)
CONTROLLERS: dict[str, ControllerInfo] = {row.name: row for row in _ROWS}
