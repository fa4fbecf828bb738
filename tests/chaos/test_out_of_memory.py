"""A host that runs out of memory: Ray ends the worker, and its job goes on elsewhere with smaller batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from evomerge.candidate import Answers, Job, Outcome
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers._pool_protocol import Evaluator
from tests.workers.test_pools import OPTIMA, expected, run_all

pytest.importorskip("ray")
from evomerge.workers import start_ray_pool
from evomerge.workers.ray._local_cluster import PrivateRay, quiet_ray

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

GIB = 2**30


@dataclass(frozen=True)
class Hungry:
    """A spec whose evaluator takes 4 GiB for candidate 2, times the share of memory that its job allows."""

    def build(self) -> Evaluator:
        return Hog()


class Hog:
    def __init__(self) -> None:
        self._plain = SyntheticSpec(OPTIMA).build()

    def evaluate(self, job: Job) -> Iterator[Answers | Outcome]:
        answers, *rest = self._plain.evaluate(job)
        yield answers
        if job.candidate.number == 2:
            taken = bytearray(int(4 * GIB * job.memory))
            time.sleep(2.0)
            del taken
        yield from rest


def test_a_worker_that_the_host_has_no_memory_for_is_asked_for_half_of_it() -> None:
    """Ray's own memory monitor ends the worker, at 2.7 GiB more than what is in use now."""
    psutil = pytest.importorskip("psutil")
    import ray

    memory = psutil.virtual_memory()
    if memory.available < 6 * GIB:
        pytest.skip("needs 6 GiB of free memory")
    place = PrivateRay()
    threshold = (memory.total - memory.available + 2.7 * GIB) / memory.total
    config = {"memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100}
    try:
        with quiet_ray():
            ray.init(**place.settings(2), _system_config=config)
        pool = start_ray_pool(Hungry(), 1, cpus=1)
        try:
            answers, outcomes, retries = run_all(pool, range(4))
        finally:
            pool.close()
    finally:
        ray.shutdown()
        place.remove()
    assert all(outcome.done for outcome in outcomes.values())
    assert retries
    assert {retry.number for retry in retries} == {2}
    assert "OutOfMemoryError" in retries[0].message
    for number in range(4):
        assert {a for a in answers if a.number == number} == expected(number)
