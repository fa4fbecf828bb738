"""The composition root: files and options in, objects out, then the loop, then the held-out scores."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

from evomerge.archive import Archive, ResumedPayload, mirror_of
from evomerge.candidate import Candidate
from evomerge.commands._budget_limits import budget_of, checked, overridden
from evomerge.commands._controller_setup import search_problem
from evomerge.commands._estimation import Estimation
from evomerge.commands._execution import kept, reopened
from evomerge.commands._prepare import Preparation, from_config, prepare, read_search_file, verify
from evomerge.commands._search_options import Execution, Reporter, ResumeOptions, SearchOptions, accepts
from evomerge.config import BudgetRequest, SearchFile, load_search_file
from evomerge.controllers import Controller, controller_info
from evomerge.controllers import build as build_controller
from evomerge.errors import EvomergeError, InputError, RunError
from evomerge.irt import require_seed
from evomerge.loop import Fitness, Racing, Rules, StopReason, evaluate, run_search
from evomerge.reports import targets_of, tracked
from evomerge.run_config import BudgetConfig, RunConfig
from evomerge.runs import (
    BEST_FINALISTS,
    Constraint,
    Run,
    answered_everything,
    best_evaluations,
    bounds_of,
    evaluation_of,
    feasible_evaluations,
    finalists,
    open_run,
    parent_scores,
    read_constraints,
)

BEST_ESTIMATED = 2  # candidates that answer the rest of the search items, beside the controller's recommendation


@accepts(SearchOptions)
def search(file: str | Path, options: SearchOptions) -> Run:
    """Search the merges that `file` describes and return the run, finished or interrupted.

    Args:
        file: search file, see the README.
        options: the keywords below; see `SearchOptions`.

    Raises:
        SearchFileError: the file, a model or a task is wrong; lists everything that is.
        ExtraMissing: a tool to log to, or what the search needs, is not installed.
        RunError: the folder already holds a run, or cannot be written.

    >>> from evomerge import search
    >>> run = search("small.yaml", out="runs/small", candidates=2)
    >>> run.state, len(run.trials())
    ('finished', 2)
    """
    targets_of(options.log)
    search_file = _overridden(read_search_file(file), checked(options.given()), options.seed)
    allowed = options.allow_code(search_file.scoring.lm_eval)
    search_file = replace(search_file, scoring=search_file.scoring.model_copy(update={"lm_eval": allowed}))
    folder = Path(options.out) if options.out is not None else Path("runs") / Path(file).stem
    _require_free(folder)
    reporter = options.progress or Reporter()
    try:
        preparation = prepare(search_file, reporter.note)
        controller = _controller(preparation)
        with _fresh(folder, preparation) as archive, kept(archive, options.mirror, reporter.note):
            archive.put_parents(preparation.parents)
            for text in (*preparation.config.warnings, *preparation.config.controller.notes):
                archive.put_event("note", None, {"text": text})
                reporter.note(text)
            with tracked(archive, options.log, reporter.say):
                _drive(archive, preparation, controller, options, reporter)
    finally:
        reporter.close()
    return open_run(folder)


@accepts(ResumeOptions)
def resume(folder: str | Path, options: ResumeOptions) -> Run:
    """Go on with the run in `folder`, or extend a finished one with a larger budget, and return it.

    The stored proposals and results are replayed into a fresh controller, so the run continues as if it had never
    stopped; nothing that was answered is answered again. Limits count from the very start. A damaged archive is first
    replaced by its newest good copy, and one that is gone is fetched from its mirror. Who works is said as in
    `search`, and need not be the same as before. What was logged to goes on being logged to, unless `log` names other
    tools; 'none' is no tool.

    Args:
        folder: the run folder.
        options: the keywords below; see `ResumeOptions`.

    Raises:
        RunError: no run there, another process is at it, a model or task has changed, or the replay differs.

    >>> from evomerge import resume, search
    >>> run = search("small.yaml", out="runs/short", candidates=1)
    >>> len(resume("runs/short", candidates=2).trials())
    2
    """
    targets_of(options.log)
    folder = Path(folder)
    if options.mirror is None and mirror_of(folder) is None:
        open_run(folder)  # a clear message where there is none
    limits = checked(options.given())
    reporter = options.progress or Reporter()
    try:
        with reopened(folder, options.mirror, reporter.note) as archive, kept(archive, options.mirror, reporter.note):
            preparation = from_config(RunConfig.from_json(archive.config_json))
            options.allow_code(preparation.spec.task_settings.lm_eval)
            reporter.note("comparing models and tasks with those of the run")
            verify(preparation)
            overridden(BudgetRequest(**asdict(_current(archive, preparation))), limits)
            archive.put_event("resumed", None, cast("ResumedPayload", limits))
            with tracked(archive, options.log, reporter.say):
                _drive(archive, preparation, _controller(preparation), options, reporter)
    finally:
        reporter.close()
    return open_run(folder)


def run_of_file(file: str | Path, out: str | Path | None = None) -> Path | None:
    """Return the run folder that a search of `file` would use, if it holds a run of this very file; None: no run there.

    Raises:
        RunError: the run there began with another text.
    """
    folder = Path(out) if out is not None else Path("runs") / Path(file).stem
    if not Archive.exists(folder):
        return None
    if open_run(folder).config.search_text != load_search_file(file).text:
        raise RunError(
            f"{folder} holds a run of another search file than {file} is now; go on with the old one: evomerge resume "
            f"{folder}, or choose another --out"
        )
    return folder


@contextmanager
def _fresh(folder: Path, preparation: Preparation) -> Iterator[Archive]:
    """Make the run folder; take it away again where the input proves wrong before anything was answered.

    Otherwise a search that failed on, say, NaN weights would have to be resumed with other weights, which is refused.
    """
    existed = folder.exists()
    archive = Archive.create(folder, preparation.config.to_json())
    try:
        yield archive
    except InputError:
        empty = not any(outcome.done for outcome in archive.outcomes())
        archive.close()
        if empty:
            for path in folder.glob("archive.*"):
                path.unlink()
            if not existed:
                with suppress(OSError):  # what was logged to a tool is there too
                    folder.rmdir()
        raise
    finally:
        archive.close()


def _drive(
    archive: Archive,
    preparation: Preparation,
    controller: Controller,
    execution: Execution,
    reporter: Reporter,
) -> None:
    """Search to the end of the budget, then score finalists and parents once on held-out items."""
    reporter.note(f"loading {len(preparation.spec.models)} models")
    handler = signal.getsignal(signal.SIGTERM)
    pool = execution.pool(preparation.spec, archive.path.parent)
    if handler is not None:
        with suppress(ValueError):  # not the main thread: only the main thread may set handlers
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own in place, by which the run would end unrecorded
    budget = budget_of(preparation, _current(archive, preparation))
    estimation = Estimation(archive, preparation) if preparation.config.estimation else None
    try:
        reason = StopReason("done", "")
        constrained = bool(preparation.config.constraints)
        if constrained or (estimation is not None and estimation.asks_parents):
            reporter.note("asking the parents all search items")
            reason = evaluate(archive, pool, preparation.parents, "search", preparation.plan.search)
        if reason.finished:
            if estimation is not None:
                estimation.begin()
            if constrained:  # what the parents scored says what the constraints mean
                controller = _controller(preparation, _constraints(archive, preparation))
            reason = run_search(
                archive,
                preparation.space,
                controller,
                pool,
                preparation.objectives,
                preparation.plan.search if estimation is None else estimation.plan,
                budget,
                _plain_mean(preparation) if estimation is None else estimation.fitness,
                reporter.update,
                _rules(preparation),
            )
        if reason.finished and estimation is not None:
            reporter.note("asking the finalists the search items that they have not seen")
            recommended = estimation.recommended(controller)
            reason = evaluate(archive, pool, recommended, "search", preparation.plan.search, budget)
        if reason.finished and estimation is not None:
            most = BEST_FINALISTS if not recommended else BEST_ESTIMATED
            unasked = [one for one in _finalists(archive, preparation, most) if estimation.rest(one)]
            if not estimation.asks_parents:  # no candidate is compared with them on search items
                unasked = [one for one in unasked if one.kind != "parent"]
            reason = evaluate(archive, pool, unasked, "search_rest", estimation.rest, budget)
        if reason.finished and preparation.plan.holdout:
            reporter.note("scoring finalists and parents on held-out items")
            finalists = _finalists(archive, preparation)
            reason = evaluate(archive, pool, finalists, "holdout", preparation.plan.holdout, budget)
        if reason.finished:
            archive.put_event("ended")
    finally:
        pool.close()
    _raise_if_wrong(reason, archive.path.parent)


def _plain_mean(preparation: Preparation) -> Fitness:
    return lambda number, responses: evaluation_of(number, responses, preparation.objectives)


def _finalists(archive: Archive, preparation: Preparation, most: int = BEST_FINALISTS) -> list[Candidate]:
    """Return the parents and the few candidates that the held-out items are spent on, chosen by search items alone.

    Of candidates with one recipe the first stands for all. `most` of them are the best overall.
    """
    everyone = {candidate.number: candidate for candidate in archive.candidates()}
    done = [number for number in everyone if number >= 0 and (o := archive.outcome(number)) is not None and o.done]
    if preparation.config.racing is not None:
        whole = answered_everything(archive.events("observed"))
        done = [number for number in done if number in whole]
    # reversed, so that the first of several candidates with one recipe stays
    done = sorted({everyone[number].recipe.digest: number for number in reversed(done)}.values())
    evaluations = best_evaluations(archive, done, preparation.objectives, preparation.plan.search)
    allowed = feasible_evaluations(evaluations, _constraints(archive, preparation), preparation.objectives)
    chosen = [everyone[number] for number in finalists(allowed, preparation.objectives, most)]
    return [*(candidate for candidate in everyone.values() if candidate.kind == "parent"), *chosen]


def _constraints(archive: Archive, preparation: Preparation) -> tuple[Constraint, ...]:
    """Return the search's constraints as numbers, () without any; the parents have answered."""
    texts = preparation.config.constraints
    done = {p.number: archive.responses("search", p.number) for p in preparation.parents if _done(archive, p.number)}
    evaluations = {n: evaluation_of(n, responses, preparation.objectives) for n, responses in done.items()}
    return read_constraints(texts, preparation.objectives, parent_scores(preparation.parents, evaluations))


