"""Where calibration answers come from: response tables, lm-eval's sample logs, run folders, imported parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive import FILE_NAME
from evomerge.errors import InputError, listed, near
from evomerge.irt import (
    Bank,
    ResponseTable,
    bank_from_parameters,
    calibrate_table,
    import_tiny_benchmarks,
    read_lm_eval_samples,
    read_table,
    writable,
    write_bank,
)
from evomerge.runs import Run, open_run, response_table

# lm-eval writes samples_<task>_<time>.jsonl; its times begin with the year.
_LOG = re.compile(r"samples_(?P<task>.+?)(_(?P<time>\d{4}-\d\d-\d\dT[\d.\-:]+))?\.jsonl$")


def calibrate(
    sources: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    dims: str | int = "auto",
    seed: int = 0,
    task: str | None = None,
    metric: str | None = None,
    filter: str | None = None,
) -> Bank:
    """Return the item bank of some answers, and write it where `out` is given.

    Args:
        sources: one response table (`.npz`, `.csv`, `.parquet`); or an `.npz` of item parameters `A`, `B` and `items`
            as tinyBenchmarks stores them; or run folders; or lm-eval's sample logs and folders of them.
        out: `.json` or `.parquet`, must not exist.
        dims: ability dimensions, or `auto`.
        seed: of the held-out choice of dimensions.
        task: whose answers, where run folders or logs hold several; of a run, the name of the objective.
        metric: of sample logs, where a sample holds several.
        filter: of sample logs, where the task has several.

    Raises:
        InputError: a source cannot be used, or its kinds are mixed; says why.

    >>> import numpy as np
    >>> from evomerge import calibrate
    >>> np.savez("tiny.npz", A=np.ones((1, 2, 3)), B=np.zeros((1, 1, 3)), items=np.array(["x", "y", "z"]))
    >>> bank = calibrate(["tiny.npz"])
    >>> bank.items, bank.parameters.d
    (('x', 'y', 'z'), 2)
    """
    if out is not None:
        writable(out)
    paths = [Path(source) for source in sources]
    kinds = {_kind(path) for path in paths}
    if len(kinds) != 1 or (kinds & {"table", "parameters"} and len(paths) > 1):
        raise InputError(
            f"give one response table, or run folders only, or sample logs only; got {listed(str(p) for p in paths)} "
            f"({', '.join(sorted(kinds))})"
        )
    kind = kinds.pop()
    provenance: dict[str, Any] = {"source": ", ".join(path.name for path in paths)}
    if kind == "parameters":
        bank = _imported(paths[0], seed)
    else:
        if kind == "run":
            table, facts = _of_runs([open_run(path) for path in paths], task)
        elif kind == "logs":
            table, facts = _of_logs(paths, task, metric, filter)
        else:
            table, facts = read_table(paths[0]), {}
        provenance |= facts
        bank = calibrate_table(table, dims, seed)
    bank = replace(bank, provenance={**bank.provenance, **provenance})
    if out is not None:
        write_bank(bank, out)
    return bank


def _kind(path: Path) -> str:
    if path.is_dir():
        if (path / FILE_NAME).is_file():
            return "run"
        if any(path.rglob("samples_*.jsonl")):
            return "logs"
        raise InputError(f"{path} holds neither a run ({FILE_NAME}) nor lm-eval's sample logs (samples_*.jsonl)")
    if path.suffix == ".jsonl":
        return "logs"
    if path.suffix == ".npz" and path.is_file():
        try:
            with np.load(path, allow_pickle=False) as held:
                if {"A", "B"} <= set(held.files):
                    return "parameters"
        except (ValueError, OSError, EOFError):  # read_table says what is wrong with it
            return "table"
    return "table"


def _of_runs(runs: Sequence[Run], wanted: str | None) -> tuple[ResponseTable, dict[str, Any]]:
    """Return the answers in some runs of one objective, and what they are about."""
    names = [objective.name for objective in runs[0].objectives if objective.kind == "task"]
    if wanted is None and len(names) != 1:
        raise InputError(f"{runs[0].folder} has several objectives; choose one with --task: {', '.join(names)}")
    name = wanted if wanted is not None else names[0]
    tables, facts = [], set[tuple[str, str]]()
    for run in runs:
        objective = next((o for o in run.objectives if o.name == name and o.kind == "task"), None)
        if objective is None:
            raise InputError(f"{run.folder} has no task objective {name!r}. {near(name, names)}")
        prefix = f"{run.folder.name}: " if len(runs) > 1 else ""
        tables.append(response_table(run.data, objective, prefix))
        facts.add((objective.task, objective.metric))
    if len(facts) != 1:
        raise InputError(f"objective {name!r} means different metrics in these runs: {sorted(facts)}")
    task, metric = facts.pop()
    return _joined(tables), {"task": task, "metric": metric}


def _of_logs(
    paths: Sequence[Path], task: str | None, metric: str | None, filter: str | None
) -> tuple[ResponseTable, dict[str, Any]]:
    """Return the answers in lm-eval's sample logs; the newest log of each model counts."""
    files = [file for path in paths for file in (sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path])]
    by_task: dict[str, dict[str, Path]] = {}
    for file in sorted(files, key=lambda file: file.name):
        found = _LOG.search(file.name)
        model = file.parent.name if found else file.stem
        by_task.setdefault(found["task"] if found else "", {})[model] = file
    if task is None and len(by_task) > 1:
        raise InputError(f"the logs are of several tasks; choose one with --task: {', '.join(sorted(by_task))}")
    chosen = task if task is not None else next(iter(by_task))
    if chosen not in by_task:
        raise InputError(f"no sample log of task {chosen!r}. {near(chosen, list(by_task))}")
    if metric is None:
        raise InputError("sample logs hold several numbers per answer; choose one with --metric, as in --metric acc")
    return read_lm_eval_samples(by_task[chosen], metric, filter), {"task": chosen, "metric": metric}


def _joined(tables: Sequence[ResponseTable]) -> ResponseTable:
    items = list(dict.fromkeys(item for table in tables for item in table.items))
    place = {item: column for column, item in enumerate(items)}
    rows = []
    for table in tables:
        wide = np.full((len(table.models), len(items)), np.nan)
        wide[:, [place[item] for item in table.items]] = table.responses
        rows.append(wide)
    return ResponseTable(np.concatenate(rows), tuple(m for t in tables for m in t.models), tuple(items))


def _imported(path: Path, seed: int) -> Bank:
    """Return the bank of tinyBenchmarks-style item parameters, whose calibration models are simulated from them."""
    with np.load(path, allow_pickle=False) as held:
        arrays: Mapping[str, Any] = {name: held[name] for name in held.files}
    if "items" not in arrays:
        raise InputError(
            f"{path}: needs 'items' beside 'A' and 'B': the hash of each item's text, in their order. The order of a "
            "leaderboard is not that of the data set, so items cannot be matched by place"
        )
    parameters, items = import_tiny_benchmarks(arrays["A"], arrays["B"], [str(item) for item in arrays["items"]])
    return bank_from_parameters(parameters, items, np.random.default_rng(seed))
