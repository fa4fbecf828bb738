"""What every column of every frame means, with its unit: the one place from which docstrings, docs and tests are fed.

    from evomerge.runs import describe, markdown
    describe("trials")      # a frame: column, type, unit, meaning
    markdown()              # the reference page

In a column's name, <objective> stands for each objective's name and <gene> for each gene's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from evomerge.errors import InputError, near

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """One column of a frame."""

    name: str
    type: str  # integer, number, text, true/false, time, mapping
    unit: str  # '' where it has none
    meaning: str  # one phrase


_METRIC = "the metric's own"
_NUMBER = Column("candidate", "integer", "", "number of the candidate; parents are -1 (the base), -2, ...")
_SCORE = Column("score.<objective>", "number", _METRIC, "estimate over the items of the split; missing after a failure")
_STDERR = Column("stderr.<objective>", "number", _METRIC, "standard error of that score")
_ITEMS = Column("items.<objective>", "integer", "items", "number of items of the score; 0 without a score")
_SHARE = "fraction"
_SECONDS = "seconds"

FRAMES: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "trials": (
            _NUMBER,
            Column("status", "text", "", "pending, running, done or failed"),
            Column("failure", "text", "", "failure message; missing without a failure"),
            Column("seconds", "number", _SECONDS, "worker's time; 0 where a duplicate's answers were reused"),
            Column("worker", "text", "", "name of its worker; 'as N' where candidate N has the same recipe"),
            Column("digest", "text", "", "SHA-256 of the recipe, 64 hexadecimal digits"),
            _SCORE,
            _STDERR,
            _ITEMS,
            Column("gene.<gene>", "number or text", "the parameter's own", "value; missing if inactive"),
            Column("truncated.<objective>", "number", _SHARE, "fraction of answers cut off by the token limit"),
            Column(
                "unextracted.<objective>", "number", _SHARE, "fraction of answers that the task's filter cannot parse"
            ),
            Column("shortened.<objective>", "number", _SHARE, "fraction of prompts truncated at their beginning"),
            Column("staleness", "integer", "updates", "controller updates between proposal and observation"),
        ),
        "items": (
            _NUMBER,
            Column("task", "text", "", "the item's task"),
            Column("item", "text", "", "the document's id"),
            Column("metric", "text", "", "metric, with its filter if any"),
            Column("value", "number", _METRIC, "response: 0 (wrong) or 1 (right), or the metric's value on this item"),
            Column("answer", "text", "", "the model's answer, shortened"),
        ),
        "events": (
            Column("seq", "integer", "", "order of recording"),
            Column("time", "time", "UTC", "the driver's clock; informational only"),
            Column("seconds", "number", _SECONDS, "active time of the run, over all its sessions"),
            Column("kind", "text", "", "asked, submitted, answered, finished, observed, retry, duplicate, ..."),
            Column("candidate", "integer", "", "the candidate concerned; missing where there is none"),
            Column("payload", "mapping", "", "details of the event"),
        ),
        "parents": (_NUMBER, Column("name", "text", "", "the parent's name"), _SCORE, _STDERR, _ITEMS),
        "failures": (
            _NUMBER,
            Column("kind", "text", "", "infrastructure (retried), candidate, or configuration"),
            Column("message", "text", "", "one sentence"),
            Column("worker", "text", "", "its worker"),
            Column("seconds", "number", _SECONDS, "time until the failure"),
            Column("traceback", "text", "", "traceback"),
        ),
        "front": (
            _NUMBER,
            Column("measured", "true/false", "", "false for a predicted point"),
            _SCORE,
            _STDERR,
        ),
        "history": (
            _NUMBER,
            Column("seconds", "number", _SECONDS, "active time of the run when the candidate was finished"),
            Column("overall", "number", "fitness", "weighted mean over objectives, turned so that higher is better"),
            Column("stderr", "number", "fitness", "its standard error"),
            Column("incumbent", "integer", "", "incumbent"),
            Column("best", "number", "fitness", "its overall fitness"),
            Column("best_low", "number", "fitness", "lower end of its 95% interval"),
            Column("best_high", "number", "fitness", "upper end; biased upward by selection"),
            Column("front_size", "integer", "candidates", "size of the front"),
            Column("hypervolume", "number", "product of the units", "hypervolume of the front, above the worst parent"),
        ),
        "coefficients": (
            Column("parameter", "text", "", "parameter of the merge method: weight, density, lambda, ..."),
            Column("model", "text", "", "the source's short name; '' for parameters of the whole merge"),
            Column("layer", "integer", "", "layer of the merged model, from 0; -1: embedding, final norm and head"),
            Column("module", "text", "", "part of a layer: all, attention, mlp, other, or a filter"),
            Column("value", "number or text", "the parameter's own", "value after filters and gradients"),
        ),
        "comparison": (
            Column("objective", "text", "", "its name"),
            Column("items", "integer", "items", "items answered by both models"),
            Column("score.a", "number", _METRIC, "mean of a over these items (perplexities: nats per token)"),
            Column("score.b", "number", _METRIC, "mean of b"),
            Column("difference", "number", _METRIC, "a minus b, turned so that positive says that a is better"),
            Column("low", "number", _METRIC, "lower end of its paired interval"),
            Column("high", "number", _METRIC, "upper end"),
            Column("p", "number", "", "two-sided p value of no difference"),
            Column("a_better", "integer", "items", "items on which a is better"),
            Column("b_better", "integer", "items", "items on which b is better"),
            Column("equal", "integer", "items", "items with equal responses"),
        ),
        "comparison.items": (
            Column("objective", "text", "", "its name"),
            Column("task", "text", "", "task of the item; on held-out items the substitute task"),
            Column("item", "text", "", "the document's id"),
            Column("value.a", "number", _METRIC, "response of a: 0 (wrong) or 1 (right), or the metric's value"),
            Column("value.b", "number", _METRIC, "b's answer"),
            Column("difference", "number", _METRIC, "a minus b, turned so that positive says that a is better"),
            Column("better", "text", "", "a, b or equal"),
            Column("answer.a", "text", "", "answer of a, shortened"),
            Column("answer.b", "text", "", "answer of b, shortened"),
        ),
        "utilisation": (
            Column("worker", "text", "", "its name"),
            Column("node", "text", "", "node and device of the worker"),
            Column("gpus", "number", "GPUs", "GPUs of the worker"),
            Column("done", "integer", "jobs", "evaluations finished"),
            Column("failed", "integer", "jobs", "evaluations failed"),
            Column("busy", "number", _SHARE, "busy fraction of its lifetime"),
            Column(
                "seconds.<stage>",
                "number",
                _SECONDS,
                "present, busy, wait, lost, and by stage load, merge, prefill, decode, ...",
            ),
        ),
        "estimates": (
            _NUMBER,
            Column("objective", "text", "", "its name"),
            Column("estimate", "number", _METRIC, "score estimated from few items"),
            Column("stderr", "number", _METRIC, "its standard error"),
            Column("low", "number", _METRIC, "lower end of its 95% interval, for the mean over all search items"),
            Column("high", "number", _METRIC, "upper end"),
            Column("full", "number", _METRIC, "full score, for a candidate with all responses; else missing"),
            Column("items", "integer", "items", "number of items of the estimate"),
            Column("method", "text", "", "estimator"),
            Column("beyond", "true/false", "", "outside the score range of the bank's models: expect bias"),
        ),
        "hypervolume": (
            _NUMBER,
            Column("seconds", "number", _SECONDS, "active time of the run when the candidate was finished"),
            Column("hypervolume", "number", "product of the units", "hypervolume of the front, above the worst parent"),
        ),
        "importance": (
            Column("gene", "text", "", "its name"),
            Column("objective", "text", "", "its name"),
            Column(
                "alone",
                "number",
                _SHARE,
                ("first-order Sobol index: fraction of the surrogate's variance due to the gene alone"),
            ),
            Column("involved", "number", _SHARE, "total Sobol index: fraction of the variance that involves the gene"),
            Column("rank_correlation", "number", "-1 to 1", "Spearman's, with the fitness; above 0: more is better"),
            Column(
                "partial_correlation",
                "number",
                "-1 to 1",
                ("partial rank correlation, controlling for all other genes linearly"),
            ),
            Column("share_of_variance", "number", _SHARE, "fraction of fitness variance explained by the gene"),
            Column("left_out_r2", "number", "", "cross-validated R² of the surrogate; below 0.5: unreliable"),
        ),
        "landscape": (
            Column("kind", "text", "", "slice (along a gene) or line (to another candidate)"),
            Column("line", "text", "", "gene of the slice, or target of the line"),
            Column("position", "number", "0 to 1", "position on the line; on a slice the gene's coordinate"),
            Column("value", "number or text", "the parameter's own", "value of the gene; missing on lines"),
            Column("objective", "text", "", "its name"),
            Column("score", "number", _METRIC, "prediction of the surrogate"),
            Column("low", "number", _METRIC, "lower end of its 90% interval"),
            Column("high", "number", _METRIC, "upper end"),
            Column("extrapolates", "true/false", "", "extrapolation beyond all candidates: unreliable"),
        ),
        "work": (
            _NUMBER,
            Column("split", "text", "", "split of the items: search or holdout"),
            Column("worker", "text", "", "its name"),
            Column("start", "number", _SECONDS, "active time of the run when the worker began"),
            Column("end", "number", _SECONDS, "active time of the run when the result was recorded"),
            Column("failed", "true/false", "", "true for a failure"),
        ),
        "generalisation": (
            _NUMBER,
            Column("name", "text", "", "'candidate 17' or 'parent add'"),
            Column("kind", "text", "", "candidate or parent"),
            Column("objective", "text", "", "its name, or 'mean' over the objectives"),
            Column("search", "number", _METRIC, "score on the search items"),
            Column("search_stderr", "number", _METRIC, "its standard error"),
            Column("holdout", "number", _METRIC, "score on the held-out items"),
            Column("holdout_stderr", "number", _METRIC, "its standard error"),
        ),
    }
)


def describe(frame: str) -> pd.DataFrame:
    """Return one row per column of a frame: column, type, unit, meaning.

    Args:
        frame: as in 'trials', one of `FRAMES`: `run.front()`, `run.compare(a, b).table()`, all others of `run.tables`.

    Raises:
        InputError: there is no frame of this name.
    """
    import pandas as pd

    if frame not in FRAMES:
        raise InputError(f"unknown frame {frame!r}. {near(frame, FRAMES)}")
    rows = [(column.name, column.type, column.unit, column.meaning) for column in FRAMES[frame]]
    return pd.DataFrame(rows, columns=["column", "type", "unit", "meaning"])


def markdown() -> str:
    """Return the documentation of all frames as Markdown tables."""
    lines = []
    for name, columns in FRAMES.items():
        lines += [f"### `{name}`", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} |" for c in columns]
        lines.append("")
    return "\n".join(lines)