def _done(archive: Archive, number: int) -> bool:
    outcome = archive.outcome(number)
    return outcome is not None and outcome.done


def _controller(preparation: Preparation, constraints: tuple[Constraint, ...] = ()) -> Controller:
    config, settings = preparation.config, preparation.config.controller
    problem = search_problem(
        settings,
        preparation.space,
        config.merge,
        preparation.objectives,
        preparation.plan,
        budget=config.budget.candidates,
        seed=config.seed,
        bounds=bounds_of(constraints, preparation.objectives) if constraints else None,
    )
    return build_controller(settings.name, problem, dict(settings.options))


def _rules(preparation: Preparation) -> Rules:
    """Return in which order candidates are observed, and whether they race."""
    controller, racing = preparation.config.controller, preparation.config.racing
    race = None
    if racing is not None:
        # single-objective controllers race against the incumbent, multi-objective ones against the Pareto front
        scalar = len(preparation.objectives) == 1 or controller_info(controller.name).scalarises
        chosen: Literal["best", "front"] = "best" if scalar else "front"
        against = racing.against or chosen
        race = Racing(racing.min_items, racing.alpha, against, preparation.config.seed)
    return Rules(controller.asynchronous, race)


def _current(archive: Archive, preparation: Preparation) -> BudgetConfig:
    """Return the limits that hold now: those of the last resume, else the search file's."""
    return preparation.config.budget.after(event.payload for event in archive.events("resumed"))


def _overridden(search_file: SearchFile, limits: Mapping[str, Any], seed: int | None) -> SearchFile:
    search_file = replace(search_file, budget=overridden(search_file.budget, limits))
    if seed is None:
        return search_file
    require_seed(seed)
    return replace(search_file, seed=seed)


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
