"""Kinds of objectives beside lm-eval's tasks: one row each, which search files, workers, races and reports read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from evomerge.errors import InputError, near
from evomerge.option_fields import NoOptions

_TASK = "task"  # the kind of an lm-eval task, which has no row


@dataclass(frozen=True)
class MetricInfo:
    """All that is known of a kind of objective. Functions are callables, or 'module:function', imported when used."""

    kind: str  # its key in an entry of `objectives`; of a size, its name under `measure`
    metric: str  # name of its responses' metric
    # (measure, items, documents, model interface) -> responses, see `scoring.measures`
    ask: Callable[..., Any] | str  # str | imported when used: a search file can be checked without torch
    goal: Literal["maximize", "minimize"] = "maximize"  # where the search file gives none
    options: type = (
        NoOptions  # frozen dataclass of its settings; the search file has forms of its own for built-in kinds
    )
    # settings -> documents, each a mapping of text and numbers; None: the prompts of the setting `prompts`, or
    # numbered ones, as many as the setting `items`, or one
    documents: Callable[..., Any] | str | None = None
    version: Callable[..., Any] | str | None = None  # settings -> what else can change an answer, as JSON-ready data
    by_item: bool = False  # its score is the mean of its items' responses, so a race can ask some of them
    cacheable: bool = False  # its responses depend on the model's weights and the documents alone
    size: bool = False  # a property of the model (layers, seconds), in units of its own: see `objectives`
    files: tuple[str, ...] = ()  # settings that name files, relative to the search file
    short: str | None = None  # the setting that a single text stands for


def register_metric(info: MetricInfo) -> None:
    """Make a kind of objective known by its name, in this process and in workers that get a measure of it.

    Raises:
        InputError: another kind has the name.
    """
    if (
        info.kind == _TASK or METRICS.get(info.kind, info) != info
    ):  # the same row again is fine: modules can be reloaded
        raise InputError(f"metric {info.kind!r} is registered already; choose another name")
    METRICS[info.kind] = info


def metric_info(kind: str) -> MetricInfo:
    """Return the row of a kind.

    Raises:
        InputError: none has this name.
    """
    if kind not in METRICS:
        raise InputError(f"unknown metric {kind!r}. {near(kind, METRICS)}")
    return METRICS[kind]


def is_size(kind: str) -> bool:
    """Return whether a kind of objective is a size of the model; False for a kind that is unknown here."""
    return kind in METRICS and METRICS[kind].size  # no error: an archive may name a metric of another installation


def is_by_item(kind: str) -> bool:
    """Return whether an objective's score is the mean over its items; False for a kind that is unknown here."""
    return kind == _TASK or (kind in METRICS and METRICS[kind].by_item)


def sizes() -> tuple[str, ...]:
    """Return the kinds that are sizes of the model."""
    return tuple(kind for kind, info in METRICS.items() if info.size)


def function_of(function: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return a function of a row, imported where it is given as 'module:function'."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _size(kind: str) -> MetricInfo:
    return MetricInfo(kind, kind, f"{_HERE}._sizes:ask", "minimize", size=True)


_HERE = "evomerge.scoring.metrics"
_ROWS = (
    MetricInfo(
        "perplexity", "perplexity", f"{_HERE}._perplexity:ask", "minimize", documents=f"{_HERE}._perplexity:documents",
        cacheable=True, files=("file",), short="file",
    ),
    MetricInfo(
        "python", "score", f"{_HERE}._python_function:ask", version=f"{_HERE}._python_function:version",
        files=("prompts",), short="function",
    ),
    MetricInfo(
        "phrases", "log_likelihood", f"{_HERE}._text_metrics:ask_phrases",
        documents=f"{_HERE}._text_metrics:phrase_documents", cacheable=True,
    ),
    MetricInfo(
        "response_length", "tokens", f"{_HERE}._text_metrics:ask_lengths", "minimize", by_item=True, cacheable=True,
        files=("prompts",), short="prompts",
    ),
    MetricInfo(
        "judge", "verdict", f"{_HERE}._llm_judge:ask", version=f"{_HERE}._llm_judge:version", files=("prompts",)
    ),
    _size("layers"),
    _size("parameters"),
    _size("seconds"),
)  # fmt: skip
METRICS: dict[str, MetricInfo] = {row.kind: row for row in _ROWS}
