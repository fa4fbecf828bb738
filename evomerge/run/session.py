"""The composition root: files and options in, objects out, then the loop, then the held-out scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from evomerge.archive import Archive
from evomerge.candidate import Candidate
from evomerge.controllers.protocol import Controller, Setup
from evomerge.controllers.registry import build as build_controller
from evomerge.errors import EvomergeError, InputError, RunError
from evomerge.loop import Budget, Progress, StopReason, evaluate, run_search
from evomerge.loop.values import Fitness
from evomerge.pool.protocol import Pool
from evomerge.results import Run, open_run
from evomerge.results.estimates import best_evaluations
from evomerge.results.evaluations import evaluation_of, finalists
from evomerge.run.estimation import Estimation
from evomerge.run.preparation import Preparation, from_facts, prepare, verify
from evomerge.searchfile import SearchFile, load_search_file

UNLIMITED = 2**31  # candidates, where only time is limited


class Reporter:
    """Where a search says how it goes; this one is silent."""

    def note(self, text: str) -> None:
        """Say what is being done now, before or after the search proper."""

    def update(self, progress: Progress) -> None:
        """Say how far the search is."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def search(
    file: str | Path,
    *,
    out: str | Path | None = None,
    address: str | None = None,
    workers: int | None = None,
    candidates: int | None = None,
    seed: int | None = None,
    progress: Reporter | None = None,
) -> Run:
    """Search the merges that `file` describes and return the run, finished or interrupted.

    Args:
        file: search file, see the README.
        out: run folder; default `runs/<file name without ending>`.
        address: Ray cluster; None with `workers` starts Ray on this machine, None without uses this process alone.
        workers: how many Ray workers.
        candidates: replaces the file's budget.
        seed: replaces the file's seed.
        progress: told how it goes; None is silent.

    Raises:
        SearchFileError: the file, a model or a task is wrong; lists everything that is.
        RunError: the folder already holds a run, or cannot be written.
    """
    search_file = _overridden(load_search_file(file), candidates, seed)
    folder = Path(out) if out is not None else Path("runs") / Path(file).stem
    _require_free(folder)
    reporter = progress or Reporter()
    try:
        preparation = prepare(search_file, reporter.note)
        controller = _controller(preparation)
        with _fresh(folder, preparation) as archive:
            archive.put_parents(preparation.parents)
            _drive(archive, preparation, controller, workers, address, reporter)
    finally:
        reporter.close()
    return open_run(folder)


def resume(
    folder: str | Path,
    *,
    address: str | None = None,
    workers: int | None = None,
    candidates: int | None = None,
    progress: Reporter | None = None,
) -> Run:
    """Go on with the run in `folder`, or extend a finished one with a larger budget of `candidates`.

    The stored proposals and results are replayed into a fresh controller, so the run continues as if it had never
    stopped; nothing that was answered is answered again.

    Raises:
        RunError: no run there, another process is at it, a model or task has changed, or the replay differs.
    """
    open_run(folder)  # a clear message where there is none
    if candidates is not None and candidates < 1:
        raise InputError(f"--candidates must be at least 1, got {candidates}")
    reporter = progress or Reporter()
    try:
        with Archive.open(folder, read_only=False) as archive:
            preparation = from_facts(archive.facts)
            reporter.note("comparing models and tasks with those of the run")
            verify(preparation)
            archive.put_event("resumed", None, {"candidates": candidates} if candidates else {})
            _drive(archive, preparation, _controller(preparation), workers, address, reporter)
    finally:
        reporter.close()
    return open_run(folder)


@contextmanager
def _fresh(folder: Path, preparation: Preparation) -> Iterator[Archive]:
    """Make the run folder; take it away again where the input proves wrong before anything was answered.

    Otherwise a search that failed on, say, NaN weights would have to be resumed with other weights, which is refused.
    """
    existed = folder.exists()
    archive = Archive.create(folder, preparation.facts)
    try:
        yield archive
    except InputError:
        empty = not any(outcome.done for outcome in archive.outcomes())
        archive.close()
        if empty:
            for path in folder.glob("archive.*"):
                path.unlink()
            if not existed:
                folder.rmdir()
        raise
    finally:
        archive.close()


