"""A run as an Optuna study, for optuna-dashboard and optuna.visualization: written once, read by them.

    evomerge trials runs/quickstart --optuna sqlite:///quickstart.db
    optuna-dashboard sqlite:///quickstart.db

Objectives keep the metric's units and their direction; parameters are the genes in the user's units. The study is a
copy for looking: the archive stays the only record, and a search is never continued from here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evomerge.candidate import Candidate, Evaluation
from evomerge.errors import ExtraMissing, InputError
from evomerge.runs._frame_output import plain
from evomerge.space import Gene

if TYPE_CHECKING:
    import optuna

    from evomerge.runs._run import Run


def write_study(run: Run, storage: str, name: str | None = None) -> optuna.Study:
    """Write a run's candidates as the trials of a new study, and return it.

    A candidate that failed is a failed trial with the message as an attribute; one that a race stopped is a pruned
    trial; one that was proposed and has no end yet is left out. A trial's attributes hold the candidate's number (that
    of the trial differs where some are left out), digest, worker, seconds, and per objective standard error and items.

    Args:
        run: the run; it may be going on.
        storage: where Optuna keeps studies, as in 'sqlite:///run.db'.
        name: of the study; default: the run folder's.

    Raises:
        InputError: the storage has a study of this name already, or cannot be opened.
        ExtraMissing: optuna is not installed.

    >>> from evomerge import open_run
    >>> study = write_study(open_run("runs/quickstart"), "sqlite:///quickstart.db")
    >>> len(study.trials)
    16
    """
    try:
        import optuna
    except ImportError as error:
        raise ExtraMissing("optuna", "optuna") from error
    name = name or run.folder.resolve().name
    directions = [objective.goal for objective in run.objectives]  # Optuna's words are ours: maximize, minimize
    with _quiet():
        try:
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        except optuna.exceptions.DuplicatedStudyError:
            raise InputError(
                f"{storage} has a study {name!r} already; choose another file, or remove the study first"
            ) from None
        except Exception as error:  # SQLAlchemy's drivers raise many types for a wrong address
            raise InputError(
                f"storage {storage!r} cannot be opened ({str(error).splitlines()[0]}); write it as sqlite:///run.db"
            ) from error
        study.set_metric_names([objective.name for objective in run.objectives])
        study.set_user_attr("run", str(run.folder))
        study.add_trials(list(_trials(run)))
    return study


def _trials(run: Run) -> Iterator[optuna.trial.FrozenTrial]:
    evaluations, times = run.data.evaluations(), _times(run)
    complete = set(evaluations) if run.data.estimated else set(run.data.full_candidates())  # races leave partial ones
    table = run.trials().set_index("candidate")
    for candidate in run.data.candidates():
        number = candidate.number
        if number not in evaluations or number not in table.index:  # pending, or finished between the two reads
            continue
        row = {str(key): plain(value) for key, value in table.loc[number].to_dict().items()}
        yield _trial(run, candidate, evaluations[number], row, times.get(number), number in complete)


def _trial(
    run: Run,
    candidate: Candidate,
    evaluation: Evaluation,
    row: dict[str, Any],
    times: tuple[datetime, datetime] | None,
    complete: bool,
) -> optuna.trial.FrozenTrial:
    from optuna.trial import FrozenTrial, TrialState

    # a gene that the chosen method leaves unused has no value in the table, and is no parameter of the trial
    genes = [
        (gene, gene.value(coordinate))
        for gene, coordinate in zip(run.space.genes, candidate.genotype, strict=True)
        if row.get(f"gene.{gene.name}") is not None
    ]
    failed = evaluation.fitness(run.objectives) is None  # a score that is NaN counts as a failure too
    values = [evaluation.scores[o.name].value for o in run.objectives] if complete and not failed else None
    state = TrialState.FAIL if failed else TrialState.COMPLETE if complete else TrialState.PRUNED
    # a duplicate has no evaluation of its own
    start, end = times or (datetime.fromtimestamp(0), datetime.fromtimestamp(0))
    shown = ("digest", "worker", "seconds", "failure")
    attributes = {key: row[key] for key in shown if row.get(key) not in (None, "")}
    for objective in run.objectives:
        if score := evaluation.scores.get(objective.name):
            attributes[f"stderr.{objective.name}"] = plain(score.stderr)
            attributes[f"items.{objective.name}"] = score.items
    return FrozenTrial(
        number=-1,  # given by the storage
        trial_id=-1,
        state=state,
        value=None,
        values=values,
        datetime_start=start,
        datetime_complete=end,
        params={gene.name: value for gene, value in genes},
        distributions={gene.name: _distribution(gene) for gene, _ in genes},
        user_attrs={"candidate": candidate.number, **attributes},
        system_attrs={},
        intermediate_values={},
    )


def _distribution(gene: Gene) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if gene.kind == "choice":
        return CategoricalDistribution(gene.choices)  # Optuna shows choices in this order
    if gene.kind == "int":
        return IntDistribution(int(gene.low), int(gene.high), log=gene.log)
    return FloatDistribution(gene.low, gene.high, log=gene.log)


def _times(run: Run) -> dict[int, tuple[datetime, datetime]]:
    """Return when each candidate was handed out for the first time, and when it was finished, by the driver's clock."""
    events = run.tables.events()
    began: dict[int, float] = {}
    found: dict[int, tuple[datetime, datetime]] = {}
    for kind, number, moment in zip(events["kind"], events["candidate"], events["time"], strict=True):
        if plain(number) is None or kind not in ("submitted", "finished"):
            continue
        stamp = moment.timestamp()
        start = began.setdefault(int(number), stamp)
        if kind == "finished":
            # Optuna's times are those of the machine's own clock, without a zone
            found[int(number)] = (datetime.fromtimestamp(start), datetime.fromtimestamp(max(start, stamp)))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from logging that a study was created, and from warning that naming metrics is experimental."""
    import warnings

    import optuna

    logger = logging.getLogger("optuna")
    level = logger.level  # restored below: the logger is the user's
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)
