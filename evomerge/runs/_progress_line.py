"""The state of a search in one line, for the search itself and for `evomerge watch`."""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.runs._summaries import clock

SECONDS_BETWEEN_LINES = 15.0  # interval of lines written to a file or a pipe


def progress_line(
    *,
    candidates: int,
    budget: int | None,
    best: Mapping[str, float],
    front: int,
    failures: int,
    busy: float | None,
    seconds: float,
    left: float | None,
    state: str = "",
    parents: int = 0,
    stderr: Mapping[str, float] | None = None,
    rate: float | None = None,
) -> str:
    """Return the state of a search in one line; what is unknown or 0 is left out.

    Args:
        candidates: finished ones, failures included.
        budget: most candidates; None without a limit.
        best: objective -> score of the best, in the metric's units.
        front: candidates on the Pareto front; shown where there are several objectives.
        failures: candidates that failed.
        busy: fraction of the workers' time that went into jobs.
        seconds: active time.
        left: seconds left.
        state: running, finished, ...
        parents: models that still have to answer the search items before candidates begin to finish.
        stderr: objective -> standard error of the best's score.
        rate: candidates per hour.
    """
    parts = [
        state,
        f"{parents} parent{'s' * (parents > 1)} to score first" if parents else "",
        f"{candidates}{'' if budget is None else f'/{budget}'} candidates",
    ]
    if best:
        errors = {name: f"±{error:.2f}" for name, error in (stderr or {}).items()}  # two decimals keep the line short
        parts.append("best " + " ".join(f"{name} {value:.3f}{errors.get(name, '')}" for name, value in best.items()))
    parts += [
        f"front {front}" if len(best) > 1 else "",
        f"{failures} failed" if failures else "",
        f"{rate:.4g}/h" if rate else "",
        "" if busy is None else f"busy {100 * busy:.0f}%",
        clock(seconds),
        "" if left is None else f"{clock(left)} left",
    ]
    return "  ".join(part for part in parts if part)  # empty parts are unknown, not zero
