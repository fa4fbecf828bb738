"""What a run fixes before its first candidate: one frozen tree, stored in the archive as JSON.

The configuration alone rebuilds the space, the objectives, the workers and the controller. A run folder can therefore
be resumed, replayed and read without the search file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from evomerge.candidate import Objective
from evomerge.errors import RunError
from evomerge.scoring import ItemPlan, Measure, SanityChecks
from evomerge.space import SearchSpace, build_space


@dataclass(frozen=True)
class ModelsConfig:
    """The models that are merged, as their headers describe them."""

    names: tuple[str, ...]  # folders or hub ids, the base first
    revisions: Mapping[str, str]  # model -> commit, or digest of a folder's weights
    layers: int  # layers of the base
    depths: Mapping[str, int]  # model -> layers
    modules: Mapping[str, tuple[str, ...]]  # attention, mlp ... -> parts of tensor names
    aligned: bool = False  # True where the models' vocabularies differ


@dataclass(frozen=True)
class TasksConfig:
    """The lm-eval tasks."""

    include: tuple[str, ...]  # folders with task YAML
    lm_eval: Mapping[str, Any]  # arguments passed through to lm-eval
    versions: Mapping[str, str]  # task -> digest of its documents and settings


@dataclass(frozen=True)
class BankConfig:
    """The item bank of one task."""

    path: str
    digest: str


@dataclass(frozen=True)
class EstimationConfig:
    """How scores are estimated from few items per candidate."""

    estimator: str  # raw, p-irt, mp-irt ...; never mean
    items: int  # items per task that a candidate answers
    anchors: Literal["pinned", "resample"] = "pinned"  # the same items for all candidates, or others per generation
    full_evaluation_every: int | None = None  # every so many candidates one answers all items; None: chosen, 0: none
    banks: Mapping[str, BankConfig] = field(default_factory=dict)  # task -> item bank


@dataclass(frozen=True)
class WarmStartConfig:
    """Points of an earlier run or recipe that the controller begins with."""

    source: str  # path of the run folder or recipe
    points: tuple[tuple[float, ...], ...]  # (n, d) genotypes in [0, 1]
    fitness: tuple[tuple[float, ...] | None, ...]  # (n, objectives); None where a point has no scores


@dataclass(frozen=True)
class ControllerConfig:
    """The controller, with `auto` resolved and all of its input read."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    asynchronous: bool = False
    staleness: int | None = None  # None: the controller's own bound
    notes: tuple[str, ...] = ()  # how the choice came about
    warm_start: WarmStartConfig | None = None
    similarity: tuple[tuple[float, ...], ...] = ()  # (m, m) inner products of task vectors; () where not needed


@dataclass(frozen=True)
class RacingConfig:
    """Early stopping of candidates that fall behind."""

    min_items: int  # items per task that every candidate answers
    alpha: float = 0.05  # highest probability to stop a candidate that would have won on all items
    against: Literal["best", "front"] | None = None  # None: what fits the controller


@dataclass(frozen=True)
class BudgetConfig:
    """The limits of a search; None is no limit."""

    candidates: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    deadline: str | None = None  # ISO 8601 with its offset from UTC
    cost: float | None = None
    price: float | None = None  # price of a GPU-hour, in the currency of `cost`

    def after(self, changes: Iterable[Mapping[str, Any]]) -> BudgetConfig:
        """Return the limits after some resumes.

        Args:
            changes: the payload of each `resumed` event, in order; its limits replace those before.
        """
        budget = self
        for limits in changes:
            budget = replace(budget, **limits)
        return budget


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run."""

    created: str  # UTC, ISO 8601
    search_path: str  # absolute path of the search file
    search_text: str  # its text
    seed: int
    merge: Mapping[str, Any]  # mergekit document with `search` markers
    models: ModelsConfig
    objectives: tuple[Objective, ...]
    tasks: TasksConfig
    items: ItemPlan
    controller: ControllerConfig
    budget: BudgetConfig
    versions: Mapping[str, str]  # evomerge, Python, platform and libraries that can change a number
    route: Mapping[str, Any] | None = None  # the search file's section, with sources as in `merge`
    constraints: tuple[str, ...] = ()  # as written in the search file
    measures: tuple[Measure, ...] = ()  # objectives that are not lm-eval tasks
    measure_versions: Mapping[str, str] = field(default_factory=dict)  # name -> digest of documents, settings and code
    estimation: EstimationConfig | None = None  # None: scores are plain means over all items
    item_hashes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)  # task -> item -> its texts'
    racing: RacingConfig | None = None
    sanity_checks: SanityChecks | None = None
    batch_size: int | None = None  # None: chosen from memory
    cache: str | None = None  # absolute path of the response cache
    warnings: tuple[str, ...] = ()  # found while preparing

    @property
    def estimator(self) -> str:
        """The estimator's name: `mean` without estimation."""
        return "mean" if self.estimation is None else self.estimation.estimator

    def space(self) -> SearchSpace:
        """Return the search space; reads no file."""
        return build_space(
            self.merge,
            layers=self.models.layers,
            modules=self.models.modules,
            mask_seed=self.seed,
            revisions=self.models.revisions,
            route=self.route,
            depths=self.models.depths,
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data, one entry per field."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunConfig:
        """Return the configuration that `to_json` wrote.

        Raises:
            RunError: a key is missing or unknown, or a value has another type; names the place.
        """
        config: RunConfig = _decoded(cls, data, "")
        return config


def _decoded(kind: Any, value: Any, place: str) -> Any:
    """Return JSON data as a value of an annotated type; tuples, mappings, unions and dataclasses are followed."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _decoded(kind, value, place)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, place)
    if origin is Literal:
        return value if value in arguments else _refuse(place, f"one of {', '.join(map(repr, arguments))}", value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_decoded(arguments[0], entry, f"{place}[{index}]") for index, entry in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {key: _decoded(arguments[1], entry, f"{place}.{key}") for key, entry in value.items()}
    plain = (int, float) if kind is float else kind
    if origin is None and isinstance(value, plain) and (kind is bool or not isinstance(value, bool)):
        return value
    return _refuse(place, {tuple: "a list", Mapping: "a mapping"}.get(origin) or kind.__name__, value)


def _dataclass(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        return _refuse(place, "a mapping", value)
    hints = _hints(kind)
    required = {
        one.name
        for one in dataclasses.fields(kind)
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    }
    here = f" in {place.lstrip('.')}" if place else ""
    if missing := sorted(required - value.keys()):
        raise RunError(f"the run's configuration lacks {', '.join(missing)}{here}; {_OTHER_VERSION}")
    if unknown := sorted(value.keys() - hints.keys()):
        raise RunError(f"the run's configuration has unknown keys {', '.join(unknown)}{here}; {_OTHER_VERSION}")
    return kind(**{name: _decoded(hints[name], entry, f"{place}.{name}") for name, entry in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _refuse(place: str, expected: str, value: Any) -> Any:
    raise RunError(f"the run's configuration: {place.lstrip('.')} must be {expected}, got {value!r}; {_OTHER_VERSION}")


_OTHER_VERSION = "it was written by another version of evomerge: use that version"
