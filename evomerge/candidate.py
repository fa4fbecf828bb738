"""Proposals and their results: frozen values shared by search, workers and archive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evomerge.recipe import Recipe
from evomerge.stats import normal_interval

# Parents are scored beside the search, and so are points of the predicted front that are measured on demand and those
# that a controller recommends at its end; none is counted in its budget or observed by its controller.
Kind = Literal["search", "parent", "remeasured"]
FIRST_REMEASURED = 1_000_000  # their numbers begin here: those of the search stay the order of its proposals
# rest: search items that finalists answer at the end, beside the anchor items of all candidates
Split = Literal["search", "search_rest", "holdout"]
FailureKind = Literal["infrastructure", "candidate", "configuration"]


@dataclass(frozen=True)
class Objective:
    """A metric of a task with its direction.

    Responses and scores are kept in the metric's own units; `fitness` changes their sign where lower is better.
    """

    name: str  # the task's name, or task:metric where two objectives have one task
    task: str  # or the name of another measure, which takes a task's place among items and responses
    metric: str  # as in lm-eval: acc, acc_norm, exact_match, ...
    goal: Literal["maximize", "minimize"] = "maximize"  # the better direction of the metric
    weight: float = 1.0  # relative weight in the scalarised objective, see `objectives`; 0 leaves it out
    filter: str = "none"  # lm-eval's filter name, as in 'exact_match,strict-match'
    kind: str = "task"  # other kinds are measured without lm-eval's tasks; their rows are in `metrics`

    def fitness(self, score: float) -> float:
        """Return `score` turned so that higher is better."""
        return -score if self.goal == "minimize" else score


@dataclass(frozen=True)
class Candidate:
    """A numbered point of the search space with the recipe that it decodes to; parents have no genotype."""

    number: int  # 0, 1, 2 ... for the search; -1, -2 ... for parents; from FIRST_REMEASURED on for what is remeasured
    recipe: Recipe  # what its genotype decodes to
    genotype: tuple[float, ...] = ()  # (d,) in [0, 1]
    kind: Kind = "search"  # origin: proposed by the controller, a parent, or remeasured
    name: str = ""  # a parent's display name

    def _repr_html_(self) -> str:
        from evomerge._markup import Html, element

        title = f"parent {self.name}" if self.kind == "parent" else f"candidate {self.number}"
        return element("div", {}, element("b", {}, title), Html(self.recipe._repr_html_()))


@dataclass(frozen=True)
class Response:
    """One model's score on one item of one task, in the metric's units (0 or 1 for right and wrong)."""

    task: str
    item: str  # the document's id, see scoring.items
    metric: str  # the metric, and its filter where it is not 'none': 'exact_match,strict-match'
    value: float  # the score, finite; in [0, 1] for most metrics
    answer: str = ""  # the generated or chosen text, shortened; for display, never for scores


@dataclass(frozen=True)
class Score:
    """An estimate of a task's metric over all its items, with its standard error in the same units."""

    value: float  # score, in the metric's units
    stderr: float  # standard error; 0 for what is exact, such as a count of layers
    items: int  # how many answers it rests on

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the normal-theory interval of this level.

        Args:
            level: coverage: fraction of intervals that hold the true value, in (0, 1).
        """
        return normal_interval(self.value, self.stderr, level)


@dataclass(frozen=True)
class Failure:
    """Why a candidate has no score: a kind with its policy, one sentence, and the traceback traceback."""

    kind: FailureKind  # decides on retries: another worker, none, or the end of the search
    message: str  # one sentence, shown to the user
    traceback: str = ""  # '' where there is none


@dataclass(frozen=True)
class Job:
    """One evaluation to run: a candidate on pinned items."""

    candidate: Candidate  # what is to be evaluated
    split: Split  # the split that the items belong to
    items: Mapping[str, tuple[str, ...]]  # task -> item ids still to answer; tasks already answered are absent
    # Task -> all items of the original request, where some are answered since. Batches are formed from these, not from
    # the items left: floating-point results depend on the other items of a batch.
    together: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    memory: float = 1.0  # fraction of the batch memory; halved each time a worker of this job runs out of it


@dataclass(frozen=True)
class Answers:
    """Responses of one candidate to the job's items of one task: all, or in a long task those of finished batches."""

    number: int  # number of the candidate
    split: Split  # the split of the items
    task: str
    responses: tuple[Response, ...]  # one per item and metric
    left: int = 0  # the job's items in this task that have no response yet

    @property
    def items(self) -> tuple[str, ...]:
        """The items answered here, each once; an item may have responses in several metrics."""
        return tuple(dict.fromkeys(response.item for response in self.responses))


# Stages of a route that count layer evaluations (tokens times layers): computed, and known from candidates that begin
# with the same layers.
LAYERS_RUN, LAYERS_SHARED = "layers.run", "layers.shared"


@dataclass(frozen=True)
class Outcome:
    """The end of one job: nothing, or the failure; worker, how long each stage took, and on which weights."""

    number: int  # number of the candidate
    split: Split  # the split of the items
    failure: Failure | None = None  # None: every item was answered
    worker: str = ""  # its name
    seconds: float = 0.0  # duration, without loading
    stages: Mapping[str, float] = field(default_factory=dict)  # see `timed` and `layer_evaluations`
    fingerprint: str = ""  # fingerprint of the scored weights, see weights.fingerprint

    @property
    def timed(self) -> dict[str, float]:
        """Seconds per stage: load, merge, sanity_checks, and per task prefill, decode and score (the rest)."""
        return {name: value for name, value in self.stages.items() if name not in (LAYERS_RUN, LAYERS_SHARED)}

    @property
    def layer_evaluations(self) -> tuple[int, int]:
        """How many layer evaluations a route took, and how many more it would have taken alone; 0, 0 without one."""
        return int(self.stages.get(LAYERS_RUN, 0)), int(self.stages.get(LAYERS_SHARED, 0))

    @property
    def done(self) -> bool:
        """True where every item was answered."""
        return self.failure is None


@dataclass(frozen=True)
class Evaluation:
    """What the controller and the reader see of a candidate: a score per objective, or the failure."""

    number: int
    scores: Mapping[str, Score] = field(default_factory=dict)  # objective name -> score
    failure: Failure | None = None
    partial: bool = False  # it has not answered all items: a race stopped it, or the budget ended first

    def fitness(self, objectives: tuple[Objective, ...]) -> tuple[float, ...] | None:
        """Return the value to maximise per objective, or None for a failure."""
        if self.failure is not None or any(objective.name not in self.scores for objective in objectives):
            return None
        values = tuple(objective.fitness(self.scores[objective.name].value) for objective in objectives)
        # NaN cannot be ranked: it counts as a failure
        return values if all(math.isfinite(value) for value in values) else None
