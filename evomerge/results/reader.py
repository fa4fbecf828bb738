"""A run folder, read: candidates, scores, the front, the best, what failed. Works during and after a run.

Needs pandas only; torch, ray and lm-eval may be absent. Every method reads the archive afresh, so the same object
shows the progress of a run that goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.archive import FILE_NAME, Archive, holder_of
from evomerge.candidate import Candidate, Evaluation, Kind, Objective, Outcome, Response, Split
from evomerge.errors import InputError, RunError
from evomerge.pareto.hypervolume import hypervolume
from evomerge.recipe import Recipe
from evomerge.results.estimates import COLUMNS as ESTIMATE_COLUMNS
from evomerge.results.estimates import (
    best_evaluation,
    estimate_rows,
    estimates_summary,
    recorded_estimates,
    search_answers,
)
from evomerge.results.evaluations import (
    answered_everything,
    best_number,
    evaluation_of,
    front_numbers,
    overall,
    pick_number,
    reference_point,
)
from evomerge.results.finals import Final, compare_finals
from evomerge.results.fronts import MEASURED, FrontAnswer, FrontRequest, front_of, hypervolume_frame
from evomerge.results.tables import plain
from evomerge.scoring.estimate import metric_key
from evomerge.scoring.mishaps import MISHAPS, UNEXTRACTED
from evomerge.space import SearchSpace, build_space

if TYPE_CHECKING:
    import pandas as pd


def open_run(folder: str | Path) -> Run:
    """Return the run in `folder`.

    Raises:
        RunError: the folder does not exist or holds no run.
    """
    path = Path(folder)
    if not (path / FILE_NAME).is_file():
        found = "the folder does not exist" if not path.is_dir() else f"it holds no {FILE_NAME}"
        raise RunError(f"no run in {str(folder)!r}: {found}. Start one with: evomerge search FILE --out {folder}")
    return Run(path)


class Run:
    """A run folder, read-only. Tables are tidy pandas frames; scores are in the metrics' own units."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, Evaluation] = {}  # on search items; answers are never changed, so neither are these

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.state}, {len(self.candidates())} candidates)"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.status_text())}</pre>"

    # --- what was asked -----------------------------------------------------------------------------------------

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What was fixed when the search began: search file, models, objectives, items, seed, versions."""
        with self._archive() as archive:
            return dict(archive.facts)

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, in the search file's order."""
        return tuple(Objective(**entry) for entry in self.facts["objectives"])

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, built from the stored facts alone."""
        return build_space(
            self.facts["merge"],
            layers=self.facts["layers"],
            modules={name: tuple(found) for name, found in self.facts["modules"].items()},
            mask_seed=self.facts["seed"],
            revisions=self.facts["revisions"],
            route=self.facts.get("route"),  # absent from runs of earlier versions
            depths=self.facts.get("depths"),
        )

    # --- what came of it ----------------------------------------------------------------------------------------

    def candidates(self, kind: Kind = "search") -> list[Candidate]:
        """Return the proposed candidates with those remeasured, or the parents with the base first, in order."""
        with self._archive() as archive:
            found = [*archive.candidates(kind), *(archive.candidates("remeasured") if kind == "search" else ())]
        return sorted(found, key=lambda candidate: abs(candidate.number))

    def evaluations(self, kind: Kind = "search") -> dict[int, Evaluation]:
        """Return number -> evaluation on the search items, of the candidates, or parents, that are finished."""
        with self._archive() as archive:
            finished = {o.number: o for o in self._outcomes(archive) if (o.number < 0) == (kind == "parent")}
            racing = self.facts.get("racing") is not None
            whole = answered_everything(archive.events("told")) if racing else set()
            for number, outcome in finished.items():
                if outcome.failure is not None:
                    self._known[number] = Evaluation(number, {}, outcome.failure)
                elif self.estimated and number >= 0:
                    continue
                elif number not in self._known or self._known[number].failure or self._known[number].partial:
                    found = evaluation_of(number, archive.responses("search", number), self.objectives)
                    self._known[number] = replace(found, partial=racing and number >= 0 and number not in whole)
            if self.estimated and kind == "search":
                self._known.update(self._estimates(archive, finished))
        return {number: self._known[number] for number in sorted(finished) if number in self._known}

    def _estimates(self, archive: Archive, finished: Mapping[int, Outcome]) -> dict[int, Evaluation]:
        """Return what is known of the candidates that few items were asked of; those never told are left out."""
        estimates = recorded_estimates(archive)
        items = self.facts["items"]["search"]
        told = {event.candidate for event in archive.events("told")}
        return {
            number: best_evaluation(
                number, search_answers(archive, number), estimates.get(number, {}), self.objectives, items
            )
            for number, outcome in finished.items()
            if outcome.done and number in told
        }

    @property
    def estimated(self) -> bool:
        """True where scores are estimated from few items, and only some candidates answered all of them."""
        return bool(self.facts.get("estimation"))

    def full_candidates(self) -> list[int]:
        """Return the candidates that answered every search item: all that are scored, where nothing is estimated."""
        evaluations = self.evaluations()
        if not self.estimated:
            return [number for number, evaluation in evaluations.items() if evaluation.failure is None]
        totals = {o.name: len(self.facts["items"]["search"][o.task]) for o in self.objectives}
        return [
            number
            for number, evaluation in evaluations.items()
            if evaluation.scores and all(score.items >= totals[name] for name, score in evaluation.scores.items())
        ]

    def contenders(self) -> dict[int, Evaluation]:
        """Return the evaluations among which the best is chosen.

        Once finalists have answered every search item, an estimate no longer competes with them: the highest of many
        estimates is high by luck too, while theirs were made again on answers that had no part in the choice.
        """
        evaluations = self.evaluations()
        with self._archive() as archive:
            decided = any(outcome.split == "rest" and outcome.done for outcome in archive.outcomes())
        return {n: evaluations[n] for n in self.full_candidates()} if decided else evaluations

    def estimates(self) -> pd.DataFrame:
        """Return one row per candidate and estimated objective: what few answers told, beside the full answers.

        Columns: candidate, objective, estimate, stderr, low, high (95%, for the mean over all search items), full
        (that mean, where the candidate answered them all; else missing), items (answered for the estimate), method,
        beyond (outside the scores that the item bank was calibrated on, where bias must be expected).
        """
        import pandas as pd

        with self._archive() as archive:
            rows = estimate_rows(archive, self.objectives, self.facts["items"]["search"]) if self.estimated else []
        return pd.DataFrame(rows, columns=list(ESTIMATE_COLUMNS))

    def trials(self) -> pd.DataFrame:
        """Return one row per candidate.

        Columns: candidate, status (pending, running, done, failed), failure (message), seconds, worker, digest (of the
        recipe), then per objective score.*, stderr.* (metric's units), items.* (answered), then gene.* (user's units;
        missing where the chosen method does not use the gene). Last, for objectives whose answers are written,
        truncated.* and unextracted.*: the share of answers that the limit of tokens cut off, and of those in which the
        task's filter found no answer; and shortened.*, of questions that lost their beginning to fit the context. Where
        results were told on arrival, staleness: by how many updates the controller had moved on between proposing a
        candidate and learning of it.
        """
        import pandas as pd

        evaluations = self.evaluations()
        with self._archive() as archive:
            candidates = [*archive.candidates("search"), *archive.candidates("remeasured")]
            outcomes = {outcome.number: outcome for outcome in self._outcomes(archive)}
            submitted = {event.candidate for event in archive.events("submitted")} if holder_of(self.folder) else set()
            told = {event.candidate: event.payload.get("staleness") for event in archive.events("told")}
        rows = []
        for candidate in candidates:
            number, outcome = candidate.number, outcomes.get(candidate.number)
            status = (
                ("done" if outcome.done else "failed") if outcome else "running" if number in submitted else "pending"
            )
            row: dict[str, Any] = {
                "candidate": number,
                "status": status,
                "failure": outcome.failure.message if outcome and outcome.failure else None,
                "seconds": outcome.seconds if outcome else np.nan,
                "worker": outcome.worker if outcome else None,
                "digest": candidate.recipe.digest,
            }
            row.update(self._scores(evaluations.get(number), ("score", "stderr", "items")))
            genes = self.space.phenotype(np.array(candidate.genotype))
            row.update({f"gene.{name}": genes.get(name) for name in self.space.names})
            rows.append(row)
        mishaps = self.mishaps()
        for row in rows:
            row.update({f"{kind}.{name}": share for (kind, name), share in mishaps.get(row["candidate"], {}).items()})
        seen = {key for shares in mishaps.values() for key in shares}
        columns = ["candidate", "status", "failure", "seconds", "worker", "digest", *self._score_columns()]
        columns += [f"gene.{name}" for name in self.space.names]
        columns += [f"{kind}.{o.name}" for kind in MISHAPS for o in self.objectives if (kind, o.name) in seen]
        if any(staleness is not None for staleness in told.values()):
            columns.append("staleness")
            for row in rows:
                row["staleness"] = told.get(row["candidate"])
        return pd.DataFrame(rows, columns=columns)

    def mishaps(self) -> dict[int, dict[tuple[str, str], float]]:
        """Return candidate or parent -> (kind, objective) -> share of its answers to search items; kinds: `MISHAPS`."""
        wanted = {
            (o.task, metric_key(kind, o.filter if kind == UNEXTRACTED else "none")): (kind, o.name)
            for kind in MISHAPS
            for o in self.objectives
        }
        with self._archive() as archive:
            means = archive.means("search", sorted({metric for _, metric in wanted}))
        found: dict[int, dict[tuple[str, str], float]] = {}
        for (number, task, metric), share in means.items():
            if (task, metric) in wanted:
                found.setdefault(number, {})[wanted[task, metric]] = share
        return found

    def items(self, split: Split = "search") -> pd.DataFrame:
        """Return one row per answer: candidate, task, item (document id), metric, value (metric's units), answer."""
        import pandas as pd

        with self._archive() as archive:
            rows = [(number, r.task, r.item, r.metric, r.value, r.answer) for number, r in archive.response_rows(split)]
        return pd.DataFrame(rows, columns=["candidate", "task", "item", "metric", "value", "answer"])

    def events(self) -> pd.DataFrame:
        """Return what happened, in order: seq, time (UTC), kind, candidate, and the event's payload."""
        import pandas as pd

        with self._archive() as archive:
            rows = [(e.seq, e.time, e.kind, e.candidate, e.payload) for e in archive.events()]
        table = pd.DataFrame(rows, columns=["seq", "time", "kind", "candidate", "payload"])
        return table.assign(time=pd.to_datetime(table["time"], unit="s", utc=True))

    def parents(self) -> pd.DataFrame:
        """Return one row per parent on the search items: candidate (negative), name, score.*, stderr.*, items.*."""
        import pandas as pd

        evaluations = self.evaluations(kind="parent")
        rows = [
            {
                "candidate": p.number,
                "name": p.name,
                **self._scores(evaluations.get(p.number), ("score", "stderr", "items")),
            }
            for p in self.candidates("parent")
        ]
        return pd.DataFrame(rows, columns=["candidate", "name", *self._score_columns()])

    def failures(self) -> pd.DataFrame:
        """Return one row per failed evaluation: candidate, kind, message, worker, seconds, traceback."""
        import pandas as pd

        with self._archive() as archive:
            failed = [outcome for outcome in self._outcomes(archive) if outcome.failure]
        rows = [
            (o.number, o.failure.kind, o.failure.message, o.worker, o.seconds, o.failure.traceback)
            for o in failed
            if o.failure
        ]
        return pd.DataFrame(rows, columns=["candidate", "kind", "message", "worker", "seconds", "traceback"])

    # --- the front ----------------------------------------------------------------------------------------------

    def front(
        self,
        *,
        predicted: int = 0,
        where: Sequence[str] = (),
        beats_parents: bool = False,
        prefer: str | None = None,
        desire: str | None = None,
    ) -> pd.DataFrame:
        """Return the Pareto front, best overall first: candidate, measured, then score.* and stderr.*.

        Args:
            predicted: also this many points that surrogates predict; `candidate` is missing, `measured` false, and
                `stderr` the standard deviation of the prediction. What speaks against them: `front_answer`.
            where: conditions, as in 'safety >= base - 1 point'; the front of the candidates that meet them.
            beats_parents: leave out what a parent dominates.
            prefer: order by a preference, as in 'add=2,sort=1'.
            desire: order by desirability, as in 'add=0.5..0.9,sort=0.2..0.8' (worthless and ideal scores).
        """
        return self.front_answer(FrontRequest(predicted, tuple(where), beats_parents, prefer, desire)).frame()

    def front_answer(self, request: FrontRequest = MEASURED) -> FrontAnswer:
        """Return a front with intervals, the surrogates' errors and the reasons to doubt them; see `results.fronts`."""
        return front_of(self, request)

    def front_mapping(self, request: FrontRequest = MEASURED) -> dict[str, Any]:
        """Return the front as plain data, the form of `front --json`; the hypervolume is that of measured points."""
        answer = self.front_answer(request)
        numbers = [number for number in answer.candidates if number is not None]
        mapping = {
            "objectives": [objective.name for objective in self.objectives],
            "reference": reference_point(self.evaluations(kind="parent"), self.objectives),
            "hypervolume": self._hypervolume(self.evaluations(), numbers),
            "points": answer.points(),
        }
        if request.predicted:
            rows = [] if answer.errors is None else answer.errors.to_dict(orient="records")
            mapping["surrogates"] = [{str(key): plain(value) for key, value in row.items()} for row in rows]
            mapping["warnings"] = list(answer.warnings)
        return mapping

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

    def _hypervolume(self, evaluations: dict[int, Evaluation], numbers: list[int]) -> float:
        reference = reference_point(self.evaluations(kind="parent"), self.objectives)
        point = [objective.fitness(reference[objective.name]) for objective in self.objectives]
        rows = [evaluations[number].fitness(self.objectives) for number in numbers]
        return hypervolume(np.array(rows, dtype=float), point) if rows else 0.0

    def best(self) -> Candidate | None:
        """Return the candidate of highest weighted mean score on the search items; None where none has scores."""
        number = best_number(self.contenders(), self.objectives)
        return None if number is None else self.candidate(number)

    def pick(self, pick: str = "best") -> Candidate:
        """Return the candidate that 'best', 'knee', a number, or a preference as in 'add=2,sort=1' names."""
        evaluations = (
            {**self.evaluations(kind="parent"), **self.evaluations()} if _is_number(pick) else self.contenders()
        )
        return self.candidate(pick_number(str(pick), evaluations, self.objectives))

    def candidate(self, number: int) -> Candidate:
        """Return a candidate, or a parent (negative), by its number."""
        for candidate in self.candidates("search" if number >= 0 else "parent"):
            if candidate.number == number:
                return candidate
        raise InputError(f"no candidate {number} in {str(self.folder)!r}; see: evomerge trials {self.folder}")

    def fingerprint(self, number: int) -> str:
        """Return the fingerprint of the weights that were scored; '' where nothing was."""
        with self._archive() as archive:
            outcome = archive.outcome(number)
        return outcome.fingerprint if outcome else ""

    def responses(self, number: int, split: Split = "search") -> tuple[Response, ...]:
        """Return the answers of one candidate or parent."""
        with self._archive() as archive:
            return archive.responses(split, number)

    def recipe(self, pick: str = "best") -> Recipe:
        """Return the recipe of the picked candidate."""
        return self.pick(pick).recipe

    def finals(self) -> list[Final]:
        """Return finalists and parents on the held-out items, with paired intervals against the best parent."""
        plan, stands_in = self.facts["items"]["holdout"], self.facts["items"]["stands_in"]
        with self._archive() as archive:
            people = sorted(archive.candidates(), key=lambda candidate: (candidate.number < 0, candidate.number))
            done = [c for c in people if (outcome := archive.outcome(c.number, "holdout")) and outcome.done]
            responses = {c.number: archive.responses("holdout", c.number) for c in done} if plan else {}
        names = {c.number: f"parent {c.name}" if c.kind == "parent" else f"candidate {c.number}" for c in people}
        return compare_finals(responses, names, self.objectives, stands_in)

    # --- how it went --------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """One of running, finished, interrupted (by Ctrl-C), stopped (its process is gone)."""
        if holder_of(self.folder):
            return "running"
        with self._archive() as archive:
            last = [event.kind for event in archive.events("asked", "submitted", "resumed", "interrupted", "ended")][
                -1:
            ]
        return {"ended": "finished", "interrupted": "interrupted"}.get(last[0] if last else "", "stopped")

    @property
    def has_result(self) -> bool:
        """True where at least one candidate has scores."""
        return bool(front_numbers(self.evaluations(), self.objectives))

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints: state, counts, best, front size, seconds, utilisation."""
        from evomerge.results.utilisation import summary

        evaluations = self.evaluations()
        with self._archive() as archive:
            outcomes = self._outcomes(archive)
            asked = archive.count("search")
            seconds = archive.seconds()
            limits = dict(self.facts["budget"])
            for event in archive.events("resumed"):  # what a resume gave takes the place of what was there
                limits.update(event.payload)
            use = summary(archive, limits.get("price"))
        last = [outcome for outcome in outcomes if outcome.failure][-3:]
        best = best_number(self.contenders(), self.objectives)
        busy = sum(outcome.seconds for outcome in outcomes if outcome.number >= 0)
        fitness = evaluations[best].fitness(self.objectives) if best is not None else None
        return {
            "state": self.state,
            "candidates": asked,
            "budget": limits,
            "done": sum(o.done for o in outcomes if o.number >= 0),
            "failed": sum(not o.done for o in outcomes if o.number >= 0),
            "best": None
            if best is None or fitness is None
            else {
                "candidate": best,
                "overall": overall(fitness, self.objectives),
                "score": {name: score.value for name, score in evaluations[best].scores.items()},
                "stderr": {name: score.stderr for name, score in evaluations[best].scores.items()},
            },
            **({"estimates": estimates_summary(self.estimates())} if self.estimated else {}),
            "front_size": len(front_numbers(evaluations, self.objectives)),
            "hypervolume": self._hypervolume(evaluations, front_numbers(evaluations, self.objectives)),
            "seconds": seconds,
            "busy_seconds": busy,
            **use,
            "workers": sorted({outcome.worker for outcome in outcomes if outcome.worker}),
            "last_failures": [
                {"candidate": o.number, "kind": o.failure.kind, "message": o.failure.message} for o in last if o.failure
            ],
        }

    def utilisation(self) -> pd.DataFrame:
        """Return one row per worker that ever was: where its time went, over all sessions.

        Columns: worker, node, gpus (its share), done, failed (jobs), busy (share of the time that it was there), then
        seconds of active time: seconds.present, seconds.busy, seconds.wait, seconds.lost (work whose result nobody
        got: a worker died, or another one was faster), and by stage seconds.load, .merge, .rungs, .score, .prefill,
        .decode and .other (what the stages do not explain).
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
        from evomerge.results.exporting import export_candidate

        return export_candidate(self, to, pick=pick, form=form, rank=rank)

    # --- private ------------------------------------------------------------------------------------------------

    def _archive(self) -> Archive:
        return Archive.open(self.folder, read_only=True)

    @staticmethod
    def _outcomes(archive: Archive) -> list[Outcome]:
        """Return the last outcome of every finished candidate and parent on the search items, by number."""
        last = {outcome.number: outcome for outcome in archive.outcomes() if outcome.split == "search"}
        return [last[number] for number in sorted(last)]

    def _score_columns(self, kinds: tuple[str, ...] = ("score", "stderr", "items")) -> list[str]:
        return [f"{kind}.{objective.name}" for kind in kinds for objective in self.objectives]

    def _scores(self, evaluation: Evaluation | None, kinds: tuple[str, ...]) -> dict[str, float]:
        field = {"score": "value", "stderr": "stderr", "items": "items"}
        scores = evaluation.scores if evaluation else {}
        return {
            f"{kind}.{o.name}": getattr(scores[o.name], field[kind])
            if o.name in scores
            else (0 if kind == "items" else np.nan)
            for kind in kinds
            for o in self.objectives
        }


def _is_number(text: str | int) -> bool:
    return str(text).strip().lstrip("-").isdigit()
