"""Constraints on scores, as written ('safety >= base - 1 point', 'add >= 0.6') and as bounds on fitness.

A bound may be relative to a parent's score, so it becomes a number only once that parent is scored; until then no
candidate counts as feasible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge._arguments import Array, Mask
from evomerge.candidate import Candidate, Evaluation, Objective
from evomerge.errors import InputError, near
from evomerge.pareto import Bounds
from evomerge.runs._evaluations import fitness_table

EXAMPLE = "as in 'safety >= base - 1 point', 'add >= 0.6', 'sort >= best - 2%'"
# names may hold spaces: the bound begins at the first >= or <=
_FORM = re.compile(r"^\s*(?P<objective>.+?)\s*(?P<sign>>=|<=)\s*(?P<bound>.+?)\s*$")
_NUMBER = r"(?P<number>\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*(?P<unit>points?|pts?|%)?"
_PLAIN = re.compile(rf"^(?P<minus>-?)\s*{_NUMBER}$")
_RELATIVE = re.compile(rf"^(?P<parent>.+?)(?:\s*(?P<side>[+-])\s*{_NUMBER})?$")


@dataclass(frozen=True)
class Constraint:
    """A bound on one objective's score, in the metric's own units."""

    text: str  # the constraint as written in the search file or after --where
    index: int  # index of the objective
    at_least: bool  # False: at most
    bound: float

    def met(self, scores: Array) -> Mask:
        """Return which rows of scores (n, m), in the metrics' own units, meet it; (n,)."""
        column = scores[:, self.index]  # (n,)
        return np.asarray(column >= self.bound if self.at_least else column <= self.bound)


def read_constraints(
    texts: Sequence[str], objectives: Sequence[Objective], parents: Mapping[str, Mapping[str, float]]
) -> tuple[Constraint, ...]:
    """Return the constraints that texts state.

    Args:
        texts: each `<objective> >= <bound>` or `<=`; a bound is a number in the metric's units, or a parent's name,
            `base` or `best` (of the parents, per objective), with a number added or taken off. A point, or %, is a
            hundredth: a point of accuracy.
        objectives: of the run.
        parents: name -> objective -> score; the first is the base.

    Raises:
        InputError: a text is no constraint, or names nothing that exists.

    >>> from evomerge.candidate import Objective
    >>> parents = {"base": {"safety": 0.9}}
    >>> (one,) = read_constraints(["safety >= base - 1 point"], [Objective("safety", "safety", "acc")], parents)
    >>> one.at_least, round(one.bound, 3)
    (True, 0.89)
    """
    return tuple(_read(text, objectives, parents) for text in texts)


def require_feasible(
    mask: Mask, scores: Array, constraints: Sequence[Constraint], objectives: Sequence[Objective]
) -> None:
    """Raise InputError where no row meets all constraints, with the best that each one could get."""
    if mask.any() or not constraints:  # nothing is infeasible without constraints
        return
    shown = []
    for one in constraints:
        column = scores[:, one.index]
        best = (column.max() if one.at_least else column.min()) if len(column) else float("nan")
        sign = ">=" if one.at_least else "<="
        alone = "" if one.met(scores).any() else ", which none reaches"  # otherwise only the combination is infeasible
        shown.append(f"{objectives[one.index].name} {sign} {one.bound:.4g} (best is {best:.4g}{alone})")
    raise InputError(f"no candidate meets all constraints: {'; '.join(shown)}. Relax one of them, or search longer")


def parent_scores(parents: Sequence[Candidate], evaluations: Mapping[int, Evaluation]) -> dict[str, dict[str, float]]:
    """Return parent -> objective -> score in the metric's units, the base first; what failed is left out."""
    return {
        parent.name: {name: score.value for name, score in evaluations[parent.number].scores.items()}
        for parent in parents
        if parent.number in evaluations and evaluations[parent.number].failure is None
    }


def constraint_problems(
    texts: Sequence[str], objectives: Sequence[Objective], parents: Sequence[str]
) -> list[tuple[int, str]]:
    """Return what is wrong with constraints that can be known before the parents have scores: index and message.

    Args:
        texts: as written.
        objectives: of the search.
        parents: names, the base first.
    """
    # placeholder scores for parsing
    middle = {name: {objective.name: 0.5 for objective in objectives} for name in parents}
    found = []
    for index, text in enumerate(texts):
        try:
            read_constraints([text], objectives, middle)
        except InputError as error:
            found.append((index, str(error)))
    return found


