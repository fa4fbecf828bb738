"""A run folder, read: candidates, scores, the front, the best, what failed. Works during and after a run.

Needs pandas only; torch, ray and lm-eval may be absent. Every method reads the archive afresh, so the same object
shows the progress of a run that goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.archive import FILE_NAME, holder_of
from evomerge.candidate import Candidate, Split
from evomerge.errors import InputError, RunError, near
from evomerge.pareto.hypervolume import hypervolume
from evomerge.recipe import Recipe
from evomerge.results.coefficients import coefficients_frame
from evomerge.results.comparison import Comparison, compare
from evomerge.results.evaluations import (
    best_number,
    front_numbers,
    pick_number,
    reference_point,
)
from evomerge.results.finals import Final, compare_finals
from evomerge.results.frames import (
    events_frame,
    failures_frame,
    items_frame,
    parents_frame,
    trials_frame,
)
from evomerge.results.fronts import MEASURED, FrontAnswer, FrontRequest, front_of, hypervolume_frame
from evomerge.results.generalisation import generalisation_frame
from evomerge.results.history import history_frame
from evomerge.results.run_data import RunData
from evomerge.results.status import status_of
from evomerge.results.table_output import plain
from evomerge.results.work import work_frame

if TYPE_CHECKING:
    import pandas as pd

    from evomerge.results.front_table import Front


def open_run(folder: str | Path) -> Run:
    """Return the run in `folder`.

    Raises:
        RunError: the folder does not exist or holds no run.
    """
    path = Path(folder)
    if not (path / FILE_NAME).is_file():
        if path.is_file():
            raise RunError(f"expected the folder of a run, got the file {str(folder)!r}; its search said where that is")
        found = "the folder does not exist" if not path.is_dir() else f"it holds no {FILE_NAME}"
        raise RunError(f"no run in {str(folder)!r}: {found}. Start one with: evomerge search FILE --out {folder}")
    return Run(path)


class Run(RunData):
    """A run folder, read-only. Tables are tidy pandas frames; scores are in the metrics' own units."""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.state}, {len(self.candidates())} candidates)"

    def _repr_html_(self) -> str:
        from evomerge.results.overview import overview

        return overview(self)

    # --- frames; `columns` documents every column of them --------------------------------------------------------

    def trials(self) -> pd.DataFrame:
        """Return one row per candidate: status, scores with standard errors, genes in the user's units.

        Columns: candidate, status (pending, running, done, failed), failure (message), seconds, worker, digest (of the
        recipe), then per objective score.*, stderr.* (metric's units), items.* (answered), then gene.* (user's units;
        missing where the chosen method does not use the gene). Last, for objectives whose answers are written,
        truncated.* and unextracted.*: the share of answers that the limit of tokens cut off, and of those in which the
        task's filter found no answer; and shortened.*, of questions that lost their beginning to fit the context. Where
        results were told on arrival, staleness: by how many updates the controller had moved on between proposing a
        candidate and learning of it.
        """
        evaluations, outcomes = self.evaluations(), {outcome.number: outcome for outcome in self.outcomes()}
        with self._archive() as archive:
            candidates = [*archive.candidates("search"), *archive.candidates("remeasured")]
            submitted = {event.candidate for event in archive.events("submitted")} if holder_of(self.folder) else set()
            staleness = {event.candidate: event.payload.get("staleness") for event in archive.events("told")}
        return trials_frame(
            *(candidates, outcomes, submitted, evaluations, self.answer_flags(), self.space, self.objectives), staleness
        )

    def items(self, split: Split = "search") -> pd.DataFrame:
        """Return one row per answer: candidate, task, item (document id), metric, value (metric's units), answer.

        Args:
            split: search, rest or holdout items.
        """
        with self._archive() as archive:
            return items_frame(archive.response_rows(split))

    def events(self) -> pd.DataFrame:
        """Return what happened, in order: seq, time (UTC), seconds (active), kind, candidate, payload."""
        with self._archive() as archive:
            return events_frame(archive.events())

    def parents(self) -> pd.DataFrame:
        """Return one row per parent on the search items: candidate (negative), name, score.*, stderr.*, items.*."""
        return parents_frame(self.candidates("parent"), self.evaluations(kind="parent"), self.objectives)

    def failures(self) -> pd.DataFrame:
        """Return one row per failed evaluation: candidate, kind, message, worker, seconds, traceback."""
        return failures_frame(self.outcomes())

    def history(self) -> pd.DataFrame:
        """Return how the search went, the best so far with its interval, and the hypervolume.

        A row per scored candidate that meets the constraints.

        Columns: candidate, seconds (active time of the run when it was finished), overall and stderr (weighted mean of
        fitness), incumbent (best candidate so far), best, best_low, best_high (its 95% interval), front_size,
        hypervolume (of the front so far, above the worst parent).
        """
        with self._archive() as archive:
            finished = {e.candidate: e.seconds for e in archive.events("finished") if e.payload["split"] == "search"}
        known = {number: moment for number, moment in finished.items() if number is not None}
        return history_frame(self.feasible(), self.objectives, self.reference(), known)

    def work(self) -> pd.DataFrame:
        """Return who was busy when: candidate, split, worker, start and end (active seconds), failed."""
        with self._archive() as archive:
            return work_frame(archive.events("finished"), archive.outcomes())

    def generalisation(self) -> pd.DataFrame:
        """Return finalists and parents on search and on held-out items, a row per objective and one for their mean.

        Columns: candidate, name, kind (candidate, parent), objective, search, search_stderr, holdout, holdout_stderr.
        """
        searched = {**self.evaluations(), **self.evaluations(kind="parent")}
        return generalisation_frame(self.finals(), searched, self.objectives)

    def coefficients(self, pick: int | str = "best") -> pd.DataFrame:
        """Return a candidate's recipe as a table: parameter, model, layer (-1: outside the layers), module, value.

        Args:
            pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.
        """
        return coefficients_frame(self.pick(str(pick)).recipe, self.config.models.layers, self.config.models.modules)

    def compare(self, a: int | str, b: int | str, *, split: Split | None = None, level: float = 0.95) -> Comparison:
        """Return how two models compare, question by question: who answers what, and the difference with its interval.

        Args:
            a: a candidate's number, 'best', 'knee', a preference as in 'add=2,sort=1', or a parent's name.
            b: likewise; a positive difference says that `a` is better.
            split: search or holdout items; None: held-out items where both have answered them, which is fairer to
                both, because search items helped to choose among the candidates.
            level: of the intervals.

        Raises:
            InputError: there is no such model, or the two have no answered item in common.
        """
        people = [self.resolve(str(name)) for name in (a, b)]
        split = split or ("holdout" if all(self._answered_holdout(one.number) for one in people) else "search")
        names = [f"parent {one.name}" if one.kind == "parent" else f"candidate {one.number}" for one in people]
        left, right = (self.responses(one.number, split) for one in people)
        stands_in = self.config.items.stands_in if split == "holdout" else {}
        return compare(
            (names[0], names[1]), (left, right), self.objectives, split=split, stands_in=stands_in, level=level
        )

    # --- the front ----------------------------------------------------------------------------------------------

    def front(
        self,
        *,
        predicted: int = 0,
        where: Sequence[str] = (),
        beats_parents: bool = False,
        prefer: str | None = None,
        desire: str | None = None,
    ) -> Front:
        """Return the Pareto front, best overall first: candidate, measured, then score.* and stderr.*.

        Args:
            predicted: also this many points that surrogates predict; `candidate` is missing, `measured` false, and
                `stderr` the standard deviation of the prediction. What speaks against them: `front_answer`.
            where: constraints, as in 'safety >= base - 1 point'; the front of the candidates that meet them.
            beats_parents: leave out what a parent dominates.
            prefer: order by a preference, as in 'add=2,sort=1'.
            desire: order by desirability, as in 'add=0.5..0.9,sort=0.2..0.8' (worthless and ideal scores).
        """
        from evomerge.results.front_table import front_table

        request = FrontRequest(predicted, tuple(where), beats_parents, prefer, desire)
        return front_table(self.front_answer(request).frame(), self.objectives)

    def front_answer(self, request: FrontRequest = MEASURED) -> FrontAnswer:
        """Return a front with intervals, the surrogates' errors and the reasons to doubt them; see `results.fronts`.

        Args:
            request: what is wanted; default: the measured front, best overall first.
        """
        return front_of(self, request)

    def front_mapping(self, request: FrontRequest = MEASURED) -> dict[str, Any]:
        """Return the front as plain data, the form of `front --json`; the hypervolume is that of measured points.

        Args:
            request: what is wanted; default: the measured front, best overall first.
        """
        answer = self.front_answer(request)
        numbers = [number for number in answer.candidates if number is not None]
        mapping = {
            "objectives": [objective.name for objective in self.objectives],
            "reference": self.reference(),
            "hypervolume": self._volume(numbers),
            "points": answer.points(),
        }
        if request.predicted:
            rows = [] if answer.errors is None else answer.errors.to_dict(orient="records")
            mapping["surrogates"] = [{str(key): plain(value) for key, value in row.items()} for row in rows]
            mapping["warnings"] = list(answer.warnings)
        return mapping

    def reference(self) -> dict[str, float]:
        """Return objective -> the worst parent's score: above this point hypervolumes are measured."""
        return reference_point(self.evaluations(kind="parent"), self.objectives)

    def front_volume(self) -> float:
        """Return the volume that the measured front dominates above `reference`; 0 without a front."""
        return self._volume(front_numbers(self.feasible(), self.objectives))

    def _volume(self, numbers: Sequence[int]) -> float:
        evaluations, reference = self.evaluations(), self.reference()
        point = [objective.fitness(reference[objective.name]) for objective in self.objectives]
        rows = [evaluations[number].fitness(self.objectives) for number in numbers]
        return hypervolume(np.array(rows, dtype=float), point) if rows else 0.0

    def hypervolume(self) -> pd.DataFrame:
        """Return how the front grew, one row per candidate: candidate, seconds (active time), hypervolume so far."""
        return hypervolume_frame(self)

    def importance(self) -> pd.DataFrame:
        """Return which genes mattered, one row per gene and objective; columns in `landscapes.importance_frame`."""
        from evomerge.results.landscapes import importance_frame

        return importance_frame(self)

    def landscape(self, pick: str = "best", *, to: Sequence[str] = (), steps: int = 21) -> pd.DataFrame:
        """Return predicted slices through a candidate along every gene, and straight lines from it to others.

        Args:
            pick: best, knee, a number, or a preference.
            to: where lines lead: candidates picked as above, or parents by number (-1 is the base).
            steps: points per slice and line.

        Columns in `landscapes.landscape_frame`.
        """
        from evomerge.results.landscapes import landscape_frame

        return landscape_frame(self, pick, to, steps)

    def best(self) -> Candidate | None:
        """Return the candidate of highest weighted mean score on the search items, of those that meet the constraints.

        None where there is no such candidate; `infeasible` says why.
        """
        number = best_number(self.selection_pool(), self.objectives)
        return None if number is None else self.candidate(number)

    def pick(self, pick: str = "best") -> Candidate:
        """Return the candidate that 'best', 'knee', a number, or a preference as in 'add=2,sort=1' names.

        Args:
            pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.

        Raises:
            InputError: it names nobody, or somebody who failed.
        """
        evaluations = (
            {**self.evaluations(kind="parent"), **self.evaluations()} if _is_number(pick) else self.selection_pool()
        )
        return self.candidate(pick_number(str(pick), evaluations, self.objectives))

    def resolve(self, name: str) -> Candidate:
        """Return the model that a name means: all that `pick` knows, and parents by their names ('add', 'parent add').

        Args:
            name: as in `pick`, or a parent's name.

        Raises:
            InputError: there is no such model.
        """
        parents = {parent.name: parent for parent in self.candidates("parent")}
        text = name.strip()
        if text in ("best", "knee") or _is_number(text):
            return self.pick(text)
        if (parent := parents.get(text, parents.get(text.removeprefix("parent ")))) is not None:
            return parent
        if "=" in text:
            return self.pick(text)
        known = ["best", "knee", *parents]
        raise InputError(f"no candidate or parent {name!r}: a number, a preference, or a name. {near(name, known)}")

    def recipe(self, pick: str = "best") -> Recipe:
        """Return the recipe of the picked candidate.

        Args:
            pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.
        """
        return self.pick(pick).recipe

    def finals(self) -> list[Final]:
        """Return finalists and parents on the held-out items, with paired intervals against the best parent."""
        plan, stands_in = self.config.items.holdout, self.config.items.stands_in
        with self._archive() as archive:
            people = sorted(archive.candidates(), key=lambda candidate: (candidate.number < 0, candidate.number))
            done = [c for c in people if (outcome := archive.outcome(c.number, "holdout")) and outcome.done]
            responses = {c.number: archive.responses("holdout", c.number) for c in done} if plan else {}
        names = {c.number: f"parent {c.name}" if c.kind == "parent" else f"candidate {c.number}" for c in people}
        return compare_finals(responses, names, self.objectives, stands_in)

    # --- how it went --------------------------------------------------------------------------------------------

    @property
    def has_result(self) -> bool:
        """True where at least one candidate has scores, and meets the search's constraints."""
        return bool(front_numbers(self.feasible(), self.objectives))

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints: state, counts, best, front size, seconds, utilisation."""
        return status_of(self)

    def utilisation(self) -> pd.DataFrame:
        """Return one row per worker that ever was: where its time went, over all sessions.

        Columns: worker, node, gpus (its share), done, failed (jobs), busy (share of the time that it was there), then
        seconds of active time: seconds.present, seconds.busy, seconds.wait, seconds.lost (work whose result nobody
        got: a worker died, or another one was faster), and by stage seconds.load, .merge, .rungs, .prefill (reading
        questions and choices), .decode (writing answers), .score (prompts, grading) and .other (what the stages do
        not explain).
        """
        from evomerge.results.utilisation import table

        with self._archive() as archive:
            return table(archive)

    def status_text(self) -> str:
        """Return the status for people."""
        from evomerge.results.summaries import status_text

        return status_text(self)

    def summary(self) -> str:
        """Return what the end of a search prints: the front, the verdict on held-out items, what to type next."""
        from evomerge.results.summaries import summary_text

        return summary_text(self)

    def export(self, to: str | Path, *, pick: str = "best", form: str = "hf", rank: int | str | None = None) -> str:
        """Write a candidate as a model folder ('hf'), an adapter of its base ('lora'), a mergekit YAML, or a recipe.

        Args:
            to: folder or file to write.
            pick: best, knee, a number, or a preference as in 'add=2,sort=1'.
            form: hf, lora, mergekit or recipe.
            rank: of a lora: a number or 'auto'; None: 'auto'.

        Returns:
            A sentence that says what was written.
        """
        from evomerge.results.export import export_candidate

        return export_candidate(self, to, pick=pick, form=form, rank=rank)


def _is_number(text: str | int) -> bool:
    return str(text).strip().lstrip("-").isdigit()
