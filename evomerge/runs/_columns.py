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
_SCORE = Column("score.<objective>", "number", _METRIC, "estimate over the split's items; missing where it failed")
_STDERR = Column("stderr.<objective>", "number", _METRIC, "standard error of that score")
_ITEMS = Column("items.<objective>", "integer", "items", "how many items the score rests on; 0 where there is none")
_SHARE = "share of 1"
_SECONDS = "seconds"

FRAMES: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "trials": (
            _NUMBER,
            Column("status", "text", "", "pending, running, done or failed"),
            Column("failure", "text", "", "why it failed; missing where it did not"),
            Column("seconds", "number", _SECONDS, "worker's time; 0 where a duplicate's answers were reused"),
            Column("worker", "text", "", "name of its worker; 'as N' where candidate N has the same recipe"),
            Column("digest", "text", "", "of the recipe: 64 hexadecimal digits over all that determines the weights"),
            _SCORE,
            _STDERR,
            _ITEMS,
            Column("gene.<gene>", "number or text", "the parameter's own", "value; missing where unused"),
            Column("truncated.<objective>", "number", _SHARE, "of the answers, cut off by the limit of tokens"),
            Column("unextracted.<objective>", "number", _SHARE, "of the answers, without one for the task's filter"),
            Column("shortened.<objective>", "number", _SHARE, "of the questions, cut at their beginning to fit"),
            Column("staleness", "integer", "updates", "of the controller between proposing and learning of it"),
        ),
        "items": (
            _NUMBER,
            Column("task", "text", "", "the item's task"),
            Column("item", "text", "", "the document's id"),
            Column("metric", "text", "", "what the value is; with the filter's name where it has one"),
            Column("value", "number", _METRIC, "0 or 1 for wrong and right, or the metric's value on this item"),
            Column("answer", "text", "", "what the model said or chose, shortened"),
        ),
        "events": (
            Column("seq", "integer", "", "order of recording"),
            Column("time", "time", "UTC", "clock of the driver; for people, nothing is computed from it"),
            Column("seconds", "number", _SECONDS, "active time of the run, over all its sessions"),
            Column("kind", "text", "", "asked, submitted, answered, finished, told, retry, same, resumed, ..."),
            Column("candidate", "integer", "", "the candidate concerned; missing where there is none"),
            Column("payload", "mapping", "", "the event's particulars"),
        ),
        "parents": (_NUMBER, Column("name", "text", "", "the parent's name"), _SCORE, _STDERR, _ITEMS),
        "failures": (
            _NUMBER,
            Column("kind", "text", "", "infrastructure (tried again elsewhere), candidate, or configuration"),
            Column("message", "text", "", "one sentence"),
            Column("worker", "text", "", "its worker"),
            Column("seconds", "number", _SECONDS, "until it failed"),
            Column("traceback", "text", "", "for the log"),
        ),
        "front": (
            _NUMBER,
            Column("measured", "true/false", "", "false where a point is only predicted"),
            _SCORE,
            _STDERR,
        ),
        "history": (
            _NUMBER,
            Column("seconds", "number", _SECONDS, "active time of the run when the candidate was finished"),
            Column("overall", "number", "fitness", "weighted mean over objectives, turned so that higher is better"),
            Column("stderr", "number", "fitness", "its standard error"),
            Column("incumbent", "integer", "", "the best candidate so far"),
            Column("best", "number", "fitness", "its overall fitness"),
            Column("best_low", "number", "fitness", "lower end of its 95% interval"),
            Column("best_high", "number", "fitness", "upper end; the best of many is flattered by luck"),
            Column("front_size", "integer", "candidates", "on the front so far"),
            Column("hypervolume", "number", "product of the units", "of the front so far, above the worst parent"),
        ),
        "coefficients": (
            Column("parameter", "text", "", "of the merge method: weight, density, lambda, ..."),
            Column("model", "text", "", "the source's short name; '' for parameters of the whole merge"),
            Column("layer", "integer", "", "of the merged model from 0; -1: embedding, final norm and head"),
            Column("module", "text", "", "part of a layer: all, attention, mlp, other, or a filter"),
            Column("value", "number or text", "the parameter's own", "after filters and gradients"),
        ),
        "comparison": (
            Column("objective", "text", "", "its name"),
            Column("items", "integer", "items", "that both models answered"),
            Column("score.a", "number", _METRIC, "mean of a over these items (perplexities: nats per token)"),
            Column("score.b", "number", _METRIC, "mean of b"),
            Column("difference", "number", _METRIC, "a minus b, turned so that positive says that a is better"),
            Column("low", "number", _METRIC, "lower end of its paired interval"),
            Column("high", "number", _METRIC, "upper end"),
            Column("p", "number", "", "two-sided p value of no difference"),
            Column("a_better", "integer", "items", "that a answers better"),
            Column("b_better", "integer", "items", "that b answers better"),
            Column("equal", "integer", "items", "that both answer alike"),
        ),
        "comparison.items": (
            Column("objective", "text", "", "its name"),
            Column("task", "text", "", "the item's task; on held-out items the one that stands in"),
            Column("item", "text", "", "the document's id"),
            Column("value.a", "number", _METRIC, "a's answer: 0 or 1 for wrong and right, or the metric's value"),
            Column("value.b", "number", _METRIC, "b's answer"),
            Column("difference", "number", _METRIC, "a minus b, turned so that positive says that a is better"),
            Column("better", "text", "", "a, b or equal"),
            Column("answer.a", "text", "", "what a said or chose, shortened"),
            Column("answer.b", "text", "", "what b said or chose, shortened"),
        ),
        "utilisation": (
            Column("worker", "text", "", "its name"),
            Column("node", "text", "", "where it ran"),
            Column("gpus", "number", "GPUs", "its share of them"),
            Column("done", "integer", "jobs", "that it finished"),
            Column("failed", "integer", "jobs", "that ended in a failure"),
            Column("busy", "number", _SHARE, "of the time that it was there"),
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
            Column("full", "number", _METRIC, "that mean, where the candidate answered all items; else missing"),
            Column("items", "integer", "items", "answered for the estimate"),
            Column("method", "text", "", "how it was made"),
            Column("beyond", "true/false", "", "outside the scores that the item bank was calibrated on: expect bias"),
        ),
        "hypervolume": (
            _NUMBER,
            Column("seconds", "number", _SECONDS, "active time of the run when the candidate was finished"),
            Column("hypervolume", "number", "product of the units", "of the front so far, above the worst parent"),
        ),
        "importance": (
            Column("gene", "text", "", "its name"),
            Column("objective", "text", "", "its name"),
            Column("alone", "number", _SHARE, "of the surrogate's variance, due to the gene alone"),
            Column("involved", "number", _SHARE, "that involves the gene, alone or together with another"),
            Column("rank_correlation", "number", "-1 to 1", "Spearman's, with the fitness; above 0: more is better"),
            Column("partial_correlation", "number", "-1 to 1", "the same, all other genes held fixed linearly"),
            Column("share_of_variance", "number", _SHARE, "of the fitness, between candidates of similar values"),
            Column("left_out_r2", "number", "", "of the surrogate for candidates left out; below 0.5: no trust"),
        ),
        "landscape": (
            Column("kind", "text", "", "slice (along a gene) or line (to another candidate)"),
            Column("line", "text", "", "the gene that varies, or where the line leads"),
            Column("position", "number", "0 to 1", "place on it; of a slice the gene's coordinate"),
            Column("value", "number or text", "the parameter's own", "of the gene; missing on lines"),
            Column("objective", "text", "", "its name"),
            Column("score", "number", _METRIC, "what the surrogate predicts"),
            Column("low", "number", _METRIC, "lower end of its 90% interval"),
            Column("high", "number", _METRIC, "upper end"),
            Column("extrapolates", "true/false", "", "no candidate is as far out: not to be believed"),
        ),
        "work": (
            _NUMBER,
            Column("split", "text", "", "search or holdout: which items were answered"),
            Column("worker", "text", "", "its name"),
            Column("start", "number", _SECONDS, "active time of the run when the worker began"),
            Column("end", "number", _SECONDS, "active time of the run when the result was recorded"),
            Column("failed", "true/false", "", "whether it ended in a failure"),
        ),
        "generalisation": (
            _NUMBER,
            Column("name", "text", "", "'candidate 17' or 'parent add'"),
            Column("kind", "text", "", "candidate or parent"),
            Column("objective", "text", "", "its name, or 'mean' over the objectives"),
            Column("search", "number", _METRIC, "score on the items that chose among candidates"),
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
