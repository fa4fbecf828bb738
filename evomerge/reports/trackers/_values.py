"""The values that every tracker gets: the run, its steps, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from evomerge.candidate import FIRST_REMEASURED

# Candidates that get an entry of their own with their genes, where a tool wants one per trial: its tables of
# hyperparameters get slow far below the number of candidates that a search may have.
MOST_TRIALS = 500
# Written last in every step: where it is found, the step is whole.
MARKER = "search/failed"
LAST_STEP = FIRST_REMEASURED - 1  # numbers from there on are remeasured points, which are no steps of the search

Plain = bool | int | float | str


@dataclass(frozen=True)
class RunInfo:
    """What holds for the whole run."""

    identity: str  # hexadecimal digits, the same in every session of the run
    name: str  # the run folder's name
    folder: Path  # the run folder
    config: Mapping[str, Plain]  # settings by dotted name, as in controller.name
    tags: Mapping[str, str]  # few, short: what runs are grouped by
    search_file: str  # its text
    goals: Mapping[str, Literal["maximize", "minimize"]]  # metric -> what is better, for those where it is known


@dataclass(frozen=True)
class LoggedStep:
    """Metrics of one candidate, and the state of the search after it."""

    number: int  # candidate number
    time: float  # when it was finished, seconds since 1970
    metrics: Mapping[str, float]  # finite; see `metrics` for the names. A failed candidate has those of the search only
    genes: Mapping[str, Plain]  # values in the user's units

    @property
    def scores(self) -> dict[str, float]:
        """The candidate's own scores: score/<objective>; {} where it failed or was stopped early."""
        return {key: value for key, value in self.metrics.items() if key.startswith("score/")}


@dataclass(frozen=True)
class RunResult:
    """How this session of the run ended."""

    state: Literal["finished", "interrupted", "failed"]  # interrupted: it can be resumed
    time: float  # seconds since 1970
    metrics: Mapping[str, float]  # held-out scores of the best candidate: holdout/...; {} without held-out items
    text: str  # the summary printed at the end of the search
    trials: tuple[Sequence[str], Sequence[Sequence[Plain | None]]]  # columns and rows; at most MOST_ROWS


MOST_ROWS = 10_000  # limit of the trials table in the result


@dataclass(frozen=True)
class Resumed:
    """The step at which a tracker continues, and the address of its run."""

    first: int  # the step to write next: all before it are there
    destination: str  # folder or URL


class Tracker(Protocol):
    """One tool, for one run. An exception is reported once; later a new tracker tries again."""

    def begin(self, info: RunInfo) -> Resumed:
        """Open the run in the tool, or go on with the one that has this identity, and return what it has got.

        Args:
            info: identity, settings and goals of the run.
        """
        ...

    def log(self, steps: Sequence[LoggedStep]) -> None:
        """Write steps, with ascending numbers, all of them later than what was written before.

        Args:
            steps: with ascending numbers.
        """
        ...

    def end(self, ending: RunResult) -> None:
        """Write the final results and close.

        Args:
            ending: results, and how the session ended.
        """
        ...
