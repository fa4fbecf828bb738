"""MLflow: one run per search with a step per candidate, and a nested run per candidate with its genes.

The only place that imports mlflow. MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and the rest of its environment mean
what they always do.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evomerge.reports.trackers._values import MARKER, MOST_TRIALS, LoggedStep, Plain, Resumed, RunInfo, RunResult

if TYPE_CHECKING:
    from mlflow.entities import Metric

EXPERIMENT = "evomerge"  # default; MLFLOW_EXPERIMENT_NAME names another
IDENTITY, NUMBER = "evomerge.id", "evomerge.candidate"  # tags by which runs are found again
MOST_METRICS, MOST_PARAMS = 1000, 100  # MLflow's limits per call
LONGEST = 500  # characters of a parameter that every store takes
_FORBIDDEN = re.compile(r"[^\w\-. :/]")
_STATES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowLog:
    """A run of MLflow with the identity of ours as a tag; `destination` is a tracking URI, '' MLflow's own default."""

    def __init__(self, destination: str = "") -> None:
        self._destination = destination

    def begin(self, info: RunInfo) -> Resumed:
        """Open the run, or go on with the one that has the identity's tag."""
        from mlflow.tracking import MlflowClient

        with _quiet():  # the first request may create a database
            self._client: Any = MlflowClient(tracking_uri=self._destination or None)
            self._experiment = self._experiment_id()
        found = self._search(f"tags.`{IDENTITY}` = '{info.identity}'")
        if not found:
            tags = {IDENTITY: info.identity, **{f"evomerge.{key}": value for key, value in info.tags.items()}}
            self._id = self._client.create_run(self._experiment, tags=tags, run_name=info.name).info.run_id
            for params in _chunks(_params(info.config), MOST_PARAMS):
                self._client.log_batch(self._id, params=params)
            self._client.log_text(self._id, info.search_file, "search_file.yaml")
            first = 0
        else:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            history = self._client.get_metric_history(self._id, MARKER)
            first = max((entry.step for entry in history), default=-1) + 1
        children = self._search(f"tags.`mlflow.parentRunId` = '{self._id}'")
        self._known = {child.data.tags.get(NUMBER) for child in children}
        uri = self._client.tracking_uri
        return Resumed(first, f"{uri}, experiment {self._experiment}, run {self._id}")

    def log(self, steps: Sequence[LoggedStep]) -> None:
        """Write the metrics of all steps in few requests, and the nested runs."""
        metrics = [metric for step in steps for metric in _metrics(step.metrics, step.time, step.number)]
        for step in steps:  # written before the marker, so that an interrupted session does not write them twice
            if step.number < MOST_TRIALS and str(step.number) not in self._known:
                self._nested(step)
        for some in _chunks(metrics, MOST_METRICS):
            self._client.log_batch(self._id, metrics=some)

    def end(self, ending: RunResult) -> None:
        """Write the final results and the summary, and set the run's status."""
        self._client.log_batch(self._id, metrics=list(_metrics(ending.metrics, ending.time, 0)))
        self._client.log_text(self._id, ending.text, "summary.txt")
        self._client.set_terminated(self._id, _STATES[ending.state])

    def _nested(self, step: LoggedStep) -> None:
        from mlflow.entities import RunTag

        start = int(1000 * step.time)
        tags = {"mlflow.parentRunId": self._id, NUMBER: str(step.number)}
        run = self._client.create_run(self._experiment, start, tags, f"candidate {step.number}")
        metrics = list(_metrics(step.scores, step.time, step.number))
        params = list(_params(step.genes))
        self._client.log_batch(run.info.run_id, metrics, params[:MOST_PARAMS], [RunTag("evomerge.kind", "candidate")])
        for some in _chunks(params[MOST_PARAMS:], MOST_PARAMS):
            self._client.log_batch(run.info.run_id, params=some)
        self._client.set_terminated(run.info.run_id, "FINISHED" if step.scores else "FAILED", start)
        self._known.add(str(step.number))

    def _experiment_id(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _search(self, condition: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow from logging, into the search's progress, that it makes tables."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _metrics(values: Mapping[str, float], time: float, step: int) -> Iterator[Metric]:
    from mlflow.entities import Metric

    for key, value in values.items():
        yield Metric(_name(key), value, int(1000 * time), step)


def _params(values: Mapping[str, Plain]) -> Iterator[Any]:
    from mlflow.entities import Param

    for key, value in values.items():
        yield Param(_name(key), str(value)[:LONGEST])


def _name(text: str) -> str:
    """Return a key that MLflow takes: other characters become underscores.

    >>> _name("score/add:exact_match,strict")
    'score/add:exact_match_strict'
    """
    return _FORBIDDEN.sub("_", text)


def _chunks(values: Any, size: int) -> Iterator[list[Any]]:
    everything = list(values)
    for start in range(0, len(everything), size):
        yield everything[start : start + size]
