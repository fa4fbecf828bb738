"""What a search file asks for, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.scoring import Measure
from evomerge.space import Place, SearchSpace, build_space


@dataclass(frozen=True)
class ObjectiveRequest:
    """One wanted thing as the user wrote it; what is None is looked up in the task."""

    task: str  # or the measure's name
    metric: str | None = None
    goal: Literal["maximize", "minimize"] | None = None
    weight: float | None = None  # in the weighted mean; None: 1, and 0 for a size of the model
    filter: str | None = None
    name: str | None = None  # of the objective; None: after its task
    measure: Measure | None = None  # where it is no task


@dataclass(frozen=True)
class ScoringRequest:
    """How candidates are scored."""

    items: int | None = None  # documents per task; None: all that are not held out
    holdout: float | tuple[str, ...] | Mapping[str, str] = 0.5  # share kept back; other tasks; or task -> other task
    estimator: str = "mean"
    banks: Mapping[str, str] = field(default_factory=dict)  # task -> absolute path of its item bank; '' for every task
    pool: int | None = None  # with an estimator: search items per task; None: all that are not held out
    anchors: Literal["pinned", "resample"] = "pinned"  # with an estimator; resample: others per generation
    full_evaluation_every: int | None = None  # candidates for one that is answered in full; None: the default, 0: none
    lm_eval: Mapping[str, Any] = field(default_factory=dict)  # passed through to lm-eval
    batch_size: int | None = None
    cache: str | None = None  # absolute path of a folder
    sanity_checks: Mapping[str, Any] | None = None  # settings of scoring.sanity_checks.SanityChecks; None: no checks
    racing: Mapping[str, Any] | None = None  # settings of loop.Racing; None: everybody answers everything


@dataclass(frozen=True)
class ControllerRequest:
    """Who proposes candidates, and with which options beyond the defaults."""

    name: str = "cma-es"
    options: Mapping[str, Any] = field(default_factory=dict)
    asynchronous: bool = False
    staleness: int | None = None  # None: the controller's own bound


@dataclass(frozen=True)
class BudgetRequest:
    """When the search ends; at least one limit is given."""

    candidates: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    deadline: str | None = None  # ISO 8601 with its offset from UTC
    cost: float | None = None
    price: float | None = None  # of a GPU-hour, in the currency of `cost`


@dataclass(frozen=True)
class SearchFile:
    """A search file, checked as far as this is possible without models and tasks. All paths are absolute."""

    path: str
    text: str = field(repr=False)  # as written
    merge: Mapping[str, Any]  # mergekit document with markers, as plain data
    objectives: tuple[ObjectiveRequest, ...]
    include: tuple[str, ...] = ()  # folders of task YAML
    scoring: ScoringRequest = field(default_factory=ScoringRequest)
    controller: ControllerRequest = field(default_factory=ControllerRequest)
    budget: BudgetRequest = field(default_factory=BudgetRequest)
    seed: int = 0
    constraints: tuple[str, ...] = ()  # on objectives, as written; see `results.constraints`
    route: Mapping[str, Any] | None = None  # values of the section; its sources stand as in `merge`
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False, compare=False)

    def space(
        self,
        *,
        layers: int,
        modules: Mapping[str, tuple[str, ...]],
        revisions: Mapping[str, str] | None = None,
        depths: Mapping[str, int] | None = None,
    ) -> SearchSpace:
        """Return the search space for a base of this depth and architecture; see `space.build_space`.

        Raises:
            SearchFileError: the markers do not fit this model, such as more blocks than layers; with lines.
        """
        return build_space(
            self.merge,
            layers=layers,
            modules=modules,
            mask_seed=self.seed,
            revisions=revisions,
            route=self.route,
            depths=depths,
            place=("merge",),
            lines=self.lines,
            path=self.path,
        )
