"""A scorer without a model: a landscape with known optimum and front, answered item by item like a real one.

For tests, benchmarks and simulations of clusters: it can be slow, fail, hang or die on command.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np

from evomerge.candidate import Answers, Candidate, Job, Outcome, Response
from evomerge.errors import CandidateError, InfrastructureError, InputError
from evomerge.recipe import Recipe, Source

Lasting = Literal["candidate", "infrastructure", "configuration", "bug", "nan", "memory", "hang", "die"]
Trouble = Lasting | Literal["hang once", "die once"]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class SyntheticSpec:
    """What the landscape is, as plain data.

    The ability in a task falls with the squared distance of the genotype from that task's optimum:
    ability = peak - steepness * |x - optimum|^2 / d. For several tasks with one steepness, the Pareto-optimal genotypes
    are exactly the convex hull of the optima. Items have standard-normal difficulties, and P(correct) is
    sigmoid(ability - difficulty).
    """

    optima: Mapping[str, tuple[float, ...]]  # task -> (d,) genotype that is best in it
    peak: float = 2.0  # ability at the optimum, in logits
    steepness: float = 12.0
    graded: bool = False  # responses are probabilities, hence without noise; otherwise 0 or 1
    parents: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # a parent's name -> its place in the cube
    seconds: float = 0.0  # per job, on average
    spread: float = 0.0  # standard deviation of the job time's logarithm
    portion: int | None = None  # items that are answered at a time; None: all of a task
    troubles: Mapping[int, Trouble] = field(default_factory=dict)  # candidate -> what goes wrong with it
    scratch: str = ""  # folder for the marks by which 'die once' and 'hang once' remember

    def build(self) -> SyntheticEvaluator:
        """Return the evaluator."""
        return SyntheticEvaluator(self)


class SyntheticEvaluator:
    """Answers jobs from the spec alone: the same candidate gets the same answers on any worker at any time."""

    def __init__(self, spec: SyntheticSpec) -> None:
        self._spec = spec
        self._difficulties: dict[tuple[str, str], float] = {}

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        """Yield answers, then the outcome; the candidate's trouble comes after the first task's answers, or portion's.

        Raises:
            CandidateError, InfrastructureError, InputError, ...: as `troubles` says.
        """
        started = time.monotonic()
        number, trouble = job.candidate.number, self._spec.troubles.get(job.candidate.number)
        seconds = self._job_seconds(number)
        for place, (task, items) in enumerate(job.items.items()):
            size, whole = self._spec.portion or len(items), len(job.together.get(task, items))
            for start in range(0, len(items), size):
                if seconds:
                    time.sleep(seconds / len(job.items) * min(size, len(items) - start) / whole)
                if trouble is not None and (place > 0 or len(job.items) == 1) and (start > 0 or size >= len(items)):
                    self._get_into(trouble, number)
                value = math.nan if trouble == "nan" else None
                answers = tuple(self._answers(job.candidate, task, items[start : start + size], value))
                yield Answers(number, job.split, task, answers, left=max(0, len(items) - start - size))
        digest = job.candidate.recipe.digest
        taken = time.monotonic() - started
        yield Outcome(number, job.split, None, "", taken, {"score": taken}, fingerprint=digest[:16])

    def ability(self, candidate: Candidate, task: str) -> float:
        """Return the candidate's ability in a task, in logits."""
        optimum = self._spec.optima.get(task)
        if optimum is None:
            raise InputError(f"the synthetic scorer has no task {task!r}; known: {', '.join(self._spec.optima)}")
        genotype = candidate.genotype or self._spec.parents.get(candidate.name, (0.0,) * len(optimum))
        distance = math.fsum((x - y) ** 2 for x, y in zip(genotype, optimum, strict=True))
        return self._spec.peak - self._spec.steepness * distance / len(optimum)

    def _answers(
        self, candidate: Candidate, task: str, items: Sequence[str], instead: float | None
    ) -> Iterator[Response]:
        ability, digest = self.ability(candidate, task), candidate.recipe.digest
        for item in items:
            chance = 1.0 / (1.0 + math.exp(self._difficulty(task, item) - ability))
            value = chance if self._spec.graded else float(uniform(digest, task, item) < chance)
            yield Response(task, item, "acc", value if instead is None else instead)

    def _difficulty(self, task: str, item: str) -> float:
        if (task, item) not in self._difficulties:
            self._difficulties[task, item] = _NORMAL.inv_cdf(uniform("difficulty", task, item))
        return self._difficulties[task, item]

    def _job_seconds(self, number: int) -> float:
        if not self._spec.spread:
            return self._spec.seconds
        deviate = _NORMAL.inv_cdf(uniform("seconds", str(number)))
        return self._spec.seconds * math.exp(self._spec.spread * deviate - self._spec.spread**2 / 2)

    def _get_into(self, trouble: Trouble, number: int) -> None:
        if trouble == "candidate":
            raise CandidateError(f"candidate {number} has NaN logits (synthetic)")
        if trouble == "infrastructure":
            raise InfrastructureError(f"the machine of candidate {number} failed (synthetic)")
        if trouble == "configuration":
            raise InputError("the set-up is wrong (synthetic)")
        if trouble == "bug":
            raise KeyError(f"bug met by candidate {number} (synthetic)")
        if trouble == "memory":
            raise RuntimeError("CUDA error: out of memory (synthetic)")
        if trouble == "hang" or (trouble == "hang once" and _first_time(self._spec.scratch, number)):
            time.sleep(3600.0)
        if trouble == "die" or (trouble == "die once" and _first_time(self._spec.scratch, number)):
            os._exit(17)


def synthetic_recipe(genotype: Sequence[float] | np.ndarray) -> Recipe:
    """Return a recipe that differs where genotypes differ: a linear merge whose weights are the genes."""
    genes = [float(gene) for gene in genotype]
    return Recipe("linear", tuple(Source(f"model{i}", (("weight", gene),)) for i, gene in enumerate(genes)))


def uniform(*key: str) -> float:
    """Return a number in (0, 1) that depends on nothing but the key: no generator, hence no order and no state."""
    digest = hashlib.blake2b("\x1f".join(key).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


def _first_time(scratch: str, number: int) -> bool:
    try:
        Path(scratch, f"died-{number}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
