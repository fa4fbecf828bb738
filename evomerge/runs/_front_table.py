"""The Pareto front as a frame that shows itself: what `Run.front` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from evomerge._markup import Html, element, number, table
from evomerge.candidate import Objective
from evomerge.objectives import Objectives
from evomerge.pareto import knee

SHOWN_ROWS = 30  # a notebook shows no more rows
_SIDE = 220  # pixels of the picture


class Front(pd.DataFrame):
    """A frame of candidates, best overall first: candidate, measured, then score.* and stderr.*.

    It is an ordinary frame; in a notebook it also says which point is the knee and which is the best in what, and with
    two objectives draws itself, without any script. Selections from it are plain frames.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # a part of a front need not be a front

    def _repr_html_(self) -> str:
        objectives = self._objectives()
        if not len(self) or not objectives:
            return element("p", {}, "no candidate has scores yet")
        marks = self.marks()
        rows = [
            (
                _name(row["candidate"]),
                ", ".join(marks.get(row["candidate"], [])) if row["candidate"] is not pd.NA else "",
                *(f"{row[f'score.{name}']:.4g} ± {row[f'stderr.{name}']:.2g}" for name in objectives),
            )
            for _, row in self.head(SHOWN_ROWS).iterrows()
        ]
        caption = f"Pareto front, {len(self)} candidates; score ± standard error on the search items"
        shown = table(("candidate", "", *objectives), rows, caption=caption, numeric=range(2, 2 + len(objectives)))
        more = element("p", {}, f"and {len(self) - len(rows)} more") if len(self) > len(rows) else None
        picture = _picture(self, objectives) if len(objectives) == 2 else None
        return element("div", {}, picture, shown, more)

    def marks(self) -> dict[int, list[str]]:
        """Return candidate -> what it is outstanding in: 'best overall', 'knee', 'best add' ..."""
        goals = self.attrs.get("goals", {})
        objectives = self._objectives()
        real = self[self["candidate"].notna()]  # predicted points have no candidate to be named by
        if not len(real):
            return {}
        # (f, m) as fitness: minimised objectives change sign
        scores = np.column_stack([real[f"score.{name}"].astype(float) * goals.get(name, 1.0) for name in objectives])
        numbers = [int(value) for value in real["candidate"]]
        weights = np.array([self.attrs.get("weights", {}).get(name, 1.0) for name in objectives])  # (m,)
        found: dict[int, list[str]] = {numbers[int(np.argmax(scores @ weights))]: ["best overall"]}
        if len(numbers) > 2 and len(objectives) > 1:  # a knee lies between two ends
            found.setdefault(numbers[knee(scores)], []).append("knee")
        if len(objectives) > 1:
            for position, name in enumerate(objectives):
                found.setdefault(numbers[int(np.argmax(scores[:, position]))], []).append(f"best {name}")
        return found

    def _objectives(self) -> list[str]:
        return [str(name).removeprefix("score.") for name in self.columns if str(name).startswith("score.")]


def front_table(frame: pd.DataFrame, objectives: Sequence[Objective]) -> Front:
    """Return a frame of front points as a `Front`, which knows in which direction each objective is better."""
    front = Front(frame)
    names = [objective.name for objective in objectives]
    # pandas copies attrs along with the frame
    front.attrs["weights"] = dict(zip(names, Objectives(objectives).weights().tolist(), strict=True))
    front.attrs["goals"] = {objective.name: objective.fitness(1.0) for objective in objectives}
    return front


def _name(candidate: Any) -> str:
    return "predicted" if pd.isna(candidate) else str(int(candidate))


def _picture(front: pd.DataFrame, names: Sequence[str]) -> Html:
    """Return two objectives as a small plane, with the range of each axis written at its ends."""
    spans = [(float(front[f"score.{name}"].min()), float(front[f"score.{name}"].max())) for name in names]

    def position(value: float, axis: int) -> float:
        low, high = spans[axis]
        fraction = (value - low) / (high - low) if high > low else 0.5  # one point, or equal scores: the middle
        return 16 + (_SIDE - 32) * (fraction if axis == 0 else 1 - fraction)  # SVG's y axis points down

    dots = [
        element(
            "circle",
            {"cx": position(row[f"score.{names[0]}"], 0), "cy": position(row[f"score.{names[1]}"], 1), "r": 4.0},
            element("title", {}, f"candidate {_name(row['candidate'])}"),
        )
        for _, row in front.iterrows()
    ]
    frame: dict[str, Any] = {"x": 2, "y": 2, "width": _SIDE - 4, "height": _SIDE - 4, "fill": "none"}
    label = f"Pareto front: {names[0]} against {names[1]}"
    drawing = element(
        "svg",
        {"width": _SIDE, "height": _SIDE, "role": "img", "aria-label": label, "fill": "#D55E00"},
        element("rect", {**frame, "stroke": "currentColor", "stroke-opacity": 0.4}),
        *dots,
    )
    ends = [f"{name}: {number(low, 3)} to {number(high, 3)}" for name, (low, high) in zip(names, spans, strict=True)]
    return element("figure", {}, drawing, element("figcaption", {}, f"right is more {ends[0]}; up is more {ends[1]}"))