def _drive(
    archive: Archive,
    preparation: Preparation,
    controller: Controller,
    workers: int | None,
    address: str | None,
    reporter: Reporter,
) -> None:
    """Search to the end of the budget, then score finalists and parents once on held-out items."""
    reporter.note(f"loading {len(preparation.spec.models)} models")
    pool = _pool(preparation, workers, address)
    estimation = Estimation(archive, preparation) if preparation.facts.get("estimation") else None
    try:
        reason = StopReason("done", "")
        if estimation is not None:
            reporter.note("asking the parents all search items")
            reason = evaluate(archive, pool, preparation.parents, "search", preparation.plan.search)
        if reason.finished:
            if estimation is not None:
                estimation.begin()
            reason = run_search(
                archive,
                preparation.space,
                controller,
                pool,
                preparation.objectives,
                preparation.plan.search if estimation is None else estimation.plan,
                _budget(archive),
                _plain_mean(preparation) if estimation is None else estimation.fitness,
                reporter.update,
            )
        if reason.finished and estimation is not None:
            reporter.note("asking the finalists the search items that they have not seen")
            unasked = [candidate for candidate in _finalists(archive, preparation) if estimation.rest(candidate)]
            reason = evaluate(archive, pool, unasked, "rest", estimation.rest)
        if reason.finished and preparation.plan.holdout:
            reporter.note("scoring finalists and parents on held-out items")
            reason = evaluate(archive, pool, _finalists(archive, preparation), "holdout", preparation.plan.holdout)
        if reason.finished:
            archive.put_event("ended")
    finally:
        pool.close()
    _raise_if_wrong(reason, archive.path.parent)


def _plain_mean(preparation: Preparation) -> Fitness:
    return lambda number, responses: evaluation_of(number, responses, preparation.objectives)


def _finalists(archive: Archive, preparation: Preparation) -> list[Candidate]:
    """Return the parents and the few candidates that the held-out items are spent on, chosen by search items alone."""
    everyone = {candidate.number: candidate for candidate in archive.candidates()}
    done = [number for number in everyone if number >= 0 and (o := archive.outcome(number)) is not None and o.done]
    evaluations = best_evaluations(archive, done, preparation.objectives, preparation.plan.search)
    chosen = [everyone[number] for number in finalists(evaluations, preparation.objectives)]
    return [*(candidate for candidate in everyone.values() if candidate.kind == "parent"), *chosen]


def _controller(preparation: Preparation) -> Controller:
    settings, budget = preparation.facts["controller"], preparation.facts["budget"]
    start = preparation.space.start()
    options = dict(settings["options"])
    if settings["population"] is not None:
        options["population"] = settings["population"]
    setup = Setup(
        dimensions=preparation.space.dimension,
        seed=preparation.facts["seed"],
        objectives=len(preparation.objectives),
        weights=tuple(objective.weight for objective in preparation.objectives),
        start=None if start is None else tuple(float(gene) for gene in start),
        budget=budget["candidates"],
    )
    return build_controller(settings["name"], setup, options)


def _pool(preparation: Preparation, workers: int | None, address: str | None) -> Pool:
    if workers is None and address is None:
        from evomerge.pool.local import LocalPool

        return LocalPool(preparation.spec)
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}; leave it out to use this process alone")
    from evomerge.pool.ray_pool import RayPool

    return RayPool(preparation.spec, workers=workers, address=address)


def _budget(archive: Archive) -> Budget:
    """Return the file's budget, with the number of candidates that the last `resume` gave, if any."""
    facts = archive.facts["budget"]
    given = [event.payload["candidates"] for event in archive.events("resumed") if "candidates" in event.payload]
    seconds = None if facts["hours"] is None else 3600.0 * facts["hours"]
    candidates = given[-1] if given else facts["candidates"]
    return Budget(UNLIMITED if candidates is None else candidates, seconds)


def _overridden(search_file: SearchFile, candidates: int | None, seed: int | None) -> SearchFile:
    if candidates is not None:
        if candidates < 1:
            raise InputError(f"--candidates must be at least 1, got {candidates}")
        search_file = replace(search_file, budget=replace(search_file.budget, candidates=candidates))
    return search_file if seed is None else replace(search_file, seed=seed)


def _require_free(folder: Path) -> None:
    """Refuse a folder that holds a run before any work is done for it."""
    if Archive.exists(folder):
        raise RunError(
            f"{folder} already holds a search; go on with it: evomerge resume {folder}, or choose another --out"
        )
    if folder.exists() and not folder.is_dir():
        raise RunError(f"run folder {folder} is a file; choose another --out")


def _raise_if_wrong(reason: StopReason, folder: Path) -> None:
    """Raise what ended the search before its time; an interruption is a result, not an error."""
    if reason.name == "configuration":
        raise InputError(reason.message)
    if reason.name == "infrastructure":
        raise EvomergeError(f"{reason.message}. What was measured is saved; go on with: evomerge resume {folder}")
