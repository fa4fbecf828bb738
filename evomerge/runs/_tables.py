"""The tables of a run as tidy pandas frames; `columns` documents every column of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.archive import holder_of
from evomerge.candidate import Split
from evomerge.runs._candidate_selection import picked_candidate
from evomerge.runs._coefficients import coefficients_frame
from evomerge.runs._estimates import estimates_frame
from evomerge.runs._frames import events_frame, failures_frame, items_frame, parents_frame, trials_frame
from evomerge.runs._history import history_frame, hypervolume_frame
from evomerge.runs._holdout import finals_of, generalisation_frame
from evomerge.runs._run_data import RunData
from evomerge.runs._utilisation import utilisation_frame, work_frame

if TYPE_CHECKING:
    import pandas as pd


class RunTables:
    """The tables of one run, `run.tables`. Each call reads the archive afresh; scores are in the metrics' own units."""

    def __init__(self, data: RunData) -> None:
        self._data = data

    def trials(self) -> pd.DataFrame:
        """Return one row per candidate; see `Run.trials`."""
        run = self._data
        evaluations, outcomes = run.evaluations(), {outcome.number: outcome for outcome in run.outcomes()}
        with run.open_archive() as archive:
            candidates = [*archive.candidates("search"), *archive.candidates("remeasured")]
            # a stopped run's submitted jobs are not running
            submitted = {event.candidate for event in archive.events("submitted")} if holder_of(run.folder) else set()
            staleness = {event.candidate: event.payload.get("staleness") for event in archive.events("observed")}
        return trials_frame(
            candidates, outcomes, submitted, evaluations, run.answer_flags(), run.space, run.objectives, staleness
        )

    def items(self, split: Split = "search") -> pd.DataFrame:
        """Return one row per answer; see `Run.items`.

        Args:
            split: search, rest or holdout items.
        """
        with self._data.open_archive() as archive:
            return items_frame(archive.response_rows(split))

    def events(self) -> pd.DataFrame:
        """Return what happened, in order: seq, time (UTC), seconds (active), kind, candidate, payload."""
        with self._data.open_archive() as archive:
            return events_frame(archive.events())

    def parents(self) -> pd.DataFrame:
        """Return one row per parent on the search items: candidate (negative), name, score.*, stderr.*, items.*.

        >>> from evomerge import open_run
        >>> run = open_run("runs/quickstart")
        >>> run.tables.parents()[["candidate", "name", "score.left"]]
           candidate   name  score.left
        0         -1   base       0.000
        1         -2   left       0.825
        2         -3  right       0.000
        """
        run = self._data
        return parents_frame(run.candidates("parent"), run.evaluations("parent"), run.objectives)

    def failures(self) -> pd.DataFrame:
        """Return one row per failed evaluation: candidate, kind, message, worker, seconds, traceback.

        >>> from evomerge import open_run
        >>> run = open_run("runs/quickstart")
        >>> run.tables.failures()[["candidate", "kind"]]
           candidate       kind
        0          5  candidate
        """
        return failures_frame(self._data.outcomes())

    def history(self) -> pd.DataFrame:
        """Return the course of the search, a row per scored candidate that meets the constraints.

        Columns: candidate, seconds (active time of the run when it was finished), overall and stderr (weighted mean of
        fitness), incumbent (best candidate so far), best, best_low, best_high (its 95% interval), front_size,
        hypervolume (of the front so far, above the worst parent).

        >>> from evomerge import open_run
        >>> run = open_run("runs/quickstart")
        >>> run.tables.history()[["candidate", "incumbent", "front_size"]].tail(1)
            candidate  incumbent  front_size
        14         15          6           7
        """
        return history_frame(self._data)

    def hypervolume(self) -> pd.DataFrame:
        """Return how the front grew, one row per candidate: candidate, seconds (active time), hypervolume so far."""
        return hypervolume_frame(self._data)

    def work(self) -> pd.DataFrame:
        """Return which worker was busy when: candidate, split, worker, start and end (active seconds), failed."""
        with self._data.open_archive() as archive:
            return work_frame(archive)

    def utilisation(self) -> pd.DataFrame:
        """Return one row per worker over all sessions: where its time went.

        Columns: worker, node, gpus (its fraction), done, failed (jobs), busy (fraction of the time that it was there),
        then seconds of active time: seconds.present, seconds.busy, seconds.wait, seconds.lost (work without a result:
        the worker died, or another one was faster), and by stage seconds.load, .merge, .sanity_checks,
        .prefill (questions and choices), .decode (generation), .score (prompts, grading) and .other (not covered by
        the stages).
        """
        with self._data.open_archive() as archive:
            return utilisation_frame(archive)

    def generalisation(self) -> pd.DataFrame:
        """Return finalists and parents on search and on held-out items, a row per objective and one for their mean.

        Columns: candidate, name, kind (candidate, parent), objective, search, search_stderr, holdout, holdout_stderr.
        """
        run = self._data
        searched = {**run.evaluations(), **run.evaluations("parent")}
        return generalisation_frame(finals_of(run), searched, run.objectives)

    def estimates(self) -> pd.DataFrame:
        """Return one row per candidate and estimated objective: the estimate from few items, beside the full answers.

        Columns: candidate, objective, estimate, stderr, low, high (95%, for the mean over all search items), full
        (that mean, where the candidate answered them all; else missing), items (answered for the estimate), method,
        beyond (outside the scores that the item bank was calibrated on, where bias must be expected).
        """
        run = self._data
        with run.open_archive() as archive:
            return estimates_frame(archive, run.objectives, run.config.items.search)

    def coefficients(self, pick: int | str = "best") -> pd.DataFrame:
        """Return a candidate's recipe as a table: parameter, model, layer (-1: outside the layers), module, value.

        Args:
            pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.

        >>> from evomerge import open_run
        >>> run = open_run("runs/quickstart")
        >>> run.tables.coefficients("best").groupby("model")["value"].mean().round(3)
        model
        left     0.431
        right    0.672
        Name: value, dtype: float64
        """
        recipe = picked_candidate(self._data, str(pick)).recipe
        return coefficients_frame(recipe, self._data.config.models.layers, self._data.config.models.modules)

    def importance(self) -> pd.DataFrame:
        """Return which genes mattered, one row per gene and objective; columns in `landscapes.importance_frame`.

        >>> from evomerge import open_run
        >>> run = open_run("runs/quickstart")
        >>> run.tables.importance()[["gene", "objective"]].head(2)
                  gene objective
        0  weight.left      left
        1  weight.left     right
        """
        from evomerge.runs._landscapes import importance_frame

        return importance_frame(self._data)

    def landscape(self, pick: str = "best", *, to: Sequence[str] = (), steps: int = 21) -> pd.DataFrame:
        """Return predicted slices through a candidate along every gene, and straight lines from it to others.

        Args:
            pick: best, knee, a number, or a preference.
            to: where lines lead: candidates picked as above, or parents by number (-1 is the base).
            steps: points per slice and line.

        Columns in `landscapes.landscape_frame`.
        """
        from evomerge.runs._landscapes import landscape_frame

        return landscape_frame(self._data, pick, to, steps)
