"""The metrics that trackers write, computed from the archive: a step per candidate, in the order of their numbers.

    score/<objective>, stderr/<objective>      of this candidate, in the metric's units
    best/<objective>                           of the best candidate so far (highest weighted mean)
    overall/candidate, overall/best            weighted mean of fitness; the best's with overall/best_low and _high
    front/size, front/hypervolume              incumbent front; the volume above the worst parent
    search/failed                              candidates so far that failed
    search/seconds                             active time when the candidate was finished
    search/candidates_per_hour, search/busy_share     over the whole run, at the newest step of each look
    holdout/<objective>, holdout/stderr/<objective>, holdout/gain, _low, _high     of the winner, at the end

A step is written when all candidates before it are done too, so that steps ascend and `best` means the same as in
`run.tables.history()`; under an asynchronous controller a slow candidate holds back those after it until it is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import yaml

from evomerge.archive import Archive
from evomerge.candidate import Evaluation
from evomerge.errors import EvomergeError
from evomerge.reports.trackers._values import LAST_STEP, MARKER, MOST_ROWS, LoggedStep, Plain, RunInfo, RunResult
from evomerge.runs import Run, plain


class RunMetrics:
    """Reads one run for one tracker; every call looks at the archive afresh."""

    def __init__(self, run: Run, identity: str) -> None:
        self._run = run
        self._identity = identity

    def info(self) -> RunInfo:
        """Return the run's identity, settings and goals."""
        run, config = self._run, self._run.config
        method = config.merge.get("merge_method")
        goals: dict[str, Literal["maximize", "minimize"]] = {}
        for objective in run.objectives:
            goals |= {f"score/{objective.name}": objective.goal, f"best/{objective.name}": objective.goal}
        goals |= {"overall/candidate": "maximize", "overall/best": "maximize", "front/hypervolume": "maximize"}
        tags = {
            "evomerge": config.versions["evomerge"],
            "controller": config.controller.name,
            "method": method if isinstance(method, str) else "searched",
        }
        return RunInfo(
            self._identity,
            run.folder.resolve().name,
            run.folder,
            self._config(),
            tags,
            config.search_text,
            goals,
        )

    def steps(self, first: int, *, final: bool = False) -> list[LoggedStep]:
        """Return the steps from `first` on that can be written now, in ascending order.

        Args:
            first: number of the candidate that comes next.
            final: the search is over: candidates behind a gap will not be waited for.
        """
        with Archive.open(self._run.folder) as archive:
            observed = {e.candidate: e.time for e in archive.events("observed") if e.candidate is not None}
        ready = [number for number in sorted(observed) if first <= number <= LAST_STEP]
        if not final:
            ready = [number for index, number in enumerate(ready) if number == first + index]
        if not ready:
            return []
        evaluations = self._run.data.evaluations()
        history = {int(row["candidate"]): row for row in self._run.tables.history().to_dict(orient="records")}
        failed = sorted(n for n, evaluation in evaluations.items() if evaluation.failure is not None)
        with Archive.open(self._run.folder) as archive:
            genotypes = {c.number: c.genotype for c in archive.candidates("search", first=ready[0])}
        use = self._run.data.usage()
        steps, before, behind = [], 0, max((n for n in history if n < ready[0]), default=None)
        for number in ready:
            while before < len(failed) and failed[before] <= number:
                before += 1
            row = history.get(number)
            known = row if row is not None else None if behind is None else history[behind]
            behind = number if row is not None else behind
            metrics = self._metrics(number, evaluations, row, known)
            if number == ready[-1]:
                now = {"candidates_per_hour": use["candidates_per_hour"], "busy_share": use["busy_share"]}
                metrics |= {f"search/{key}": float(value) for key, value in now.items() if value is not None}
            metrics[MARKER] = float(before)
            finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
            steps.append(LoggedStep(number, observed[number], finite, self._genes(genotypes[number])))
        return steps

    def ending(self, state: Literal["finished", "interrupted", "failed"], time: float) -> RunResult:
        """Return the final results: the winner on held-out items, the summary, and the table of candidates."""
        best = self._run.best()
        metrics: dict[str, float] = {}
        for final in self._run.finals():
            if best is not None and final.number == best.number:
                for name, score in final.scores.items():
                    metrics |= {f"holdout/{name}": score.value, f"holdout/stderr/{name}": score.stderr}
                if final.gain is not None:
                    gain = final.gain
                    metrics |= {
                        "holdout/gain": gain.value,
                        "holdout/gain_low": gain.low,
                        "holdout/gain_high": gain.high,
                    }
        table = self._run.trials().head(MOST_ROWS)
        rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        return RunResult(state, time, finite, self._run.summary(), ([str(name) for name in table.columns], rows))

    def _metrics(
        self,
        number: int,
        evaluations: Mapping[int, Evaluation],
        row: Mapping[Any, Any] | None,
        known: Mapping[Any, Any] | None,
    ) -> dict[str, float]:
        """Return a candidate's metrics: its own from its row of the history, the search's from the last row known."""
        metrics: dict[str, float] = {}
        if row is not None:
            for name, score in evaluations[number].scores.items():
                metrics |= {f"score/{name}": score.value, f"stderr/{name}": score.stderr}
            metrics |= {"overall/candidate": row["overall"], "search/seconds": row["seconds"]}
        if known is not None:
            incumbent = evaluations[int(known["incumbent"])]
            metrics |= {f"best/{name}": score.value for name, score in incumbent.scores.items()}
            metrics |= {f"overall/{key}": known[key] for key in ("best", "best_low", "best_high")}
            metrics |= {"front/size": float(known["front_size"]), "front/hypervolume": known["hypervolume"]}
        return metrics

    def _genes(self, genotype: tuple[float, ...]) -> dict[str, Plain]:
        found = self._run.space.phenotype(np.array(genotype))  # without those that the chosen method leaves unused
        return {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str))}

    def _config(self) -> dict[str, Plain]:
        """Return the search file's settings by dotted name, and what was decided from it."""
        config = self._run.config
        try:
            given = yaml.safe_load(config.search_text) or {}
        except yaml.YAMLError as error:
            raise EvomergeError(f"the search file that the run keeps is no YAML: {error}") from error
        found: dict[str, Plain] = dict(_flat(given if isinstance(given, Mapping) else {}, ""))
        found |= {
            "seed": config.seed,
            "genes": self._run.space.dimension,
            "controller.name": config.controller.name,
            "models": ", ".join(config.models.names),
            "evomerge": config.versions["evomerge"],
        }
        limits = {f"budget.{key}": value for key, value in self._run.data.budget().items() if value is not None}
        return {**found, **limits}


def _cell(value: object) -> Plain | None:
    found = plain(value)
    return found if found is None or isinstance(found, (bool, int, float, str)) else str(found)


def _flat(value: Any, name: str) -> dict[str, Plain]:
    """Return nested settings by dotted names; lists and {search: ...} markers as the text that YAML has for them.

    >>> _flat({"a": {"b": 1, "c": [1, 2]}, "d": None}, "")
    {'a.b': 1, 'a.c': '[1, 2]'}
    """
    if isinstance(value, Mapping) and "search" not in value:
        found: dict[str, Plain] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{name}.{key}" if name else str(key))
        return found
    if value is None:
        return {}
    if isinstance(value, (bool, int, float, str)):
        return {name: value}
    return {name: yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()}
