"""What a search file may hold: every section and key, its form, its meaning and its default, as pydantic models.

The keys of `merge` are in `space.form.MERGE_KEYS`, those of a marker in `space.markers.MARKER_KEYS`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, ValidationInfo, create_model

from evomerge.config._objective_sections import ObjectiveRequest, objective_model
from evomerge.config._section_base import (
    LIST,
    MAPPING,
    NUMBER,
    TEXT,
    AtLeastOne,
    ByType,
    Context,
    File,
    Folder,
    Moment,
    OneOf,
    Section,
    TaskName,
    Text,
    Whole,
    absolute,
    existing,
    option_type,
    required,
    setting,
    shown,
)
from evomerge.controllers import CONTROLLERS, warm_starting
from evomerge.errors import near
from evomerge.irt import FEW_ITEM_METHODS
from evomerge.option_fields import options_of
from evomerge.space import PRESETS, SCALE_FORMS, Place, Problem, SearchSpace, build_space

ESTIMATORS = ("mean", *FEW_ITEM_METHODS)
LIMITS = ("candidates", "hours", "gpu_hours", "deadline", "cost")
DEFAULT_CONTROLLER = "cma-es"


def _cache(path: str, info: ValidationInfo) -> str:
    found = absolute(path, (info.context or Context()).folder)
    if os.path.exists(found) and not os.path.isdir(found):
        raise ValueError(f"must be a folder, and {found} is a file")
    return found


class SanityChecksRequest(Section):
    """Settings of `scoring.SanityChecks`."""

    model_config = shown(norm_ratio=10, degenerate=0.5)
    norm_ratio: float = setting(10.0, "most that a tensor's norm may be, in multiples of the largest parent's", ge=1)
    degenerate: float = setting(0.5, "most share of the probes that may be empty or repetitive", ge=0, le=1)
    probes: Whole = setting(8, "first items of each task with written answers to look at", ge=1)
    repetition: float = setting(0.8, "share of repeated 4-grams above which an answer is repetitive", ge=0, le=1)


class RacingRequest(Section):
    """Settings of a race."""

    model_config = shown(min_items=20, alpha=0.05)
    min_items: Whole = setting(20, "items per task that every candidate answers; rounds double them", ge=2)
    alpha: float = setting(0.05, "most chance to stop a candidate that would not have lost", gt=0, le=0.5)
    against: Literal["best", "front"] | None = setting(
        None, "what it must not lose to; default: what suits the controller", "reference"
    )


_HOLDOUT = "a share between 0 and 1, a list of tasks, or a mapping from task to task"
_BANK = "a file, or a mapping from task to file"


class ScoringRequest(Section):
    """How candidates are scored. All paths are absolute."""

    model_config = shown(items=100)
    items: Whole | None = setting(
        None, "documents per task, pinned by id; with an estimator: anchor items of every candidate; default: all", ge=1
    )
    holdout: Annotated[
        Annotated[float, Field(gt=0, lt=1), Tag(NUMBER)]
        | Annotated[tuple[TaskName, ...], AtLeastOne, Field(examples=[["add", "sort"]]), Tag(LIST)]
        | Annotated[dict[str, TaskName], Field(examples=[{"add": "add_final"}]), Tag(MAPPING)],
        ByType,
    ] = setting(0.5, "share of each task's documents kept for the final report; or other tasks", _HOLDOUT)
    estimator: Annotated[str, OneOf(ESTIMATORS)] = setting(
        "mean",
        "from responses to scores: mean asks `items` alone; the others estimate the score over all search items",
        "estimator",
    )
    bank: (
        Annotated[
            Annotated[File, Tag(TEXT)]
            | Annotated[dict[str, File], Field(examples=[{"add": "add.json"}]), Tag(MAPPING)],
            ByType,
        ]
        | None
    ) = setting(
        None,
        "item bank, or task -> item bank, that evomerge calibrate wrote; default: the run's own full answers",
        _BANK,
    )
    pool: Whole | None = setting(
        None, "with an estimator: search items per task that the score is about, and parents answer; default: all", ge=1
    )
    anchors: Literal["pinned", "resample"] = setting(
        "pinned",
        "with an estimator: ask all candidates the same items, or every generation others drawn at random",
        "choice",
    )
    full_evaluation_every: Whole | None = setting(
        None, "with an estimator: every so many candidates one answers all items", ge=0
    )
    lm_eval: dict[str, Any] = setting({}, "passed through to lm-eval", examples=[{"num_fewshot": 0}])
    cache: Annotated[Text, AfterValidator(_cache)] | None = setting(
        None, "keeps answers across runs, so that a model is asked once; default: none", "folder"
    )
    sanity_checks: SanityChecksRequest | None = setting(
        None, "what a candidate must pass before it is scored; {} for the defaults; default: nothing"
    )
    racing: RacingRequest | None = setting(
        None, "few items first, more while it is worth it; {} for the defaults; default: all items"
    )
    batch_size: Whole | None = setting(None, "sequences per forward pass; default: from the memory at hand", ge=1)

    @property
    def banks(self) -> Mapping[str, str]:
        """Task -> path of its item bank; '' for one that serves every task."""
        return {"": self.bank} if isinstance(self.bank, str) else self.bank or {}

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield which keys do not fit the estimator."""
        if self.racing is not None and self.estimator != "mean":
            text = "racing and estimator both choose the items of each candidate; remove one, or set estimator: mean"
            yield Problem(("racing",), text)
        if "estimator" in wrong:
            return
        if self.estimator == "mean":
            unused = ("bank", "pool", "full_evaluation_every")
            given = [key for key in unused if getattr(self, key) is not None or key in wrong]
            for key in [*given, *(["anchors"] if self.anchors == "resample" else [])]:
                yield Problem((key,), "is only used by an estimator; set estimator: auto, or leave it out")
        elif self.estimator == "raw" and (self.bank is not None or "bank" in wrong):
            yield Problem(("bank",), "is not used by estimator raw; choose another, or leave it out")
        elif self.items is None and "items" not in wrong:
            yield Problem(
                (), f"estimator {self.estimator!r} needs items: how many each candidate answers, as in items: 10"
            )

    def task_problems(self, tasks: Sequence[str], bank: object) -> Iterator[Problem]:
        """Yield which tasks of the section, and of `bank` as written, are not among the objectives'.

        Places begin at the top of the file.
        """
        known = list(dict.fromkeys(tasks))
        holdout = self.holdout
        if isinstance(holdout, tuple) and len(holdout) != len(known):
            text = f"must name one task for each of the {len(known)} tasks of the objectives, got {len(holdout)}"
            yield Problem(("scoring", "holdout"), text)
        for key, named in (("holdout", holdout), ("bank", bank)):
            for task in named if isinstance(named, Mapping) else ():
                if task not in known:
                    text = f"unknown task among the objectives {task!r}. {near(task, known)}"
                    yield Problem(("scoring", key, task), text)


