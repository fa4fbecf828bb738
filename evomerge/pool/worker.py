"""The worker: keeps the models on its device, writes a candidate in place, and lets it answer.

A plain class. The local pool calls it in this process, the Ray pool inside an actor; neither is known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from evomerge.candidate import Answers, Job, Outcome
from evomerge.scoring.answering import Answerer
from evomerge.scoring.harness import TaskSet, TaskSettings
from evomerge.scoring.measures import Measure
from evomerge.tokenizer import TokenizerChoice
from evomerge.weights.resident import Resident


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that builds a worker, as plain data that travels to any node."""

    models: tuple[str, ...]  # every model that a recipe may name; the first gives configuration and tokenizer
    tasks: tuple[str, ...]
    task_settings: TaskSettings
    revisions: Mapping[str, str] = field(default_factory=dict)  # model -> revision that it must have here too
    batch_size: int | None = None  # None: chosen from memory
    device: str | None = None  # None: the GPU that this process may use, else the CPU
    tokenizer: TokenizerChoice | None = None  # of the merged models; None: the first model's
    threads: int | None = None  # of torch on the CPU; None: torch's own choice
    measures: tuple[Measure, ...] = ()  # what is asked beside the tasks

    def build(self) -> Worker:
        """Load the models and prepare the tasks; done once per worker."""
        return Worker(self)


class Worker:
    """Evaluates jobs one after another on one device; owns the resident model and nothing else."""

    def __init__(self, spec: WorkerSpec) -> None:
        import torch

        if spec.threads is not None and spec.device in (None, "cpu"):
            torch.set_num_threads(spec.threads)
        self._resident = Resident(spec.models, device=spec.device, revisions=spec.revisions, tokenizer=spec.tokenizer)
        tasks = TaskSet.load(spec.tasks, spec.task_settings)
        self._scorer = Answerer(
            self._resident.model, self._resident.tokenizer, tasks, spec.measures, batch_size=spec.batch_size or "auto"
        )

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Write the job's recipe into the resident model and yield the answers of each task, then the outcome.

        Raises:
            CandidateError: the merged weights or the model's output are not finite.
        """
        started = time.monotonic()
        fingerprint = self._resident.write(job.candidate.recipe)
        stages = {"merge": time.monotonic() - started}
        for task, items in job.items.items():
            begun = time.monotonic()
            responses = self._scorer.answers(task, items)
            stages[f"score.{task}"] = time.monotonic() - begun
            yield Answers(job.candidate.number, job.split, task, responses)
        yield Outcome(
            job.candidate.number,
            job.split,
            seconds=time.monotonic() - started,
            stages=stages,
            fingerprint=fingerprint,
        )
