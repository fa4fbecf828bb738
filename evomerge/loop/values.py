"""What the loop is given and what it says: budget, progress, and the reason why it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from evomerge.candidate import Evaluation, Response
from evomerge.recipe import Recipe

Fitness = Callable[[int, Sequence[Response]], Evaluation]  # a candidate's number and its responses -> its evaluation


class Space(Protocol):
    """What the loop needs of a search space."""

    def decode(self, genotype: np.ndarray) -> Recipe:
        """Return the recipe of a genotype (d,) in [0, 1]; total and deterministic."""
        ...


@dataclass(frozen=True)
class Racing:
    """Every candidate answers a few items first, and more of them only while it may still be worth it."""

    first: int  # items per task that everybody answers; each further rung doubles them, up to all
    error: float = 0.05  # most chance to stop a candidate that would not have lost on all items
    against: Literal["best", "front"] = "best"  # what it must not lose to: the best overall, or any point of the front
    seed: int = 0  # of the order in which the items are asked


@dataclass(frozen=True)
class Rules:
    """How a search treats its candidates."""

    asynchronous: bool = False  # tell results as they arrive, not in the order of the numbers
    racing: Racing | None = None


@dataclass(frozen=True)
class Reserve:
    """What is kept back for the held-out scoring at the end."""

    models: int  # finalists and parents
    share: float  # held-out items per search item


@dataclass(frozen=True)
class Budget:
    """What a search may use, over all its sessions; none of it is ever exceeded, the final scoring included."""

    candidates: int
    seconds: float | None = None  # of active time; jobs under way when they end are dropped, and can be resumed
    gpu_hours: float | None = None  # of the workers' GPUs, busy or not; a worker without a GPU counts as one
    deadline: float | None = None  # seconds since 1970
    cost: float | None = None  # in the currency of `price`
    price: float | None = None  # of one GPU-hour
    reserve: Reserve | None = None

    @property
    def gpu_seconds(self) -> float | None:
        """GPU-seconds that GPU-hours and cost allow, the smaller of the two; None where neither is limited."""
        hours = [] if self.gpu_hours is None else [self.gpu_hours]
        hours += [] if self.cost is None or self.price is None else [self.cost / self.price]
        return 3600.0 * min(hours) if hours else None


Limit = Literal["seconds", "gpu_hours", "deadline", "cost"]


@dataclass(frozen=True)
class StopReason:
    """Why the loop ended; everything that was measured is in the archive."""

    name: Limit | Literal["candidates", "controller", "configuration", "infrastructure", "interrupted", "done"]
    message: str

    @property
    def finished(self) -> bool:
        """True where the work came to its own end; otherwise it waits to be resumed."""
        return self.name not in ("configuration", "infrastructure", "interrupted")


@dataclass(frozen=True)
class Progress:
    """How far the search is."""

    candidates: int  # finished and told
    budget: int
    best: Mapping[str, float]  # objective -> best score so far, in the metric's units
    front: int  # candidates that no other is better than
    parents: int  # that are still to answer the search items, before candidates begin to finish
    failures: int
    running: int
    busy: float  # share of the workers' time that went into jobs, in this session
    seconds: float  # active time, over all sessions
    eta: float | None  # seconds left; None while nothing is known