class ControllerSection(Section):
    """Keys of `controller` beside the options of the controller that is named."""

    model_config = shown(name="cma-es", population=12)
    name: str = DEFAULT_CONTROLLER
    warm_start: Annotated[Text, existing("run folder or recipe", os.path.exists)] | None = setting(
        None, "begin from another run's results, or from a recipe", "run folder or recipe"
    )
    asynchronous: bool = setting(False, "tell results as they arrive and propose before a generation ends")
    staleness: Whole | None = setting(None, "asynchronous: most updates between a proposal and its result", ge=1)

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield whether the controller has no use for a warm start."""
        given = self.warm_start is not None or "warm_start" in wrong
        if given and "name" not in wrong and not CONTROLLERS[self.name].warm_start:
            text = f"{self.name} cannot start from other results; those that can: {', '.join(warm_starting())}"
            yield Problem(("warm_start",), text)

    def request(self) -> ControllerRequest:
        """Return what the search reads of the section."""
        own = {"name", "asynchronous", "staleness"}
        options = self.model_dump(exclude=own, exclude_none=True, by_alias=True)
        return ControllerRequest(self.name, options, asynchronous=self.asynchronous, staleness=self.staleness)


def controller_model(name: str | None = None) -> type[ControllerSection]:
    """Return the section `controller`, with the options in the row of the controller `name`; None: of every row."""
    meanings: dict[str, dict[str, list[str]]] = {}  # option -> meaning -> controllers
    types: dict[str, Any] = {}
    for row in CONTROLLERS.values():
        for option in options_of(row.options).values() if name in (None, row.name) else ():
            meanings.setdefault(option.name, {}).setdefault(option.help, []).append(row.name)
            kind, found = types.setdefault(option.name, (option.kind, option_type(option)))
            # an option of two controllers can be of two types, and then only its own controller can check it
            types[option.name] = (kind, found if kind is option.kind else Any)
    names = setting(DEFAULT_CONTROLLER, "who proposes candidates", "controller")
    fields: dict[str, Any] = {"name": (Annotated[str, OneOf(tuple(CONTROLLERS))], names)}
    for key, said in meanings.items():
        about = "; ".join(f"{', '.join(owners)}: {help}" for help, owners in said.items())
        # the underscore keeps an option called 'copy' or 'json' from hiding a method of the model
        fields[f"{key}_"] = (types[key][1] | None, setting(None, about, title="name", alias=key))
    return create_model("Controller", __base__=ControllerSection, **fields)


class BudgetRequest(Section):
    """When the search ends; at least one limit is given."""

    model_config = shown(candidates=300, hours=1)
    candidates: Whole | None = setting(None, "most candidates to evaluate", ge=1)
    hours: float | None = setting(None, "most hours of active time", gt=0)
    gpu_hours: float | None = setting(None, "most GPU-hours, busy or not; a worker without a GPU counts as one", gt=0)
    deadline: Moment | None = setting(None, "when everything is over, as in 2030-06-01T18:00:00+02:00")
    cost: float | None = setting(None, "most money, at `price` per GPU-hour", gt=0)
    price: float | None = setting(None, "of one GPU-hour, in the currency of `cost`", gt=0)

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield what is missing."""
        yield from (Problem((), text) for text in self.missing(wrong))

    def missing(self, wrong: Set[str] = frozenset()) -> list[str]:
        """Return what is missing: a limit at all, or one of cost and price without the other."""
        given, problems = {key for key, value in self if value is not None} | wrong, []
        if not given & set(LIMITS):
            problems.append(f"one of {', '.join(LIMITS)} is needed, as in {{candidates: 300}}")
        if len(given & {"cost", "price"}) == 1:
            one, other = ("cost", "price") if "cost" in given else ("price", "cost")
            problems.append(f"{one} needs {other} beside it, as in {{cost: 50, price: 2.5}}: 20 GPU-hours of 2.5 each")
        return problems


