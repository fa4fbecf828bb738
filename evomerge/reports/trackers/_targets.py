"""Targets of `--log`: a tool and a destination, as in `tensorboard`, `wandb:team/project`, `mlflow:sqlite:///runs.db`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from evomerge.errors import ExtraMissing, InputError, near
from evomerge.reports.trackers._values import Tracker

# tool -> packages that it needs, all of them in the extra `log`
TOOLS = {"tensorboard": ("tensorboardX", "tensorboard"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
NONE = "none"  # `resume --log none`: stop logging
_PASSWORD = re.compile(r"//[^/@\s]*:[^/@\s]+@")


@dataclass(frozen=True)
class TrackerTarget:
    """One tool to log to."""

    tool: str
    destination: str = ""  # '': the tool's default

    @property
    def text(self) -> str:
        """The target as `--log` writes it."""
        return f"{self.tool}:{self.destination}" if self.destination else self.tool

    def require(self) -> None:
        """Raise ExtraMissing where a package is not installed; imports nothing."""
        for package in TOOLS[self.tool]:
            if find_spec(package) is None:
                raise ExtraMissing(package, "log")

    def tracker(self) -> Tracker:
        """Return a new tracker.

        Raises:
            ExtraMissing: the tool is not installed.
        """
        self.require()
        if self.tool == "tensorboard":
            from evomerge.reports.trackers._tensorboard import TensorBoardLog

            return TensorBoardLog(self.destination)
        if self.tool == "wandb":
            from evomerge.reports.trackers._wandb import WandbLog

            return WandbLog(self.destination)
        from evomerge.reports.trackers._mlflow import MlflowLog

        return MlflowLog(self.destination)


def target_of(text: str) -> TrackerTarget:
    """Return the target that a text names, as `TrackerTarget.text` writes it."""
    tool, _, destination = text.partition(":")
    return TrackerTarget(tool, destination)


def targets_of(texts: Sequence[str]) -> tuple[TrackerTarget, ...]:
    """Return the targets that `--log` names, each once; 'none' stands for no target at all.

    Raises:
        InputError: a tool is unknown, or an address holds a password: addresses are kept in the run folder.
        ExtraMissing: the tool is not installed.
    """
    targets = []
    for text in dict.fromkeys([texts] if isinstance(texts, str) else texts):
        target = target_of(text)
        tool, destination = target.tool, target.destination
        if text == NONE:
            continue
        if tool not in TOOLS:
            raise InputError(f"--log {text!r}: unknown tool {tool!r}. {near(tool, [*TOOLS, NONE])}")
        if _PASSWORD.search(destination):
            raise InputError(
                f"--log {tool}: the address holds a password, which would be kept in the run folder; set "
                "MLFLOW_TRACKING_URI (or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD) and give --log mlflow"
            )
        target.require()
        targets.append(target)
    return tuple(targets)