def bounds_of(constraints: Sequence[Constraint], objectives: Sequence[Objective]) -> Bounds:
    """Return constraints as bounds on fitness; of several on one objective the tightest counts."""
    low, high = [-np.inf] * len(objectives), [np.inf] * len(objectives)
    for one in constraints:
        objective = objectives[one.index]
        bound = objective.fitness(one.bound)
        # minimised: an upper bound on the score is a lower one on fitness
        if one.at_least == (objective.fitness(1.0) > 0):
            low[one.index] = max(low[one.index], bound)  # several constraints on one objective: the tightest
        else:
            high[one.index] = min(high[one.index], bound)
    return Bounds(tuple(map(float, low)), tuple(map(float, high)))


def feasible_evaluations(
    evaluations: Mapping[int, Evaluation], constraints: Sequence[Constraint], objectives: tuple[Objective, ...]
) -> dict[int, Evaluation]:
    """Return the evaluations whose scores meet all constraints; all of them where there is no constraint."""
    if not constraints:
        return dict(evaluations)
    bounds = bounds_of(constraints, objectives)
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    met = bounds.met(fitness) if len(numbers) else np.zeros(0, dtype=bool)  # (n,)
    return {number: evaluations[number] for number, kept in zip(numbers, met, strict=True) if kept}


def infeasible_text(
    evaluations: Mapping[int, Evaluation], constraints: Sequence[Constraint], objectives: tuple[Objective, ...]
) -> str | None:
    """Return why no candidate meets the constraints; None where one does, or where none has scores."""
    numbers, fitness, _ = fitness_table(evaluations, objectives)
    if not numbers or not constraints or feasible_evaluations(evaluations, constraints, objectives):
        return None
    signs = np.array([objective.fitness(1.0) for objective in objectives])  # (m,) 1 or -1: back to the metrics' units
    try:
        require_feasible(np.zeros(len(numbers), dtype=bool), fitness * signs, constraints, objectives)
    except InputError as error:
        return str(error)
    return None


def _read(text: str, objectives: Sequence[Objective], parents: Mapping[str, Mapping[str, float]]) -> Constraint:
    found = _FORM.match(text)
    if found is None:
        raise InputError(f"constraint {text!r}: expected an objective, >= or <=, and a bound, {EXAMPLE}")
    names = [objective.name for objective in objectives]
    name = found["objective"]
    if name not in names:
        raise InputError(f"constraint {text!r}: unknown objective {name!r}. {near(name, names)}")
    bound = _bound(found["bound"], name, text, objectives[names.index(name)], parents)
    return Constraint(text.strip(), names.index(name), found["sign"] == ">=", bound)


def _bound(text: str, name: str, whole: str, objective: Objective, parents: Mapping[str, Mapping[str, float]]) -> float:
    plain = _PLAIN.match(text)
    if plain is not None:
        return (-1.0 if plain["minus"] else 1.0) * _amount(plain, whole, objective, parents)
    relative = _RELATIVE.match(text)
    # a parent that is called 'base' wins over the alias
    known = {**dict(zip(["base"], list(parents.values())[:1], strict=False)), **parents}
    if parents:
        scores = [row[name] for row in parents.values() if name in row]  # failed parents have no score
        known["best"] = {name: objective.fitness(max(objective.fitness(score) for score in scores))} if scores else {}
    who = relative["parent"].strip() if relative is not None else text
    if relative is None or who not in known:
        raise InputError(
            f"constraint {whole!r}: {who!r} is neither a number nor a parent. {near(who, known)} Write it {EXAMPLE}"
        )
    if name not in known[who]:  # the parent failed
        raise InputError(f"constraint {whole!r}: {who} has no score for {name} in this run; write a number")
    if relative["number"] is None:  # a bare parent's name: at least as good as it
        return known[who][name]
    amount = _amount(relative, whole, objective, parents)
    return known[who][name] + (amount if relative["side"] == "+" else -amount)


def _amount(
    found: re.Match[str], whole: str, objective: Objective, parents: Mapping[str, Mapping[str, float]]
) -> float:
    value = float(found["number"])
    if found["unit"]:
        return value / 100  # a point of accuracy is 0.01 in the metric's units
    scores = [row[objective.name] for row in parents.values() if objective.name in row]
    fraction = objective.kind == "task" and scores and all(0 <= score <= 1 for score in scores)
    # 'base - 1' for a fraction surely means one point
    if (fraction and value > 1) or (fraction and value == 1 and found.re is _RELATIVE):
        raise InputError(
            f"constraint {whole!r}: {objective.name} is between 0 and 1, so {value:g} is out of range; "
            f"write {value:g} point{'s' if value != 1 else ''}, or {value / 100:g}"
        )
    return value
