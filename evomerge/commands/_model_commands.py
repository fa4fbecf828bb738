"""The verbs that work on one model: merge a recipe, score a model, replay a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.candidate import Answers, Candidate, Job, Objective, Outcome, Response, Score
from evomerge.commands._search_options import Execution
from evomerge.config import load_recipe
from evomerge.errors import CandidateError, InputError
from evomerge.recipe import Recipe, passthrough
from evomerge.runs import Run, evaluation_of, open_run
from evomerge.scoring import TaskSet, TaskSettings, split
from evomerge.workers import WorkerSpec


def merge_recipe(recipe: str | Path, to: str | Path, *, form: str = "hf", rank: int | str | None = None) -> str:
    """Carry out the recipe (or mergekit YAML) in a file, write the merged model, and say what was written.

    Args:
        recipe: file.
        to: folder to make.
        form: hf, or lora: an adapter of the recipe's base.
        rank: of a lora: a number or 'auto'; None: 'auto'.

    Raises:
        InputError: an unknown form, or a rank for a form that has none.
        SearchFileError: the file has mistakes; all are listed.
        WeightsError: a model is missing or does not fit, or the folder cannot be written.

    >>> from pathlib import Path
    >>> from evomerge import merge_recipe
    >>> models = "[{model: examples/experts/add}, {model: examples/experts/sort}]"
    >>> text = f"{{merge_method: linear, models: {models}, parameters: {{weight: 0.5}}}}"
    >>> _ = Path("half.yaml").write_text(text)
    >>> merge_recipe("half.yaml", "half")
    'wrote half (3.0 MB, fingerprint ...)'
    """
    from evomerge.checkpoints import revision_of
    from evomerge.engine import export
    from evomerge.runs import findings_text, recipe_card, write_lora

    if form not in ("hf", "lora") or (rank is not None and form != "lora"):
        raise InputError(f"expected form hf, or lora with a rank, got form {form!r} and rank {rank!r}")
    loaded = load_recipe(recipe)
    loaded = loaded.with_revisions(
        {**{name: revision_of(name) for name in loaded.references()}, **dict(loaded.revisions)}
    )
    name = Path(to).name
    if form == "lora":
        return f"wrote {write_lora(loaded, to, rank, lambda lora: recipe_card(loaded, name, lora))}"
    report = export(loaded, to, card=recipe_card(loaded, name))
    size = f"{report.bytes / 1e6:.1f} MB, fingerprint {report.fingerprint}"
    return f"wrote {report.folder} ({size}){findings_text(report.findings)}"


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model."""

    model: str
    digest: str  # digest of the recipe
    objectives: tuple[Objective, ...]
    scores: dict[str, Score]  # scores, one per objective

    def to_mapping(self) -> dict[str, Any]:
        """Return the form of `score --json`."""
        scores = {
            objective.name: {
                "metric": objective.metric,
                "value": self.scores[objective.name].value,
                "stderr": self.scores[objective.name].stderr,
                "items": self.scores[objective.name].items,
            }
            for objective in self.objectives
        }
        return {"model": self.model, "digest": self.digest, "scores": scores}

    def text(self) -> str:
        """Return the scores for people."""
        width = max(len(objective.name) for objective in self.objectives)
        lines = [self.model]
        for objective in self.objectives:
            score = self.scores[objective.name]
            low, high = score.interval()
            lines.append(
                f"  {objective.name:<{width}}  {objective.metric:<12} {score.value:.4f} ± {score.stderr:.4f}"
                f"   95% interval [{low:.3f}, {high:.3f}], {score.items} items"
            )
        return "\n".join(lines)


def score(
    model: str | Path,
    *,
    tasks: Sequence[str],
    include: Sequence[str] = (),
    items: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int | None = None,
    allow_code_execution: bool = False,
) -> ModelScores:
    """Return the scores of a model folder, a hub id, or a recipe on lm-eval tasks.

    Args:
        model: what to score; a file that ends in .yaml or .yml is a recipe.
        tasks: task names, each with ':metric' where it is not the task's first.
        include: further folders with task YAML.
        items: ask this many pinned items of each task instead of all.
        num_fewshot: examples before each question; None: as the task says.
        batch_size: None: chosen from memory.
        allow_code_execution: let tasks run code that the model writes. Use a sandbox.

    Raises:
        InputError: no task is named.
        TaskError: a task or metric is unknown.
        WeightsError: a model is missing or damaged.
        CandidateError: the model's output is not a number.

    >>> from evomerge import score
    >>> found = score("examples/experts/add", tasks=["add"], include=["examples/tasks"], items=4)
    >>> found.scores["add"].items
    4
    """
    if not tasks:
        raise InputError("--tasks must name at least one task")
    recipe = load_recipe(model) if str(model).endswith((".yaml", ".yml")) else passthrough(str(model))
    lm_eval = Execution(allow_code_execution=allow_code_execution).allow_code({})
    settings = TaskSettings(
        tuple(include), {**lm_eval, **({} if num_fewshot is None else {"num_fewshot": num_fewshot})}
    )
    wanted = [name.partition(":") for name in tasks]
    task_set = TaskSet.load([name for name, _, _ in wanted], settings)
    objectives = tuple(
        task_set.objective(name, metric or None, name=full)
        for (name, _, metric), full in zip(wanted, tasks, strict=True)
    )
    documents = {objective.task: task_set.documents(objective.task) for objective in objectives}
    plan = split(documents, items=items, holdout=0.0, seed=0)
    models = recipe.references()
    spec = WorkerSpec(models, tuple(documents), settings, batch_size=batch_size, tokenizer=recipe.tokenizer_choice)
    responses, _ = _answers(spec, recipe, plan.search)
    evaluation = evaluation_of(0, responses, objectives)
    return ModelScores(str(model), recipe.digest, objectives, dict(evaluation.scores))


