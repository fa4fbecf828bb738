"""The worker: keeps the models on its device, writes a candidate in place, and lets it answer.

A plain class. The local pool calls it in this process, the Ray pool inside an actor; neither is known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from evomerge._tokenizer import TokenizerChoice
from evomerge.candidate import LAYERS_RUN, LAYERS_SHARED, Answers, Job, Outcome
from evomerge.checkpoints import Layout
from evomerge.engine import ResidentModel
from evomerge.errors import WeightsError
from evomerge.scoring import AnswerCache, Measure, ModelScorer, SanityChecks, TaskSet, TaskSettings, check_norms

# Parameters. Below, threads spend more time waiting for each other than working, and much more where cores are shared.
SMALL_MODEL = 20_000_000
# Between two portions of one task's answers: what a worker that is killed has done in vain, and the rate at which the
# driver is told of half-done tasks.
PORTION_SECONDS = 5.0


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that builds a worker, as plain data that travels to any node."""

    models: tuple[str, ...]  # every model that a recipe may name; the first gives configuration and tokenizer
    tasks: tuple[str, ...]
    task_settings: TaskSettings
    revisions: Mapping[str, str] = field(default_factory=dict)  # model -> revision that it must have here too
    batch_size: int | None = None  # None: chosen from memory
    device: str | None = None  # None: the GPU that this process may use, else the CPU
    tokenizer: TokenizerChoice | None = None  # tokenizer of the merged models; None: the first model's
    threads: int | None = None  # torch's threads on the CPU; None: one for a small model, else torch's own choice
    measures: tuple[Measure, ...] = ()  # what is asked beside the tasks
    cache: str | None = None  # folder of answers that are kept across runs
    sanity_checks: SanityChecks | None = None  # what a candidate must pass before it is scored
    share_bytes: int | None = None  # memory for activations that routes share; None: chosen from what is free
    portion_seconds: float = PORTION_SECONDS
    shared: bool = False  # on the CPU: one copy of the parents for all workers of a machine, mapped from their files

    def build(self) -> Worker:
        """Load the models and prepare the tasks; done once per worker."""
        return Worker(self)


class Worker:
    """Evaluates jobs one after another on one device; owns the resident model and nothing else."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._resident = ResidentModel(
            spec.models,
            device=spec.device,
            revisions=spec.revisions,
            tokenizer=spec.tokenizer,
            share_bytes=spec.share_bytes,
            shared=spec.shared,
        )
        self._files = MappedFiles(self._resident.parents.layouts.values()) if spec.shared else None
        self._sanity_checks = spec.sanity_checks
        self._portion_seconds = spec.portion_seconds
        self._parent_norms = self._resident.parent_norms() if spec.sanity_checks is not None else {}
        tasks = TaskSet.load(spec.tasks, spec.task_settings)
        cache = AnswerCache(spec.cache) if spec.cache else None
        self._scorer = ModelScorer(
            self._resident.model,
            self._resident.tokenizer,
            tasks,
            spec.measures,
            batch_size=spec.batch_size or "auto",
            cache=cache,
        )
        size = sum(parameter.numel() for parameter in self._resident.model.parameters())
        self._threads = spec.threads or (1 if size < SMALL_MODEL else None)

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Write the job's recipe into the resident model and yield the answers of its tasks, then the outcome.

        Raises:
            CandidateError: the merged weights or the model's output are not finite, or it failed a sanity check.
        """
        with _threads(self._threads):
            yield from self._evaluate(job)

    def _evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        started = time.monotonic()
        self._scorer.limit_memory(job.memory)
        if self._files is not None:
            self._files.check()
        fingerprint = self._resident.write(job.candidate.recipe)
        # The fingerprint is of the tensors and, in a route, of their order and scales; what else a configuration may
        # say of single layers, the recipe tells.
        rearranged = job.candidate.recipe.route is not None or job.candidate.recipe.slices
        weights = f"{fingerprint} {job.candidate.recipe.digest}" if rearranged else fingerprint
        stages = {"merge": time.monotonic() - started}
        if self._sanity_checks is not None and job.candidate.kind != "parent" and job.split == "search":
            begun = time.monotonic()
            self._check_sanity(job, self._sanity_checks)
            stages["sanity_checks"] = time.monotonic() - begun
        for task in job.items:
            yield from self._answer(job, task, weights, stages)
        yield Outcome(
            job.candidate.number,
            job.split,
            seconds=time.monotonic() - started,
            stages=stages,
            fingerprint=fingerprint,
        )

    def _answer(self, job: Job, task: str, weights: str, stages: dict[str, float]) -> Iterator[Answers]:
        """Yield the answers to a task, those of a long one portion by portion; note the seconds in `stages`."""
        begun = time.monotonic()
        self._scorer.stopwatch.take()
        items = job.items[task]
        left = len(items)
        together = job.together.get(task, items)
        for responses in self._scorer.portions(weights, task, items, together, self._portion_seconds):
            answers = Answers(job.candidate.number, job.split, task, responses)
            left -= len(answers.items)
            yield replace(answers, left=left)
        prefill, decode = self._scorer.stopwatch.take()
        stages |= {f"prefill.{task}": prefill} | ({f"decode.{task}": decode} if decode else {})
        stages[f"score.{task}"] = max(0.0, time.monotonic() - begun - prefill - decode)
        stages |= self._layer_work()

    def _layer_work(self) -> dict[str, float]:
        """Return how many layer evaluations a route cost and how many it shared with other candidates."""
        work = self._resident.work
        return {} if work is None else {LAYERS_RUN: float(work.run), LAYERS_SHARED: float(work.shared)}

    def _check_sanity(self, job: Job, sanity_checks: SanityChecks) -> None:
        """Raise CandidateError where the candidate fails a sanity check, the cheapest first."""
        check_norms(self._resident.norms(), self._parent_norms, sanity_checks.norm_ratio)
        for task, items in job.items.items():
            # those that it was asked first: a candidate that was stopped half-way is probed as it was before
            self._scorer.probe(task, job.together.get(task, items), sanity_checks)


class MappedFiles:
    """The files behind shared weights, which are to stay as they were: what is written to them is in our memory too."""

    def __init__(self, layouts: Iterable[Layout]) -> None:
        paths = {layout.folder / tensor.file for layout in layouts for tensor in layout.tensors.values()}
        self._stats = {path: _state(path) for path in sorted(paths)}

    def check(self) -> None:
        """Raise WeightsError where a file was written to, or replaced, since the weights were mapped."""
        for path, state in self._stats.items():
            if _state(path) != state:
                raise WeightsError(
                    f"'{path}' was changed while a search uses it; put back the model that the search began with, and "
                    "resume"
                )


def _state(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:  # removed: its contents stay mapped as they were, but nobody could check them
        return (0, 0, 0)
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use this many threads inside; the process that we run in keeps its own number."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
