"""Paired comparison of two models on the items that both answered: item by item, and with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge._markup import element, table
from evomerge.candidate import Objective, Response, Split
from evomerge.errors import InputError
from evomerge.objectives import Objectives
from evomerge.runs._candidate_selection import named_candidate
from evomerge.runs._run_data import RunData
from evomerge.scoring import Difference, metric_key, paired_difference, values_of

if TYPE_CHECKING:
    import pandas as pd

ITEM_COLUMNS = ("objective", "task", "item", "value.a", "value.b", "difference", "better", "answer.a", "answer.b")
TABLE_COLUMNS = (
    *("objective", "items", "score.a", "score.b", "difference", "low", "high", "p"),
    *("a_better", "b_better", "equal"),
)


@dataclass(frozen=True)
class Comparison:
    """Model `a` against model `b`, item by item; a positive difference says that `a` is better."""

    a: str  # 'candidate 17' or 'parent add'
    b: str
    split: Split  # search or holdout
    overall: Difference  # mean over the objectives, each weighing the same; the model's size is left out
    differences: Mapping[str, Difference]  # objective -> difference, in the metric's units, higher is better
    items: pd.DataFrame  # one row per objective and item, see `columns`
    left_out: int  # items that only one of the two has answered; they are in nothing above
    fractions: frozenset[str]  # objectives that are fractions of items; their differences are shown in points of 100
    averaged: tuple[str, ...]  # objectives that `overall` is the mean of

    def table(self) -> pd.DataFrame:
        """Return one row per objective: scores, difference with its interval, and on how many items each is better."""
        import pandas as pd

        rows = []
        for name, found in self.items.groupby("objective", sort=False):
            gain, better = self.differences[str(name)], found["better"]
            sides = (found["value.a"].mean(), found["value.b"].mean())
            counts = [int((better == side).sum()) for side in ("a", "b", "equal")]
            # TABLE_COLUMNS
            rows.append((name, len(found), *sides, gain.value, gain.low, gain.high, gain.p, *counts))
        return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))

    def text(self) -> str:
        """Return the comparison as text.

        On search items the score of the best of many candidates is biased upward by selection.
        """
        # the mean of one objective is itself
        names = [*self.differences, *([self._mean()] if len(self.averaged) > 1 else [])]
        width = max(len(name) for name in names)
        lines = [f"{self.a} against {self.b}, {self._where()}:"]
        for row in self.table().itertuples(index=False):
            gain = self.differences[row.objective]
            counts = f"better on {row.a_better} items, worse on {row.b_better}, equal on {row.equal}"
            lines.append(f"  {row.objective:<{width}}  {self._shown(gain, row.objective)}   {counts}")
        if len(self.averaged) > 1:
            lines.append(f"  {names[-1]:<{width}}  {self._shown(self.overall)}")
        lines.append(f"{self.verdict()}.")
        if self.left_out:
            lines.append(f"{self.left_out} items with only one response are omitted.")
        return "\n".join(lines)

    def verdict(self) -> str:
        """Return one sentence, without its full stop."""
        gain = self.overall
        if not gain.distinguishable:  # the interval holds 0
            return f"{self.a} and {self.b} are not distinguishable ({self._shown(gain)})"
        return f"{self.a} is {'better' if gain.value > 0 else 'worse'} than {self.b} ({self._shown(gain)})"

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        rows = [
            (
                r.objective,
                r.items,
                f"{r[2]:.4g}",
                f"{r[3]:.4g}",
                self._shown(self.differences[r.objective], r.objective),
                r.a_better,
                r.b_better,
                r.equal,
            )
            for r in self.table().itertuples(index=False)
        ]
        head = ("objective", "items", self.a, self.b, "difference", "better on", "worse on", "alike on")
        caption = f"{self.a} against {self.b}, {self._where()}"
        shown = table(head, rows, caption=caption, numeric=range(1, len(head)))
        return element("div", {}, shown, element("p", {}, f"{self.verdict()}."))

    def _where(self) -> str:
        return "held-out items" if self.split == "holdout" else "search items (biased by selection)"

    def _mean(self) -> str:
        return (
            "mean of all" if len(self.averaged) == len(self.differences) else f"mean of {' and '.join(self.averaged)}"
        )

    def _shown(self, gain: Difference, objective: str | None = None) -> str:
        names = self.averaged if objective is None else (objective,)
        # differences of accuracies are quoted in points
        scale, unit = (100.0, " points") if self.fractions.issuperset(names) else (1.0, "")
        value, low, high = (scale * part for part in (gain.value, gain.low, gain.high))
        if not gain.has_interval:
            return f"{value:+.3g}{unit}, no interval: one value per model"
        return f"{value:+.3g}{unit}, {gain.level:.0%} interval [{low:.3g}, {high:.3g}]"


def compare_models(
    run: RunData, a: int | str, b: int | str, *, split: Split | None = None, level: float = 0.95
) -> Comparison:
    """Return how two candidates or parents of a run compare; see `Run.compare`."""
    models = [named_candidate(run, str(name)) for name in (a, b)]
    # search items chose among the candidates, so that their scores are biased
    split = split or ("holdout" if all(run.answered_holdout(model.number) for model in models) else "search")
    names = [f"parent {model.name}" if model.kind == "parent" else f"candidate {model.number}" for model in models]
    left, right = (run.responses(model.number, split) for model in models)  # fewer responses where a race stopped one
    stands_in = run.config.items.stands_in if split == "holdout" else {}  # held-out items may come from another task
    return compare((names[0], names[1]), (left, right), run.objectives, split=split, stands_in=stands_in, level=level)


def compare(
    names: tuple[str, str],
    responses: tuple[Sequence[Response], Sequence[Response]],
    objectives: Sequence[Objective],
    *,
    split: Split,
    stands_in: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """Return how two models compare on the items that both answered.

    Args:
        names: what to call them.
        responses: of both.
        objectives: what is compared.
        split: which items these are.
        stands_in: objective's task -> task of its held-out items, see `ItemPlan`.
        level: of the intervals.

    Raises:
        InputError: they have no item of an objective in common, or the level is outside (0, 1).
    """
    tasks = stands_in or {}
    kept, left_out = _common(names, responses, objectives, tasks)
    rows = [row for o in objectives for row in _item_rows(kept, o, tasks.get(o.task, o.task))]
    differences = {o.name: paired_difference(kept[0], kept[1], o, level=level, stands_in=stands_in) for o in objectives}
    import pandas as pd

    return Comparison(
        *names,
        split,
        paired_difference(kept[0], kept[1], Objectives(objectives).scores(), level=level, stands_in=stands_in),
        differences,
        pd.DataFrame(rows, columns=list(ITEM_COLUMNS)),
        left_out,
        frozenset(objective.name for objective in objectives if objective.kind == "task"),
        tuple(objective.name for objective in Objectives(objectives).scores()),
    )


def _common(
    names: tuple[str, str],
    responses: tuple[Sequence[Response], Sequence[Response]],
    objectives: Sequence[Objective],
    tasks: Mapping[str, str],
) -> tuple[tuple[list[Response], list[Response]], int]:
    """Return the responses to items that both answered, and how many items only one did.

    Racing stops candidates early, so that some have fewer responses; common items stay comparable.
    """
    shared: dict[str, set[str]] = {}
    alone: set[tuple[str, str]] = set()  # (task, item): two objectives of one task count an item once
    for objective in objectives:
        task = tasks.get(objective.task, objective.task)
        left, right = (set(values_of(rows, objective, task)) for rows in responses)
        if not left & right:  # without common items there is no pairing, and no interval
            raise InputError(
                f"{names[0]} and {names[1]} have no answered item of {objective.name!r} in common "
                f"({len(left)} and {len(right)} answered); compare candidates that are done"
            )
        # objectives of one task: items answered in all of them
        shared[task] = shared.get(task, left & right) & left & right
        alone |= {(task, item) for item in left ^ right}
    a, b = ([r for r in rows if r.item in shared.get(r.task, ())] for rows in responses)
    return (a, b), len(alone)


def _item_rows(
    kept: tuple[list[Response], list[Response]], objective: Objective, task: str
) -> list[tuple[object, ...]]:
    left, right = (values_of(rows, objective, task) for rows in kept)
    key = metric_key(objective.metric, objective.filter)
    said = [{r.item: r.answer for r in rows if r.task == task and r.metric == key} for rows in kept]
    rows: list[tuple[object, ...]] = []
    for item in sorted(left):  # `_common` has reduced both sides to the same items
        gain = objective.fitness(left[item]) - objective.fitness(right[item])  # as fitness: above 0, a is better
        better = "equal" if gain == 0 else "a" if gain > 0 else "b"
        answers = (said[0].get(item, ""), said[1].get(item, ""))
        rows.append((objective.name, task, item, left[item], right[item], gain, better, *answers))
    return rows