@dataclass(frozen=True)
class Replay:
    """A candidate's weights and answers, then and now."""

    candidate: int
    digest: str
    fingerprint: str
    stored_fingerprint: str
    scores: dict[str, Score]
    stored_scores: dict[str, Score]
    changed_items: int  # answers that differ from the stored ones
    items: int

    @property
    def same(self) -> bool:
        """True where weights and every answer are the same again."""
        return self.fingerprint == self.stored_fingerprint and not self.changed_items

    def to_mapping(self) -> dict[str, Any]:
        """Return the form of `replay --json`."""
        return {
            "candidate": self.candidate,
            "digest": self.digest,
            "same": self.same,
            "fingerprint": self.fingerprint,
            "stored_fingerprint": self.stored_fingerprint,
            "score": {name: value.value for name, value in self.scores.items()},
            "stored_score": {name: value.value for name, value in self.stored_scores.items()},
            "changed_items": self.changed_items,
            "items": self.items,
        }

    def text(self) -> str:
        """Return the comparison for people."""
        weights = (
            "the same" if self.fingerprint == self.stored_fingerprint else f"DIFFERENT ({self.stored_fingerprint} then)"
        )
        answers = "all the same" if not self.changed_items else f"{self.changed_items} DIFFERENT"
        lines = [
            f"candidate {self.candidate}, recipe {self.digest[:16]}",
            f"  weights  fingerprint {self.fingerprint}: {weights}",
            f"  answers  {self.items} items: {answers}",
        ]
        for name, value in self.scores.items():
            lines.append(f"  {name:<8} {value.value:.4f} (stored {self.stored_scores[name].value:.4f})")
        return "\n".join(lines)


def replay(folder: str | Path, candidate: int | str, allow_code_execution: bool = False) -> Replay:
    """Return how a candidate's weights, built again, and its answers compare with those that are stored.

    Args:
        folder: of the run.
        candidate: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'; as `pick` in
            `Run.export`.
        allow_code_execution: let tasks run code that the model writes. Use a sandbox.

    Raises:
        InputError: there is no such candidate, or it has no scores.
        WeightsError: a model has changed since the search.

    >>> from evomerge import replay, search
    >>> run = search("small.yaml", out="runs/replayed", candidates=1)
    >>> replay("runs/replayed", 0).same
    True
    """
    from evomerge.commands._prepare import from_config

    run = open_run(folder)
    found = _chosen(run, candidate)
    candidate = found.number
    stored = run.data.evaluations("parent" if candidate < 0 else "search").get(candidate)
    if stored is None or stored.failure is not None:
        why = f"failed ({stored.failure.message})" if stored and stored.failure else "has not been scored"
        raise InputError(f"candidate {candidate} {why}, so there is nothing to compare a replay with")
    preparation = from_config(run.config)
    Execution(allow_code_execution=allow_code_execution).allow_code(preparation.spec.task_settings.lm_eval)
    spec = replace(preparation.spec, cache=None)  # the model is asked again, which is the point
    responses, outcome = _answers(spec, found.recipe, preparation.plan.search)
    before = {(r.task, r.item, r.metric): r.value for r in run.data.responses(candidate)}
    timed = {objective.task for objective in run.objectives if objective.kind == "seconds"}  # differs every time
    changed = sum(before.get((r.task, r.item, r.metric)) != r.value for r in responses if r.task not in timed)
    return Replay(
        candidate,
        found.recipe.digest,
        outcome.fingerprint,
        run.data.fingerprint(candidate),
        dict(evaluation_of(candidate, responses, run.objectives).scores),
        dict(stored.scores),
        changed,
        len(before),
    )


def _chosen(run: Run, candidate: int | str) -> Candidate:
    """Return the candidate of a number, whatever became of it, or the one that a pick names."""
    text = str(candidate).strip()
    return run.data.candidate(int(text)) if text.removeprefix("-").isdecimal() else run.pick(text)


def _answers(
    spec: WorkerSpec, recipe: Recipe, items: dict[str, tuple[str, ...]] | Any
) -> tuple[list[Response], Outcome]:
    """Return what one recipe answers in this process; what goes wrong is raised."""
    responses: list[Response] = []
    for result in spec.build().evaluate(Job(Candidate(0, recipe), "search", items)):
        if isinstance(result, Answers):
            responses += result.responses
        else:
            return responses, result
    raise CandidateError("the worker ended without an outcome")
