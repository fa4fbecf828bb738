"""Answers item by item: models down, items across from the easiest on, a mark where a model answers right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge._markup import Html, element, joined, number
from evomerge.candidate import Objective, Split
from evomerge.reports.html._drawing import scrolling
from evomerge.reports.html._findings import Findings
from evomerge.scoring import values_of

MOST_CANDIDATES = 4  # candidates shown, parents not counted
MOST_PARENTS = 10
MOST_ITEMS = 600  # per objective; of more, as many evenly over their order
WIDTH, LEFT, RIGHT, ROW = 1100, 150, 60, 18


def items(findings: Findings) -> Html:
    """Return a matrix per objective with binary responses, on held-out items where there are responses."""
    split, models = _models(findings)
    answers = findings.run.data.answers_of(models, split)
    stands_in = findings.config.items.stands_in if split == "holdout" else {}
    pictures = []
    for objective in findings.objectives:
        if objective.kind != "task":  # other kinds have no items that are right or wrong
            continue
        task = stands_in.get(objective.task, objective.task)
        values = {n: values_of(rows, objective, task) for n, rows in answers.items()}
        values = {n: found for n, found in values.items() if found}
        if len(values) > 1 and all(value in (0.0, 1.0) for found in values.values() for value in found.values()):
            pictures.append(_picture(findings, objective, values))
    if not pictures:
        return element("p", {}, "No objective has binary responses per item, so there is no item matrix.")
    where = "held-out" if split == "holdout" else "search"
    note = (
        f"A row per model, a column per {where} item, from the easiest to the hardest for the parents. A "
        "mark is a correct answer. Items that one parent solves and another does not are the potential "
        "gain of a merge."
    )
    return joined([element("p", {}, note), *pictures])


def _models(findings: Findings) -> tuple[Split, list[int]]:
    """Return which items and models are shown: the parents, then the finalists, the best one first."""
    held = [final.number for final in findings.finals]
    if held:
        split: Split = "holdout"
        # False sorts first: the best
        candidates = sorted((n for n in held if n >= 0), key=lambda n: n != findings.best)
        parents = [n for n in held if n < 0]
    else:
        split = "search"
        candidates = list(dict.fromkeys([*([] if findings.best is None else [findings.best]), *findings.front]))
        parents = list(findings.parents)
    return split, [*sorted(parents, reverse=True)[:MOST_PARENTS], *candidates[:MOST_CANDIDATES]]


def _picture(findings: Findings, objective: Objective, values: Mapping[int, Mapping[str, float]]) -> Html:
    """Return one objective's matrix with its counts."""
    items = sorted({item for found in values.values() for item in found})
    table = np.array([[found.get(item, np.nan) for item in items] for found in values.values()])  # (models, items)
    numbers = list(values)
    parents = [index for index, n in enumerate(numbers) if n < 0]
    by = parents or list(range(len(numbers)))  # without parents all models order the items
    ease = np.nansum(table[by], axis=0), np.nansum(table, axis=0)  # (items,) each: correct answers, NaN as 0
    order = np.lexsort((-ease[1], -ease[0]))  # (items,) lexsort's last key is the first to sort by
    counts = _counts(findings, numbers, table)
    # evenly over the order of difficulty
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_ITEMS)).astype(int))]
    step = (WIDTH - LEFT - RIGHT) / len(shown)
    rows = []
    for index, n in enumerate(numbers):
        y = index * (ROW + 3)
        row = table[index]
        answered = np.isfinite(row)
        kind = "parent" if n < 0 else "front"
        label = findings.name(n).removeprefix("parent ")
        score = f"{100 * float(np.nanmean(row)):.0f}%"
        title = element("title", {}, f"{findings.name(n)}: {int(np.nansum(row))} of {int(answered.sum())} right")
        size = {"x": LEFT, "y": y, "width": WIDTH - LEFT - RIGHT, "height": ROW}
        rows += [
            element("text", {"x": LEFT - 8, "y": y + 13, "text-anchor": "end", "class": "name"}, _short(label)),
            element("rect", {**size, "class": "alike"}, title),
            element("path", {"d": _marks(row[shown], step, y), "class": kind}),
            element("text", {"x": WIDTH - RIGHT + 8, "y": y + 13, "class": "name"}, score),
        ]
    height = len(numbers) * (ROW + 3)
    said = "; ".join(
        f"{findings.name(n)} {100 * float(np.nanmean(table[index])):.0f}%" for index, n in enumerate(numbers)
    )
    label = f"Item matrix of {objective.name}: {said}"
    box = {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": label, "class": "plot items"}
    drawn = element("svg", box, *rows)
    heading = element("h3", {}, objective.name)
    return element("figure", {}, heading, scrolling(drawn, label), element("figcaption", {}, counts))


def _counts(findings: Findings, numbers: Sequence[int], table: np.ndarray) -> str:
    """Return counts in words: items solved by all models and by none, gains and losses of the best candidate."""
    everywhere = ~np.isnan(table).any(axis=0)  # (items,) answered by all models
    right = table[:, everywhere] > 0.5  # (models, common items)
    parents = np.array([n < 0 for n in numbers])
    text = (
        f"Of {right.shape[1]} items with responses of all models, {int(right.all(axis=0).sum())} are "
        "solved by all of these models and "
    )
    text += f"{int((~right).all(axis=0).sum())} by none"
    if findings.best not in numbers or not parents.any():
        return f"{text}."
    best, some = right[numbers.index(findings.best)], right[parents].any(axis=0)
    text += (
        f". Candidate {findings.best} solves {int((best & ~some).sum())} that no parent solves, and misses "
        f"{int((~best & some).sum())} that at least one parent solves."
    )
    return text


def _marks(row: np.ndarray, step: float, top: float) -> str:
    """Return the path over all items that are solved, neighbours as one rectangle."""
    solved = np.concatenate([[False], row > 0.5, [False]])  # padded, so that every run has two edges
    edges = np.flatnonzero(solved[1:] != solved[:-1])  # alternating starts and ends of runs
    parts = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        x, width = number(LEFT + start * step, 5), number((end - start) * step, 5)
        parts.append(f"M{x} {number(top)}h{width}v{ROW}h-{width}z")
    return "".join(parts)


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
