"""What every pool promises: results for all that was submitted, each once, whatever happens to the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from evomerge.candidate import Answers, Candidate, Job, Outcome
from evomerge.errors import InputError
from evomerge.scoring._synthetic import SyntheticEvaluator, SyntheticSpec, Trouble, synthetic_recipe
from evomerge.workers import LocalPool, Pool, PoolEvent, Retry
from tests.workers.fakes import ShuffledPool

OPTIMA = {"add": (0.2, 0.8), "sort": (0.8, 0.2)}
ITEMS = {task: tuple(f"{task}-{i}" for i in range(8)) for task in OPTIMA}
TROUBLES: dict[int, Trouble] = {
    1: "candidate",
    2: "nan",
    3: "bug",
    4: "infrastructure",
    5: "memory",
    6: "configuration",
}
KINDS = {1: "candidate", 2: "candidate", 3: "candidate", 4: "infrastructure", 5: "infrastructure", 6: "configuration"}


def job(number: int) -> Job:
    genotype = (number / 20, 1 - number / 20)
    return Job(Candidate(number, synthetic_recipe(genotype), genotype), "search", ITEMS)


def run_all(
    pool: Pool, numbers: range, look: Callable[[int], None] = lambda ended: None
) -> tuple[list[Answers], dict[int, Outcome], list[Retry]]:
    """Submit as the pool has room, collect until every job has ended; check that nothing comes twice.

    `look` is called between two collections with the number of jobs that have ended.
    """
    waiting, answers, retries = list(numbers), [], []
    outcomes: dict[int, Outcome] = {}
    for _ in range(10_000):
        while waiting and pool.room():
            pool.submit(job(waiting.pop(0)))
        look(len(outcomes))
        for result in pool.collect(timeout=1.0):
            if isinstance(result, Answers):
                assert result.number not in outcomes, "answers after the outcome"
                answers.append(result)
            elif isinstance(result, Retry):
                retries.append(result)
            elif isinstance(result, PoolEvent):
                continue
            else:
                assert result.number not in outcomes, "two outcomes"
                outcomes[result.number] = result
        if len(outcomes) == len(numbers):
            break
    assert sorted(outcomes) == list(numbers)
    assert max(Counter((a.number, a.task) for a in answers).values()) == 1
    assert pool.collect(timeout=0.0) == []
    return answers, outcomes, retries


def expected(number: int) -> set[Answers]:
    evaluator = SyntheticEvaluator(SyntheticSpec(OPTIMA))
    return {result for result in evaluator.evaluate(job(number)) if isinstance(result, Answers)}


@pytest.fixture(params=["local", "shuffled", pytest.param("ray", marks=pytest.mark.ray)])
def make(request: pytest.FixtureRequest) -> Iterator[object]:
    made: list[Pool] = []

    def build(spec: SyntheticSpec) -> Pool:
        if request.param == "local":
            made.append(LocalPool(spec))
        elif request.param == "shuffled":
            made.append(ShuffledPool(spec, 3))
        else:
            from evomerge.workers import start_ray_pool

            request.getfixturevalue("running_ray")
            made.append(start_ray_pool(spec, 2))
        return made[-1]

    yield build
    for pool in made:
        pool.close()
        pool.close()


def test_every_job_ends_with_its_answers_or_its_failure(make) -> None:  # type: ignore[no-untyped-def]
    """One pool, twelve jobs, six of them in trouble: the failures have their kinds, the others all their answers."""
    pool = make(SyntheticSpec(OPTIMA, troubles=TROUBLES))
    answers, outcomes, _ = run_all(pool, range(12))
    for number, outcome in outcomes.items():
        assert (outcome.failure.kind if outcome.failure else None) == KINDS.get(number)
        assert outcome.worker
        got = {a for a in answers if a.number == number}
        if number in KINDS:  # what was finished before the trouble is kept
            assert got == ({a for a in expected(number) if a.task == "add"} if number != 2 else set())
        else:
            assert got == expected(number)
    rows = pool.status()
    assert all({"name", "state", "busy_seconds", "done"} <= row.keys() for row in rows)


def test_an_idle_local_pool_takes_one_job_until_jobs_prove_short() -> None:
    pool = LocalPool(SyntheticSpec(OPTIMA))
    assert pool.room() == 1
    assert pool.collect() == []
    run_all(pool, range(40))
    assert pool.room() >= 1
    pool.submit(job(50))
    pool.close()
    assert pool.collect() == []  # what was queued is dropped


def test_addresses_that_cannot_work() -> None:
    ray_pool = pytest.importorskip("evomerge.workers.ray._pool")
    with pytest.raises(InputError, match=r"Ray Client ends with its connection"):
        ray_pool.start_ray_pool(SyntheticSpec(OPTIMA), 1, address="ray://head:10001")
    with pytest.raises(InputError, match="workers must be 1 or more, got 0"):
        ray_pool.start_ray_pool(SyntheticSpec(OPTIMA), 0)
