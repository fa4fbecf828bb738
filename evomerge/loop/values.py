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
class Budget:
    """What a search may use, over all its sessions; neither is ever exceeded."""

    candidates: int
    seconds: float | None = None  # of active time; jobs under way when they end are dropped, and can be resumed


@dataclass(frozen=True)
class StopReason:
    """Why the loop ended; everything that was measured is in the archive."""

    name: Literal["candidates", "seconds", "controller", "configuration", "infrastructure", "interrupted", "done"]
    message: str

    @property
    def finished(self) -> bool:
        """True where the work came to its own end; otherwise it waits to be resumed."""
        return self.name in ("candidates", "seconds", "controller", "done")


@dataclass(frozen=True)
class Progress:
    """How far the search is."""

    candidates: int  # finished and told
    budget: int
    best: Mapping[str, float]  # objective -> best score so far, in the metric's units
    failures: int
    running: int
    busy: float  # share of the workers' time that went into jobs, in this session
    seconds: float  # active time, over all sessions
    eta: float | None  # seconds left; None while nothing is known
