"""Weights & Biases: one run per search, a step per candidate. The only place that imports wandb.

WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and the rest of its environment mean what they always do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.reports.trackers._values import LoggedStep, Resumed, RunInfo, RunResult

PROJECT = "evomerge"  # default; `destination` or WANDB_PROJECT names another


class WandbLog:
    """A run of Weights & Biases with the identity of ours; its files are in wandb/ in the run folder."""

    def __init__(self, destination: str = "") -> None:
        self._entity, _, self._project = destination.rpartition("/")

    def begin(self, info: RunInfo) -> Resumed:
        """Open the run, or go on with it: by what the server knows, or offline by what was noted beside the files.

        Raises:
            InputError: there is no login, and the mode is not offline.
        """
        import wandb

        online = (wandb.setup().settings.mode or "online") == "online"
        # otherwise wandb would ask for a key, in the search's terminal
        if online and not wandb.login(prompt=False, verify=False):
            raise InputError("not logged in to Weights & Biases: run `wandb login`, or set WANDB_MODE=offline")
        self._note = info.folder / f"wandb-{info.identity}.json"
        self._run = wandb.init(
            entity=self._entity or None,
            project=self._project or os.environ.get("WANDB_PROJECT") or PROJECT,
            id=info.identity,
            name=info.name,
            dir=os.environ.get("WANDB_DIR") or str(info.folder),
            config=dict(info.config),
            tags=[f"{key}:{value}"[:64] for key, value in info.tags.items()],
            notes="evomerge search",
            job_type="search",
            resume="allow",
            # capturing the console would break the progress line
            settings=wandb.Settings(console="off", silent=True),
        )
        for key, goal in info.goals.items():
            self._run.define_metric(key, summary="max" if goal == "maximize" else "min")
        self._offline = bool(self._run.offline)
        first = _noted(self._note) if self._offline else int(self._run.step)
        destination = Path(self._run.dir).parent if self._offline else self._run.url
        return Resumed(first, str(destination))

    def log(self, steps: Sequence[LoggedStep]) -> None:
        """Write a row of history per candidate, its genes beside its scores."""
        for step in steps:
            genes = {f"gene/{name}": value for name, value in step.genes.items()}
            self._run.log({**step.metrics, **genes}, step=step.number, commit=True)
        if self._offline:  # a later session cannot ask a server how far this one came
            self._note.write_text(json.dumps({"next": steps[-1].number + 1}), encoding="utf-8")

    def end(self, ending: RunResult) -> None:
        """Write the final results into the summary and the candidates as a table, and close."""
        import wandb

        for key, value in ending.metrics.items():
            self._run.summary[key] = value
        self._run.summary["state"] = ending.state
        columns, rows = ending.trials
        if ending.state == "finished":
            # within the last row's step: a step of its own would stand where the next candidate's belongs
            self._run.summary["trials"] = wandb.Table(columns=list(columns), data=_columnwise(rows))
        self._run.finish(exit_code=0 if ending.state == "finished" else 1)


def _columnwise(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return rows for a table of Weights & Biases, which wants one type per column: whole numbers become decimals."""
    return [[float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in row] for row in rows]


def _noted(path: Path) -> int:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["next"])
    except FileNotFoundError:
        return 0
