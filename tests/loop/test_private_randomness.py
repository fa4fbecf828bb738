"""An objective that reseeds all global generators on each call, as lm-eval does, leaves the trace of a search alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.candidate import Answers, Job, Outcome
from evomerge.loop import Racing, Rules
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers._pool_protocol import Evaluator
from tests.loop.world import OPTIMA, PARENTS, World, trace
from tests.workers.fakes import ShuffledPool


class Reseeding:
    """A synthetic scorer that sets NumPy's, Python's and torch's generators to one seed before and after each task."""

    def __init__(self, spec: SyntheticSpec) -> None:
        self._evaluator: Evaluator = spec.build()

    def build(self) -> Reseeding:
        return self

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        for result in self._evaluator.evaluate(job):
            np.random.seed(1234)
            random.seed(1234)
            torch.manual_seed(1234)
            yield result


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("controller", ["cma-es", "tpe", "nsga-ii", "nsga-iii", "random", "quadratic", "evolution"])
def test_reseeding_on_each_call_changes_nothing(folder: Path, controller: str, asynchronous: bool) -> None:
    rules = Rules(asynchronous, Racing(min_items=6) if controller == "cma-es" else None)
    spec = SyntheticSpec(OPTIMA, parents=PARENTS)
    calm = World(
        *(folder / "calm", controller, 24), rules=rules, spec=spec, pool=lambda given: ShuffledPool(given, 3, 1)
    )
    calm.run()
    reseeded = replace(calm, folder=folder / "reseeded", pool=lambda given: ShuffledPool(Reseeding(given), 3, 1))
    reseeded.run()
    assert len(trace(calm.folder)["observed"]) == 24
    assert trace(reseeded.folder) == trace(calm.folder)
