"""Which candidate a name means: best, knee, a number, a preference over objectives, or a parent's name."""

from __future__ import annotations

from evomerge.candidate import Candidate
from evomerge.errors import InputError, near
from evomerge.runs._evaluations import best_number, pick_number
from evomerge.runs._run_data import RunData


def best_candidate(run: RunData) -> Candidate | None:
    """Return the feasible candidate of highest weighted mean fitness on the search items; None without any."""
    number = best_number(run.selection_pool(), run.objectives)
    return None if number is None else run.candidate(number)


def picked_candidate(run: RunData, pick: str = "best") -> Candidate:
    """Return the candidate that 'best', 'knee', a number, or a preference as in 'add=2,sort=1' names.

    Raises:
        InputError: there is no such candidate, or it failed.
    """
    by_number = _is_number(pick)  # a number may name any candidate, also one outside the selection pool
    evaluations = {**run.evaluations("parent"), **run.evaluations()} if by_number else run.selection_pool()
    return run.candidate(pick_number(pick, evaluations, run.objectives))


def named_candidate(run: RunData, name: str) -> Candidate:
    """Return the model that a name means: as in `picked_candidate`, or a parent's name ('add', 'parent add').

    Raises:
        InputError: there is no such model.
    """
    parents = {parent.name: parent for parent in run.candidates("parent")}
    text = name.strip()
    if text in ("best", "knee") or _is_number(text):  # words win over a parent of that name
        return picked_candidate(run, text)
    if (parent := parents.get(text, parents.get(text.removeprefix("parent ")))) is not None:
        return parent
    if "=" in text:  # after the parents: a folder's name may hold '='
        return picked_candidate(run, text)
    known = ["best", "knee", *parents]
    raise InputError(f"no candidate or parent {name!r}: a number, a preference, or a name. {near(name, known)}")


def _is_number(text: str) -> bool:
    return text.strip().lstrip("-").isdigit()
