"""Response tables from lm-eval's sample logs (`samples_<task>_<time>.jsonl`, written with `--log_samples`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evomerge.errors import InputError, listed, near
from evomerge.irt._table import ResponseTable, item_id


def read_lm_eval_samples(logs: Mapping[str, str | Path], metric: str, filter: str | None = None) -> ResponseTable:
    """Return the response table of several models' sample logs of one task.

    Items are identified by lm-eval's hash of the document, or by the hash of the document's text if a log has none,
    never by position. Items that a model did not answer are missing in its row.

    Args:
        logs: model name -> path of its `.jsonl`.
        metric: name of the per-item value, e.g. `acc` or `exact_match`; values in [0, 1].
        filter: name of the task's answer filter; None if the logs hold a single one.

    Raises:
        InputError: unreadable log, a sample without the metric, or one document twice in a log.
    """
    answers: dict[str, dict[str, float]] = {}
    order: dict[str, None] = {}  # an ordered set: columns in the order of first appearance
    for model, path in logs.items():
        rows = _read(Path(path), metric, filter)
        answers[model] = rows
        order.update(dict.fromkeys(rows))
    if not order:
        raise InputError("the sample logs hold no samples; write them with lm_eval --log_samples")
    items = tuple(order)
    values = np.array([[rows.get(item, np.nan) for item in items] for rows in answers.values()])
    return ResponseTable(values, tuple(answers), items)


def _read(path: Path, metric: str, filter: str | None) -> dict[str, float]:
    try:
        samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"sample log {str(path)!r} is not readable JSON lines ({error})") from error
    rows: dict[str, float] = {}
    if filter is not None:
        known = sorted({str(sample.get("filter")) for sample in samples if isinstance(sample, dict)})
        if filter not in known:
            raise InputError(f"{path}: no filter {filter!r}. {near(filter, known)}")
    for number, sample in enumerate(samples, start=1):
        # a task with several filters writes one line per document and filter
        if filter is not None and isinstance(sample, dict) and str(sample.get("filter")) != filter:
            continue
        if not isinstance(sample, dict) or metric not in sample:
            had = listed(sample) if isinstance(sample, dict) else type(sample).__name__
            raise InputError(f"{path}, line {number}: no metric {metric!r}; it has {had}")
        # sort_keys: the hash must not depend on the order of a document's fields
        item = str(sample.get("doc_hash") or item_id(json.dumps(sample.get("doc"), sort_keys=True, ensure_ascii=False)))
        if item in rows:  # averaging duplicates would hide a log with several filters
            raise InputError(f"{path}, line {number}: document {item!r} occurs twice; name one filter (--filter)")
        try:
            rows[item] = float(sample[metric])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: metric {metric!r} is {sample[metric]!r}, not a number") from error
    return rows
