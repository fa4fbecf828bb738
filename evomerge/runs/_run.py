"""A run folder, read: trials, fronts, the best candidate, held-out results, status, export. Works during a run too.

Needs pandas only; torch, ray and lm-eval may be absent. Every method reads the archive afresh, so the same object
shows the progress of a run that goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.archive import FILE_NAME
from evomerge.candidate import Candidate, Objective, Split
from evomerge.errors import RunError
from evomerge.recipe import Recipe
from evomerge.run_config import RunConfig
from evomerge.runs._candidate_selection import best_candidate, picked_candidate
from evomerge.runs._comparison import Comparison, compare_models
from evomerge.runs._evaluations import front_numbers
from evomerge.runs._fronts import MEASURED, FrontAnswer, FrontRequest, front_frame, front_of
from evomerge.runs._holdout import Final, finals_of
from evomerge.runs._run_data import RunData
from evomerge.runs._status import status_of
from evomerge.runs._tables import RunTables
from evomerge.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

    from evomerge.runs._front_table import Front


def open_run(folder: str | Path) -> Run:
    """Return the run in `folder`.

    Raises:
        RunError: the folder does not exist or holds no run.

    >>> run = open_run("runs/quickstart")
    >>> run.state, [objective.name for objective in run.objectives]
    ('finished', ['left', 'right'])
    """
    path = Path(folder)
    if not (path / FILE_NAME).is_file():
        if path.is_file():  # a search file, most likely
            raise RunError(f"expected a run folder, got the file {str(folder)!r}")
        found = "the folder does not exist" if not path.is_dir() else f"it holds no {FILE_NAME}"
        raise RunError(f"no run in {str(folder)!r}: {found}. Start one with: evomerge search FILE --out {folder}")
    return Run(path)


class Run:
    """A run folder, read-only. Tables are tidy pandas frames; scores are in the metrics' own units."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = RunData(folder)  # candidates, answers, evaluations
        self.tables = RunTables(self.data)  # history, utilisation, importance, and all other frames

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.state}, {len(self.data.candidates())} candidates)"

    def _repr_html_(self) -> str:
        from evomerge.runs._overview import overview

        return overview(self.data)

    @property
    def config(self) -> RunConfig:
        """The configuration that was fixed when the search began: search file, models, items, seed, versions ..."""
        return self.data.config

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, in the search file's order."""
        return self.data.objectives

    @property
    def space(self) -> SearchSpace:
        """The search space, built from the stored facts alone."""
        return self.data.space

    @property
    def state(self) -> str:
        """One of running, finished, interrupted (by Ctrl-C), stopped (its process is gone)."""
        return self.data.state

    # --- tables -------------------------------------------------------------------------------------------------

    def trials(self) -> pd.DataFrame:
        """Return one row per candidate: status, scores with standard errors, genes in the user's units.

        Columns: candidate, status (pending, running, done, failed), failure (message), seconds, worker, digest (of the
        recipe), then per objective score.*, stderr.* (metric's units), items.* (answered), then gene.* (user's units;
        missing where the chosen method does not use the gene). Last, for objectives whose answers are written,
        truncated.* and unextracted.*: the fraction of answers that the limit of tokens cut off, and of those in which
        the task's filter found no answer; and shortened.*, of questions that lost their beginning to fit the context.
        Under an asynchronous controller also staleness: by how many updates the controller had moved on between
        proposing a candidate and observing it.

        >>> run = open_run("runs/quickstart")
        >>> run.trials()[["candidate", "status", "score.left"]].head(2).round(3)
           candidate status  score.left
        0          0   done        0.75
        1          1   done        0.40
        """
        return self.tables.trials()

    def items(self, split: Split = "search") -> pd.DataFrame:
        """Return one row per answer: candidate, task, item (document id), metric, value (metric's units), answer.

        Args:
            split: search, rest or holdout items.

        >>> run = open_run("runs/quickstart")
        >>> run.items().head(2)[["candidate", "task", "item", "value"]]
           candidate  task    item  value
        0         -3  left  left-0    0.0
        1         -3  left  left-1    0.0
        """
        return self.tables.items(split)

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
                `stderr` the standard deviation of the prediction. Reasons to doubt them: `front_answer`.
            where: constraints, as in 'safety >= base - 1 point'; the front of the candidates that meet them.
            beats_parents: leave out what a parent dominates.
            prefer: order by a preference, as in 'add=2,sort=1'.
            desire: order by desirability, as in 'add=0.5..0.9,sort=0.2..0.8' (worthless and ideal scores).

        >>> run = open_run("runs/quickstart")
        >>> front = run.front()
        >>> list(front.columns)
        ['candidate', 'measured', 'score.left', 'score.right', 'stderr.left', 'stderr.right']
        >>> len(run.front(where=["left >= base"])) <= len(front)
        True
        """
        return front_frame(self.data, FrontRequest(predicted, tuple(where), beats_parents, prefer, desire))

    def front_answer(self, request: FrontRequest = MEASURED) -> FrontAnswer:
        """Return a front with intervals, the surrogates' errors and the reasons to doubt them; see `results.fronts`.

        Args:
            request: what is wanted; default: the measured front, best overall first.
        """
        return front_of(self.data, request)

    # --- one candidate ------------------------------------------------------------------------------------------

    def best(self) -> Candidate | None:
        """Return the candidate of highest weighted mean score on the search items, of those that meet the constraints.

        None where there is no such candidate; `status()` says why.

        >>> run = open_run("runs/quickstart")
        >>> best = run.best()
        >>> best.number, best.recipe.method
        (6, 'task_arithmetic')
        """
        return best_candidate(self.data)

    def pick(self, pick: int | str = "best") -> Candidate:
        """Return the candidate that 'best', 'knee', a number, or a preference as in 'add=2,sort=1' names.

        Args:
            pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.

        Raises:
            InputError: there is no such candidate, or it failed.

        >>> run = open_run("runs/quickstart")
        >>> run.pick("knee").number, run.pick(3).number, run.pick("left=2,right=1").number
        (9, 3, 0)
        """
        return picked_candidate(self.data, str(pick))

    def recipe(self, pick: int | str = "best") -> Recipe:
        """Return the recipe of the picked candidate.

        Args:
            pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.

        >>> run = open_run("runs/quickstart")
        >>> run.recipe("best").to_mapping()["merge_method"]
        'task_arithmetic'
        """
        return self.pick(pick).recipe

    def compare(self, a: int | str, b: int | str, *, split: Split | None = None, level: float = 0.95) -> Comparison:
        """Return the paired comparison of two models: per item, and the difference with its interval.

        Args:
            a: a candidate's number, 'best', 'knee', a preference as in 'add=2,sort=1', or a parent's name.
            b: likewise; a positive difference says that `a` is better.
            split: search or holdout items; None: held-out items where both have answered them, which is fairer to
                both, because search items helped to choose among the candidates.
            level: of the intervals.

        Raises:
            InputError: there is no such model, or the two have no answered item in common.

        >>> run = open_run("runs/quickstart")
        >>> comparison = run.compare("best", "left")
        >>> list(comparison.table()["objective"])
        ['left', 'right']
        >>> comparison.overall.low < comparison.overall.value < comparison.overall.high
        True
        """
        return compare_models(self.data, a, b, split=split, level=level)

    def finals(self) -> list[Final]:
        """Return finalists and parents on the held-out items, with paired intervals against the best parent.

        >>> run = open_run("runs/quickstart")
        >>> [final.name for final in run.finals()]
        ['parent right', 'parent left', 'parent base', 'candidate 0', 'candidate 1']
        """
        return finals_of(self.data)

    def export(
        self, to: str | Path, *, pick: int | str = "best", form: str = "hf", rank: int | str | None = None
    ) -> str:
        """Write a candidate as a model folder ('hf'), an adapter of its base ('lora'), a mergekit YAML, or a recipe.

        Args:
            to: folder or file to write.
            pick: best, knee, a number, or a preference as in 'add=2,sort=1'.
            form: hf, lora, mergekit or recipe.
            rank: of a lora: a number or 'auto'; None: 'auto'.

        Returns:
            A sentence that says what was written.

        >>> run = open_run("runs/quickstart")
        >>> run.export("best.yaml", form="mergekit")
        'wrote candidate 6 as a mergekit file: best.yaml'
        """
        from evomerge.runs._export import export_candidate  # imported when used, as are the weights behind it

        return export_candidate(self.data, to, pick=str(pick), form=form, rank=rank)

    # --- how it went --------------------------------------------------------------------------------------------

    @property
    def has_result(self) -> bool:
        """True where at least one candidate has scores, and meets the search's constraints."""
        return bool(front_numbers(self.data.feasible(), self.objectives))

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints: state, counts, best, front size, seconds, utilisation.

        >>> run = open_run("runs/quickstart")
        >>> status = run.status()
        >>> status["state"], status["done"], status["failed"]
        ('finished', 15, 1)
        """
        return status_of(self.data)

    def status_text(self) -> str:
        """Return the status as text for the terminal.

        >>> run = open_run("runs/quickstart")
        >>> print(run.status_text().splitlines()[1])
          candidates  15 done, 1 failed, of 16
        """
        from evomerge.runs._summaries import status_text

        return status_text(self.data)

    def summary(self) -> str:
        """Return what the end of a search prints: the front, the verdict on held-out items, what to type next.

        >>> run = open_run("runs/quickstart")
        >>> print(run.summary().splitlines()[2])
        Pareto front, 7 candidates (search items; mean ± standard error):
        """
        from evomerge.runs._summaries import summary_text

        return summary_text(self.data)
