"""A mistake in user input, and where it stands. Checks collect them; the caller reports all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Place = tuple[str | int, ...]  # keys and indices from the top of a document: ("merge", "models", 1, "model")


@dataclass(frozen=True)
class Problem:
    """What is wrong at one place: what was expected, what came, what to do."""

    place: Place
    message: str
    line: int | None = None  # where known better than by the place, as for a YAML syntax error


def dotted(place: Place) -> str:
    """Return a place in the document as dotted text.

    >>> dotted(("merge", "models", 1, "model"))
    'merge.models[1].model'
    """
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def located(problems: Iterable[Problem], lines: Mapping[Place, int]) -> list[str]:
    """Return each problem as 'line N, place: message', in the order of lines, without repetitions."""
    rows = [(problem.line or line_of(problem.place, lines), problem) for problem in dict.fromkeys(problems)]
    rows.sort(key=lambda row: row[0] or 0)  # stable: problems of one line keep their order
    return [_sentence(line, problem) for line, problem in rows]


def line_of(place: Place, lines: Mapping[Place, int]) -> int | None:
    """Return the line of a place, or of the nearest thing around it that the text does contain."""
    return next((lines[place[:size]] for size in range(len(place), -1, -1) if place[:size] in lines), None)


def _sentence(line: int | None, problem: Problem) -> str:
    where = ", ".join(part for part in (f"line {line}" if line else "", dotted(problem.place)) if part)
    return f"{where}: {problem.message}" if where else problem.message
