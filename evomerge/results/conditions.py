"""Conditions on scores as people write them: 'safety >= base - 1 point', 'add >= 0.6', 'length <= 40'."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.candidate import Objective
from evomerge.errors import InputError, near
from evomerge.pareto.checks import Array, Mask

EXAMPLE = "as in 'safety >= base - 1 point', 'add >= 0.6', 'sort >= best - 2%'"
_FORM = re.compile(r"^\s*(?P<objective>.+?)\s*(?P<sign>>=|<=)\s*(?P<bound>.+?)\s*$")
_NUMBER = r"(?P<number>\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*(?P<unit>points?|pts?|%)?"
_PLAIN = re.compile(rf"^(?P<minus>-?)\s*{_NUMBER}$")
_RELATIVE = re.compile(rf"^(?P<parent>.+?)(?:\s*(?P<side>[+-])\s*{_NUMBER})?$")


@dataclass(frozen=True)
class Condition:
    """A bound on one objective's score, in the metric's own units."""

    text: str  # as written
    place: int  # of the objective
    at_least: bool  # False: at most
    bound: float

    def met(self, scores: Array) -> Mask:
        """Return which rows of scores (n, m), in the metrics' own units, meet it; (n,)."""
        column = scores[:, self.place]
        return np.asarray(column >= self.bound if self.at_least else column <= self.bound)


def read_conditions(
    texts: Sequence[str], objectives: Sequence[Objective], parents: Mapping[str, Mapping[str, float]]
) -> tuple[Condition, ...]:
    """Return the conditions that texts state.

    Args:
        texts: each `<objective> >= <bound>` or `<=`; a bound is a number in the metric's units, or a parent's name,
            `base` or `best` (of the parents, per objective), with a number added or taken off. A point, or %, is a
            hundredth: what people call a point of accuracy.
        objectives: of the run.
        parents: name -> objective -> score; the first is the base.

    Raises:
        InputError: a text is no condition, or names nothing that exists.
    """
    return tuple(_read(text, objectives, parents) for text in texts)


def require_some(mask: Mask, scores: Array, conditions: Sequence[Condition], objectives: Sequence[Objective]) -> None:
    """Raise InputError where no row meets all conditions, with the best that each one could get."""
    if mask.any() or not conditions:
        return
    shown = []
    for one in conditions:
        column = scores[:, one.place]
        best = (column.max() if one.at_least else column.min()) if len(column) else float("nan")
        sign = ">=" if one.at_least else "<="
        alone = "" if one.met(scores).any() else ", which none reaches"
        shown.append(f"{objectives[one.place].name} {sign} {one.bound:.4g} (best is {best:.4g}{alone})")
    raise InputError(f"no candidate meets all conditions: {'; '.join(shown)}. Relax one of them, or search longer")


def _read(text: str, objectives: Sequence[Objective], parents: Mapping[str, Mapping[str, float]]) -> Condition:
    found = _FORM.match(text)
    if found is None:
        raise InputError(f"condition {text!r}: expected an objective, >= or <=, and a bound, {EXAMPLE}")
    names = [objective.name for objective in objectives]
    name = found["objective"]
    if name not in names:
        raise InputError(f"condition {text!r}: unknown objective {name!r}. {near(name, names)}")
    bound = _bound(found["bound"], name, text, objectives[names.index(name)], parents)
    return Condition(text.strip(), names.index(name), found["sign"] == ">=", bound)


def _bound(text: str, name: str, whole: str, objective: Objective, parents: Mapping[str, Mapping[str, float]]) -> float:
    plain = _PLAIN.match(text)
    if plain is not None:
        return (-1.0 if plain["minus"] else 1.0) * _amount(plain, whole, objective, parents)
    relative = _RELATIVE.match(text)
    known = {**dict(zip(["base"], list(parents.values())[:1], strict=False)), **parents}
    if parents:
        scores = [row[name] for row in parents.values() if name in row]
        known["best"] = {name: objective.fitness(max(objective.fitness(score) for score in scores))} if scores else {}
    who = relative["parent"].strip() if relative is not None else text
    if relative is None or who not in known:
        raise InputError(f"condition {whole!r}: {who!r} is no number and no parent. {near(who, known)}; {EXAMPLE}")
    if name not in known[who]:
        raise InputError(f"condition {whole!r}: {who} has no score for {name} in this run; write a number")
    if relative["number"] is None:
        return known[who][name]
    amount = _amount(relative, whole, objective, parents)
    return known[who][name] + (amount if relative["side"] == "+" else -amount)


def _amount(
    found: re.Match[str], whole: str, objective: Objective, parents: Mapping[str, Mapping[str, float]]
) -> float:
    value = float(found["number"])
    if found["unit"]:
        return value / 100
    scores = [row[objective.name] for row in parents.values() if objective.name in row]
    share = objective.kind == "task" and scores and all(0 <= score <= 1 for score in scores)
    if (share and value > 1) or (share and value == 1 and found.re is _RELATIVE):
        raise InputError(
            f"condition {whole!r}: {objective.name} is a share between 0 and 1, so {value:g} is all of it or more; "
            f"write {value:g} point{'s' if value != 1 else ''}, or {value / 100:g}"
        )
    return value
