"""The kinds of events in an archive, and the payload that each kind carries; all payloads are JSON.

Optional keys are a subclass with `total=False`: Python 3.10 has no `typing.NotRequired`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from evomerge.candidate import FailureKind, Split

EventKind = Literal[
    "asked",
    "submitted",
    "partial",
    "answered",
    "duplicate",
    "finished",
    "observed",
    "raced",
    "retry",
    "worker",
    "devices",
    "resumed",
    "interrupted",
    "stopped",
    "ended",
    "recovered",
    "remeasured",
    "recommended",
    "anchors",
    "estimated",
    "tracking",
    "note",
]


class AskedPayload(TypedDict):
    """Proposals were recorded: the numbers `first` ... `first + count - 1`."""

    first: int | None  # None where the controller proposed nothing
    count: int
    size: int  # length of the controller's batch; 0 where these are the remainder of the batch before


class SubmittedPayload(TypedDict):
    """A candidate was handed to a worker."""

    split: Split


class _AnsweredRequired(TypedDict):
    split: Split
    task: str
    items: int  # number of responses in this event


class AnsweredPayload(_AnsweredRequired, total=False):
    """Responses to a task were recorded: `answered` completes the task, after `partial` others are to come."""

    together: Sequence[str]  # all items asked, with the first partial responses only


class DuplicatePayload(TypedDict):
    """A candidate took over the responses of an earlier one with the same recipe."""

    of: int
    split: Split


class FinishedPayload(TypedDict):
    """A job ended."""

    split: Split
    failure: FailureKind | None


class _ObservedRequired(TypedDict):
    fitness: Sequence[float] | None  # (objectives,), larger is better; None after a failure


class ObservedPayload(_ObservedRequired, total=False):
    """The controller observed a candidate."""

    stderr: Sequence[float]  # (objectives,), in a race
    staleness: int  # controller updates since the proposal, in asynchronous searches


class RacedPayload(TypedDict):
    """A race decided whether a candidate answers more items."""

    promoted: bool
    round: int
    incumbent: int | None
    p: float | None
    level: float | None


class RetryPayload(TypedDict):
    """A job was lost with its worker, and is submitted again."""

    split: Split
    worker: str
    message: str
    seconds: float  # lost
    worked: float  # seconds at the job, as the worker measured them


class _WorkerRequired(TypedDict):
    what: str
    worker: str


class WorkerPayload(_WorkerRequired, total=False):
    """Workers came, went or wasted time; which further keys there are depends on `what`, see `PoolEvent`."""

    node: str
    pid: int
    gpus: float  # fraction of a GPU, or several
    seconds: float
    message: str
    log: Sequence[str] | str
    candidate: int
    task: str
    helper: str  # the second worker that a straggler's job was given to
    place: str  # the device in quarantine


class DevicesPayload(TypedDict):
    """The number of devices in use changed."""

    count: float


class ResumedPayload(TypedDict, total=False):
    """A session resumed the run, perhaps with other limits."""

    candidates: int | None
    hours: float | None
    gpu_hours: float | None
    deadline: str | None  # ISO 8601 with its offset from UTC
    cost: float | None
    price: float | None  # price of a GPU-hour


class StoppedPayload(TypedDict):
    """The search stopped by itself."""

    reason: str
    message: str


class RecoveredPayload(TypedDict):
    """A damaged archive was replaced by a copy."""

    source: str
    events: int
    lost: int | None  # None where the damaged file does not show how much


class _RemeasuredRequired(TypedDict):
    numbers: Sequence[int]


class RemeasuredPayload(_RemeasuredRequired, total=False):
    """Points of a predicted front are to be measured; predictions are (points, objectives)."""

    fitness: Sequence[Sequence[float]]
    sd: Sequence[Sequence[float]]
    low: Sequence[Sequence[float]]
    high: Sequence[Sequence[float]]


class RecommendedPayload(TypedDict):
    """A controller recommended points after it had observed this many candidates."""

    numbers: Sequence[int]
    observed: int


class AnchorsPayload(TypedDict):
    """The anchor items that every candidate answers, or those of the first generation where they are resampled."""

    tasks: Mapping[str, Sequence[str]]
    methods: Mapping[str, str]  # objective -> estimation method


class EstimatedPayload(TypedDict):
    """Scores estimated from a candidate's responses to anchor items."""

    scores: Mapping[str, Mapping[str, Any]]  # objective -> `ItemEstimate` as a mapping


class TrackingPayload(TypedDict):
    """The experiment trackers that the session writes to."""

    to: Sequence[str]  # targets, as `--log` takes them
    id: str  # identity of the run in every tracker


class NotePayload(TypedDict):
    """A message to the reader of the run."""

    text: str


class NoPayload(TypedDict):
    """The kind says everything."""


EventPayload = (
    AskedPayload
    | SubmittedPayload
    | AnsweredPayload
    | DuplicatePayload
    | FinishedPayload
    | ObservedPayload
    | RacedPayload
    | RetryPayload
    | WorkerPayload
    | DevicesPayload
    | ResumedPayload
    | StoppedPayload
    | RecoveredPayload
    | RemeasuredPayload
    | RecommendedPayload
    | AnchorsPayload
    | EstimatedPayload
    | TrackingPayload
    | NotePayload
    | NoPayload
)

# A test compares recorded events with this table, since the union above cannot tie a kind to its payload.
PAYLOADS: Mapping[EventKind, type] = {
    "asked": AskedPayload,
    "submitted": SubmittedPayload,
    "partial": AnsweredPayload,
    "answered": AnsweredPayload,
    "duplicate": DuplicatePayload,
    "finished": FinishedPayload,
    "observed": ObservedPayload,
    "raced": RacedPayload,
    "retry": RetryPayload,
    "worker": WorkerPayload,
    "devices": DevicesPayload,
    "resumed": ResumedPayload,
    "interrupted": NoPayload,
    "stopped": StoppedPayload,
    "ended": NoPayload,
    "recovered": RecoveredPayload,
    "remeasured": RemeasuredPayload,
    "recommended": RecommendedPayload,
    "anchors": AnchorsPayload,
    "estimated": EstimatedPayload,
    "tracking": TrackingPayload,
    "note": NotePayload,
}
