"""The data of a run: configuration, candidates, answers, outcomes, and the evaluations that follow from them.

Everything else about a run (fronts, tables, texts) is a function of a `RunData`. Reading is safe during a search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.archive import Archive, holder_of
from evomerge.candidate import FIRST_REMEASURED, Candidate, Evaluation, Kind, Objective, Outcome, Response, Split
from evomerge.errors import InputError
from evomerge.run_config import RunConfig
from evomerge.runs._estimates import best_evaluation, full_only, recorded_estimates, search_answers
from evomerge.runs._evaluations import answered_everything, evaluation_of
from evomerge.runs._feasibility import (
    Constraint,
    feasible_evaluations,
    infeasible_text,
    parent_scores,
    read_constraints,
)
from evomerge.runs._frames import flag_metrics
from evomerge.runs._utilisation import usage_summary
from evomerge.space import SearchSpace


class RunData:
    """The archive of a run folder, read afresh at every call; only evaluations are kept, because they never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, Evaluation] = {}  # evaluations on search items are cached: stored answers never change

    @cached_property
    def config(self) -> RunConfig:
        """The configuration that was fixed when the search began: search file, models, items, seed, versions ..."""
        with self.open_archive() as archive:
            return RunConfig.from_json(archive.config_json)

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, in the search file's order."""
        return self.config.objectives

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, built from the stored configuration alone."""
        return self.config.space()

    def candidates(self, kind: Kind = "search") -> list[Candidate]:
        """Return the proposed candidates with those remeasured, or the parents with the base first, in order.

        Args:
            kind: search, which includes those remeasured, or parent.
        """
        with self.open_archive() as archive:
            found = [*archive.candidates(kind), *(archive.candidates("remeasured") if kind == "search" else ())]
        return sorted(found, key=lambda candidate: abs(candidate.number))

    def evaluations(self, kind: Kind = "search") -> dict[int, Evaluation]:
        """Return number -> evaluation on the search items, of the candidates, or parents, that are finished.

        Args:
            kind: search or parent.
        """
        finished = {o.number: o for o in self.outcomes() if (o.number < 0) == (kind == "parent")}
        racing = self.config.racing is not None
        with self.open_archive() as archive:
            whole = answered_everything(archive.events("observed")) if racing else set()
            for number, outcome in finished.items():
                if outcome.failure is not None:  # a failure may be retried on resume: replaced every time
                    self._known[number] = Evaluation(number, {}, outcome.failure)
                elif self.estimated and number >= 0:  # `_estimates` below, all together
                    continue
                elif number not in self._known or self._known[number].failure or self._known[number].partial:
                    found = evaluation_of(number, archive.responses("search", number), self.objectives)
                    self._known[number] = replace(found, partial=racing and number >= 0 and number not in whole)
            if self.estimated and kind == "search":
                # never cached: finalists' answers replace estimates later
                self._known.update(self._estimates(archive, finished))
        return {number: self._known[number] for number in sorted(finished) if number in self._known}

    def _estimates(self, archive: Archive, finished: Mapping[int, Outcome]) -> dict[int, Evaluation]:
        """Return the evaluations of candidates estimated from few items; candidates never observed are left out."""
        estimates = recorded_estimates(archive)
        items = self.config.items.search
        observed = {event.candidate for event in archive.events("observed")}
        return {
            number: best_evaluation(
                number, search_answers(archive, number), estimates.get(number, {}), self.objectives, items
            )
            for number, outcome in finished.items()
            # a finished job may still be unknown to the controller
            if outcome.done and (number in observed or number >= FIRST_REMEASURED)
        }

    @property
    def estimated(self) -> bool:
        """True where scores are estimated from few items, and only some candidates answered all of them."""
        return self.config.estimation is not None

    def full_candidates(self) -> list[int]:
        """Return the candidates that answered every search item: all that are scored, where nothing is estimated."""
        evaluations = self.evaluations()
        if not self.estimated:
            return [number for number, evaluation in evaluations.items() if evaluation.failure is None]
        totals = {o.name: len(self.config.items.search[o.task]) for o in self.objectives}
        return [
            number
            for number, evaluation in evaluations.items()
            if evaluation.scores and all(score.items >= totals[name] for name, score in evaluation.scores.items())
        ]

    def constraints(self) -> tuple[Constraint, ...] | None:
        """Return the search's constraints as numbers, () without any.

        None until the parents that they name have scores.
        """
        texts = self.config.constraints
        scores = parent_scores(self.candidates("parent"), self.evaluations("parent")) if texts else {}
        try:
            return read_constraints(texts, self.objectives, scores)
        except InputError:  # a parent is not scored yet
            return None

    def feasible(self) -> dict[int, Evaluation]:
        """Return the evaluations of the candidates that meet the search's constraints: all of them without any."""
        return self._meeting(self.evaluations())

    def infeasible(self) -> str | None:
        """Return why no candidate that has scores meets the constraints; None where one does, or none has any."""
        return infeasible_text(self.evaluations(), self.constraints() or (), self.objectives)

    def _meeting(self, evaluations: dict[int, Evaluation]) -> dict[int, Evaluation]:
        constraints = self.constraints()
        return {} if constraints is None else feasible_evaluations(evaluations, constraints, self.objectives)

    def selection_pool(self) -> dict[int, Evaluation]:
        """Return the evaluations among which the best is chosen: of candidates that meet the search's constraints.

        Once finalists have answered every search item, only they are left, see `estimates.full_only`.
        """
        evaluations = self.evaluations()
        with self.open_archive() as archive:
            complete = full_only(archive)
        return self._meeting({n: evaluations[n] for n in self.full_candidates()} if complete else evaluations)

    def outcomes(self, split: Split = "search") -> list[Outcome]:
        """Return the last outcome of every finished candidate and parent on the items of `split`, by number."""
        with self.open_archive() as archive:
            # a later outcome, from a resumed run, replaces an earlier one
            last = {outcome.number: outcome for outcome in archive.outcomes() if outcome.split == split}
        return [last[number] for number in sorted(last)]

    def candidate(self, number: int) -> Candidate:
        """Return a candidate, or a parent (negative), by its number.

        Args:
            number: of the candidate; negative for a parent.

        Raises:
            InputError: there is none.
        """
        for candidate in self.candidates("search" if number >= 0 else "parent"):
            if candidate.number == number:
                return candidate
        raise InputError(f"no candidate {number} in {str(self.folder)!r}; see: evomerge trials {self.folder}")

    def fingerprint(self, number: int) -> str:
        """Return the fingerprint of the weights that were scored; '' where nothing was.

        Args:
            number: of the candidate; negative for a parent.
        """
        with self.open_archive() as archive:
            outcome = archive.outcome(number)
        return outcome.fingerprint if outcome else ""

    def responses(self, number: int, split: Split = "search") -> tuple[Response, ...]:
        """Return the answers of one candidate or parent.

        Args:
            number: of the candidate; negative for a parent.
            split: search, rest (what finalists answered beside the anchors) or holdout items.
        """
        with self.open_archive() as archive:
            return archive.responses(split, number)

    def answers_of(self, numbers: Iterable[int], split: Split = "search") -> dict[int, tuple[Response, ...]]:
        """Return the answers of several candidates or parents, by number.

        Args:
            numbers: of candidates and parents.
            split: as in `responses`.
        """
        with self.open_archive() as archive:
            return {number: archive.responses(split, number) for number in numbers}

    def answer_flags(self) -> dict[int, dict[tuple[str, str], float]]:
        """Return candidate or parent -> (kind, objective) -> fraction of its search answers; kinds: `ANSWER_FLAGS`."""
        wanted = flag_metrics(self.objectives)
        with self.open_archive() as archive:
            means = archive.means("search", sorted({metric for _, metric in wanted}))
        found: dict[int, dict[tuple[str, str], float]] = {}
        for (number, task, metric), fraction in means.items():
            if (task, metric) in wanted:
                found.setdefault(number, {})[wanted[task, metric]] = fraction
        return found

    @property
    def state(self) -> str:
        """One of running, finished, interrupted (by Ctrl-C), stopped (its process is gone)."""
        if holder_of(self.folder):  # the lock's holder is a live process
            return "running"
        with self.open_archive() as archive:
            last = [event.kind for event in archive.events("asked", "submitted", "resumed", "interrupted", "ended")][
                -1:
            ]
        return {"ended": "finished", "interrupted": "interrupted"}.get(last[0] if last else "", "stopped")

    def count(self) -> int:
        """Return how many candidates were proposed so far."""
        with self.open_archive() as archive:
            return archive.count("search")

    def seconds(self) -> float:
        """Return the active time of the run in seconds, over all its sessions."""
        with self.open_archive() as archive:
            return archive.seconds()

    def budget(self) -> dict[str, Any]:
        """Return the limits (candidates, hours, ...) that hold now: the file's, or those of the last `resume`."""
        with self.open_archive() as archive:
            return asdict(self.config.budget.after(event.payload for event in archive.events("resumed")))

    def usage(self) -> dict[str, Any]:
        """Return where the time went: busy fraction, seconds by stage, candidates per hour, and what it cost."""
        with self.open_archive() as archive:
            return usage_summary(archive, self.budget().get("price"))

    def answered_holdout(self, number: int) -> bool:
        """Return whether a candidate or parent has answered the held-out items."""
        with self.open_archive() as archive:
            outcome = archive.outcome(number, "holdout")
        return outcome is not None and outcome.done

    def open_archive(self) -> Archive:
        """Return the archive, opened for reading; close it, or use it as a context manager."""
        return Archive.open(self.folder, read_only=True)