class RouteSection(Section):
    """The order of the layers, as written."""

    model_config = shown(sources=["merged"])
    preset: Annotated[str, OneOf(tuple(PRESETS))] | None = setting(
        None, "which routes there are; default: indicators", "preset"
    )
    sources: Annotated[tuple[Annotated[Text, Field(title="source")], ...], AtLeastOne] | None = setting(
        None,
        "merged, base, or models of the merge section; default: its models, with merged where there is one",
        examples=[["merged", "math"]],
    )
    repeats: Whole | None = setting(None, "indicators: how often each source's stack appears; default: 1", ge=1)
    min_layers: Whole | None = setting(None, "fewest layers of a candidate; default: 1", ge=1)
    max_layers: Whole | None = setting(None, "most layers of a candidate; default: what the preset gives", ge=1)
    keep_first: Whole | None = setting(None, "layers of the first source that begin every route; default: 0", ge=0)
    keep_last: Whole | None = setting(None, "layers of the first source that end every route; default: 0", ge=0)
    times: Whole | None = setting(None, "repeat_block: most runs of the block; default: 3", ge=2)
    scales: Annotated[tuple[float, ...], AtLeastOne] | None = setting(
        None, "scale of the hidden state on entering a layer; default: none", examples=[[0.5, 1.5]]
    )
    scale_by: Annotated[str, OneOf(SCALE_FORMS)] | None = setting(
        None, "what has a scale of its own; default: slot or jump", "form of scales"
    )
    hidden: Whole | None = setting(None, "scale_by network: units; default: 4", ge=1)
    start: Text | None = setting(None, "the source whose own stack is the start; default: the first", "source")


class TasksSection(Section):
    """Where tasks are defined."""

    model_config = shown(include=["tasks"])
    include: Annotated[tuple[Folder, ...], AtLeastOne] | None = setting(
        None, "folders of task YAML", examples=[["tasks"]]
    )


class SearchFileSection(Section):
    """A whole search file; `search_file_model` adds what registered controllers and metrics read."""

    merge: dict[str, Any] = required(
        "a mergekit document with search markers",
        examples=[{"merge_method": "linear", "models": [{"model": "org/a"}]}],
    )
    objectives: tuple[Any, ...] = ()
    constraints: Annotated[tuple[Annotated[Text, Field(title="constraint")], ...], AtLeastOne] | None = setting(
        None,
        "what the best and the front must meet: objective >= or <= a number, base, best or parent, +- a number",
        examples=[["safety >= base - 1 point"]],
    )
    tasks: TasksSection | None = setting(None, "where lm-eval finds tasks")
    scoring: ScoringRequest | None = setting(None, "how candidates are scored")
    controller: ControllerSection | None = None
    budget: BudgetRequest = required("when to stop: candidates, hours, gpu_hours, deadline, or cost with price")
    seed: Whole = setting(0, "of everything random", ge=0)
    route: RouteSection | None = setting(None, "the layers' order")

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield what does not fit together across sections."""
        scoring = self.scoring
        if scoring is None:
            return
        if "objectives" not in wrong:
            requests = [entry.request(context.folder) for entry in self.objectives or ()]
            tasks = [one.task for one in requests if one and one.measure is None]
            bank = context.written.get(ScoringRequest, {}).get("bank")  # a missing file hides no unknown task
            yield from scoring.task_problems(tasks, bank)
        if self.constraints and scoring.racing is not None:
            text = "racing cannot be combined with constraints: it may stop feasible candidates; remove one of the two"
            yield Problem(("scoring", "racing"), text)


def search_file_model(controller: str | None = None) -> type[SearchFileSection]:
    """Return the model of a search file whose `controller` section names this one; None: any."""
    fields: dict[str, Any] = {
        "objectives": (
            Annotated[tuple[objective_model(), ...], AtLeastOne],  # type: ignore[misc]
            required("what is good: [{task: ...}, ...]", examples=[[{"task": "add"}]]),
        ),
        "controller": (controller_model(controller) | None, setting(None, "who proposes candidates")),
    }
    return create_model("SearchFile", __base__=SearchFileSection, **fields)


@dataclass(frozen=True)
class ControllerRequest:
    """Who proposes candidates, and with which options beyond the defaults."""

    name: str = DEFAULT_CONTROLLER
    options: Mapping[str, Any] = field(default_factory=dict)
    asynchronous: bool = False
    staleness: int | None = None  # None: the controller's own bound


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
    # a file without a limit is refused, so this default stands only beside mistakes
    budget: BudgetRequest = field(default_factory=BudgetRequest.model_construct)
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
