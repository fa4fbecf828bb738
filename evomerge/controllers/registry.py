"""Controllers by name. Adding one is a factory in its own file and a line here."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from evomerge.controllers.choice import choose
from evomerge.controllers.protocol import Controller, Setup
from evomerge.errors import ExtraMissing, InputError, near

# name -> module and factory, imported when asked for: a search with Sobol points needs neither cma nor optuna
FACTORIES = {
    "random": ("uniform", "uniform"),
    "sobol": ("sobol", "sobol"),
    "latin": ("latin", "latin"),
    "cma-es": ("cma_es", "cma_es"),
    "tpe": ("optuna_study", "tpe"),
    "gp": ("optuna_study", "gp"),
    "nsga-ii": ("optuna_study", "nsga_ii"),
    "nsga-iii": ("optuna_study", "nsga_iii"),
    "quadratic": ("quadratic_front", "quadratic"),
    "nehvi": ("gaussian_front", "nehvi"),
    "greedy-soup": ("soups", "greedy_soup"),
    "kinship": ("soups", "kinship"),
    "evolution": ("route_evolution", "evolution"),
}
AUTO = "auto"  # resolved by `choice.choose` before a controller is built
# Those that learn from points known beforehand; a design or a soup would ignore them, which is refused.
WARM = ("cma-es", "tpe", "gp", "nsga-ii", "nsga-iii", "quadratic", "nehvi", "evolution")
_EXTRAS = {"cma": "cma", "optuna": "optuna", "torch": "hf"}


def build(name: str, setup: Setup, options: Mapping[str, Any] | None = None) -> Controller:
    """Return a fresh controller.

    Args:
        name: a key of `FACTORIES`, or `AUTO`.
        setup: what the search is about.
        options: keyword arguments of the factory, as written in the search file beside `name`.

    Raises:
        InputError: the name or an option is unknown, or the setup is impossible.
        ExtraMissing: the controller's library is not installed.
    """
    if name == AUTO:
        name = choose(setup).name
    factory = _factory(name)
    known = option_names(name)
    for key in options or {}:
        if key not in known:
            raise InputError(f"controller {name!r} has no option {key!r}. {near(key, known)}")
    if setup.dimensions < 1:
        raise InputError("the search space has no gene: nothing is marked with `search`, so there is nothing to search")
    if setup.prior and name not in WARM:
        raise InputError(f"controller {name!r} cannot start from other results; those that can: {', '.join(WARM)}")
    controller: Controller = factory(_checked(setup), **dict(options or {}))
    return controller


def option_names(name: str) -> list[str]:
    """Return the options that controller `name` understands; `AUTO`, which may be any, has none but its batch."""
    if name == AUTO:
        return ["population"]
    parameters = inspect.signature(_factory(name)).parameters.items()
    return [key for key, part in parameters if part.kind is part.KEYWORD_ONLY]


def _factory(name: str) -> Callable[..., Controller]:
    if name not in FACTORIES:
        raise InputError(f"unknown controller {name!r}. {near(name, [*FACTORIES, AUTO])}")
    module, function = FACTORIES[name]
    try:
        found: Callable[..., Controller] = getattr(importlib.import_module(f"evomerge.controllers.{module}"), function)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRAS:
            raise
        raise ExtraMissing(package, _EXTRAS[package]) from error
    return found


def _checked(setup: Setup) -> Setup:
    if setup.weights and len(setup.weights) != setup.objectives:
        raise InputError(f"weights must have one value per objective ({setup.objectives}), got {len(setup.weights)}")
    if setup.weights and not (all(weight >= 0.0 for weight in setup.weights) and sum(setup.weights) > 0.0):
        raise InputError(f"weights must be 0 or more, one of them above 0, got {list(setup.weights)}")
    if setup.start is not None:
        if len(setup.start) != setup.dimensions:
            raise InputError(f"start must be a genotype of {setup.dimensions} genes, got {len(setup.start)}")
        if not all(0.0 <= gene <= 1.0 for gene in setup.start):
            raise InputError(f"start must lie in [0, 1] per gene, got {min(setup.start)} to {max(setup.start)}")
    for one in setup.prior:
        if len(one.genotype) != setup.dimensions or not all(0.0 <= gene <= 1.0 for gene in one.genotype):
            raise InputError(f"a prior must be a genotype of {setup.dimensions} genes in [0, 1], got {one.genotype}")
        if one.fitness is not None and not (
            len(one.fitness) == setup.objectives and all(math.isfinite(value) for value in one.fitness)
        ):
            raise InputError(f"the fitness of a prior must be {setup.objectives} finite numbers, got {one.fitness}")
    for name, found, count in (
        ("choices", setup.choices, setup.dimensions),
        ("items", setup.items, setup.objectives),
    ):
        if found and len(found) != count:
            raise InputError(f"{name} must have {count} entries or none, got {len(found)}")
    if any(not 0 <= gene < setup.dimensions for gene, _ in setup.switches):
        raise InputError(f"switches must name genes 0 to {setup.dimensions - 1}, got {list(setup.switches)}")
    return setup
