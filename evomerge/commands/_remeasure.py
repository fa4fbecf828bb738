"""Predicted points of a run's front, measured on demand: scored like the search's candidates, beside its budget."""

from __future__ import annotations

import numpy as np

from evomerge.archive import Archive
from evomerge.candidate import FIRST_REMEASURED, Candidate
from evomerge.commands._prepare import from_config, verify
from evomerge.commands._search_options import Execution
from evomerge.errors import EvomergeError, InputError
from evomerge.loop import evaluate
from evomerge.run_config import RunConfig
from evomerge.runs import FrontAnswer, FrontRequest, Run


def remeasure(run: Run, request: FrontRequest, *, workers: int | None = None, address: str | None = None) -> str:
    """Score the predicted points that a request shows and put them into the run's archive; say what was done.

    They answer the items of the search, so that they stand beside its candidates; the controller does not observe
    them, and a search resumed later goes on as it would have. What was predicted is kept, so that `front` can compare.

    Args:
        run: finished or stopped; it is locked while this goes on.
        request: with `predicted` above 0.
        workers: Ray workers; None: this process alone.
        address: Ray cluster.

    Raises:
        InputError: there is nothing predicted to measure.
        RunError: another process is at the run, or a model or task has changed.
    """
    answer = run.front_answer(request)
    places = [place for place, number in enumerate(answer.candidates) if number is None]
    if not places:
        reasons = "; ".join(answer.warnings) or "no points are predicted: --predicted must be above 0"
        raise InputError(f"there is nothing to remeasure: {reasons}")
    with Archive.open(run.folder, read_only=False) as archive:
        preparation = from_config(RunConfig.from_json(archive.config_json))
        verify(preparation)
        first = FIRST_REMEASURED + archive.count("remeasured")
        candidates = _candidates(run, answer, places, first)
        ended = run_ended(archive)
        archive.put_remeasured(candidates, _predictions(answer, places))
        pool = Execution(workers=workers, address=address).pool(preparation.spec, run.folder)
        try:
            reason = evaluate(archive, pool, candidates, "search", preparation.plan.search)
        finally:
            pool.close()
        if ended:
            archive.put_event("ended")
    if not reason.finished:
        raise EvomergeError(reason.message)
    return f"measured {len(candidates)} predicted points: candidates {first} to {first + len(candidates) - 1}"


def run_ended(archive: Archive) -> bool:
    """Return whether the search and its final scoring had come to their end before."""
    last = [event.kind for event in archive.events("asked", "submitted", "resumed", "interrupted", "ended")][-1:]
    return last == ["ended"]


def _candidates(run: Run, answer: FrontAnswer, places: list[int], first: int) -> list[Candidate]:
    found = []
    for index, place in enumerate(places):
        genotype = np.clip(answer.genotypes[place], 0.0, 1.0)
        point = tuple(float(gene) for gene in genotype)
        found.append(Candidate(first + index, run.space.decode(genotype), point, "remeasured"))
    return found


def _predictions(answer: FrontAnswer, places: list[int]) -> dict[str, list[list[float]]]:
    parts = {"fitness": answer.fitness, "sd": answer.stderr, "low": answer.low, "high": answer.high}
    return {name: [[float(value) for value in row] for row in part[places]] for name, part in parts.items()}
