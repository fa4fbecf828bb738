"""The scheduler's policies, in virtual time: who gets a job, and what happens when machines fail under it."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from evomerge.candidate import Answers, Job, Outcome, Response
from evomerge.errors import InputError
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers import Arrival, PoolEvent, Retry
from evomerge.workers._cluster import Node, Resources, WorkerDied
from evomerge.workers._retry import FIRST_SECONDS, MOST_TRIES
from evomerge.workers._scheduler import Policy, Scheduler
from evomerge.workers._timeouts import TimeoutSettings
from evomerge.workers._worker_set import NODE_WAIT, PoolSize
from tests.workers.fake_cluster import FakeCluster, FakeWorker, machine
from tests.workers.test_pools import OPTIMA, expected, job

SPEC = SyntheticSpec(OPTIMA)


class PoolRun:
    """A scheduler on a fake cluster, with everything that arrived."""

    def __init__(
        self, *nodes: Node, size: PoolSize | None = None, policy: Policy | None = None, spec: SyntheticSpec = SPEC
    ) -> None:
        self.cluster = FakeCluster(spec, nodes)
        self.scheduler = Scheduler(self.cluster, size, policy)
        self.arrived: list[Arrival] = []

    def run(self, numbers: range, most_seconds: float = 100_000.0) -> dict[int, Outcome]:
        """Submit as there is room, until every job has ended; check what every pool promises."""
        waiting = list(numbers)
        outcomes: dict[int, Outcome] = {}
        answered: Counter[tuple[int, Response]] = Counter()
        while len(outcomes) < len(numbers):
            assert self.cluster.now() < most_seconds, "the pool does not get on"
            while waiting and self.scheduler.room():
                self.scheduler.submit(job(waiting.pop(0)))
            for one in self.scheduler.collect(0.5):
                self.arrived.append(one)
                if isinstance(one, Answers):
                    assert one.number not in outcomes
                    answered.update((one.number, response) for response in one.responses)
                elif isinstance(one, Outcome):
                    assert one.number not in outcomes, "two outcomes"
                    outcomes[one.number] = one
        assert not answered or max(answered.values()) == 1
        for number, outcome in outcomes.items():
            if outcome.done:
                wanted = {response for answers in expected(number) for response in answers.responses}
                assert {response for of, response in answered if of == number} == wanted
        return outcomes

    def notices(self, what: str) -> list[PoolEvent]:
        return [one for one in self.arrived if isinstance(one, PoolEvent) and one.what == what]

    def retries(self) -> list[Retry]:
        return [one for one in self.arrived if isinstance(one, Retry)]


def test_one_worker_per_gpu_of_the_cluster_and_none_on_the_head() -> None:
    nodes = [machine("head", 8, 0, head=True), machine("a", 16, 2), machine("b", 16, 4)]
    pool_run = PoolRun(*nodes, size=PoolSize(resources=Resources(1, 1)))
    assert Counter(node for _, node, _ in pool_run.cluster.started) == {"id-a": 2, "id-b": 4}
    pool_run.run(range(12))
    assert {row["gpus"] for row in pool_run.scheduler.status()} == {1}


@pytest.mark.parametrize(
    ("nodes", "size", "placed"),
    [
        ([machine("head", 4, head=True)], PoolSize(), {"id-head": 4}),  # alone, the head works
        ([machine("head", 4, head=True), machine("a", 2)], PoolSize(use_head=True), {"id-head": 4, "id-a": 2}),
        ([machine("a", 8, 1), machine("b", 8, 1)], PoolSize(resources=Resources(1, 0.25)), {"id-a": 4, "id-b": 4}),
        (
            [machine("a", 8, 1), machine("b", 8, 4)],
            PoolSize(resources=Resources(1, 2)),
            {"id-b": 2},
        ),  # never across nodes
        ([machine("a", 8), machine("b", 8)], PoolSize(workers=3), {"id-a": 2, "id-b": 1}),  # spread
        ([machine("a", 2)], PoolSize(workers=5), {"id-a": 2}),  # as many as fit now
    ],
)
def test_placement(nodes: list[Node], size: PoolSize, placed: dict[str, int]) -> None:
    assert Counter(node for _, node, _ in PoolRun(*nodes, size=size).cluster.started) == placed


def test_a_cluster_without_room_is_refused_with_what_it_has() -> None:
    with pytest.raises(InputError, match=r"needs 1 CPUs and 2 GPUs on one node, and the cluster has a: 8 CPUs, 1 GPUs"):
        PoolRun(machine("a", 8, 1), size=PoolSize(resources=Resources(1, 2)))


def test_a_cluster_that_grows_is_waited_for_and_asked_to_grow() -> None:
    head = machine("head", 0, head=True)
    pool_run = PoolRun(head, size=PoolSize(workers=2, may_grow=True))
    assert pool_run.cluster.asked_for == [2]
    pool_run.cluster.at(300.0, lambda: pool_run.cluster.machines.update({"id-spot": machine("spot", 4)}))
    assert all(outcome.done for outcome in pool_run.run(range(4)).values())
    assert pool_run.cluster.started[0][0] >= 300.0
    idle = PoolRun(head, size=PoolSize(workers=2, may_grow=True))
    with pytest.raises(InputError, match="needs 1 CPUs on one node"):
        idle.run(range(1), most_seconds=NODE_WAIT + 10)


def test_nodes_that_join_get_workers_and_those_that_leave_lose_nothing() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    pool_run.cluster.at(8.5, lambda: pool_run.cluster.remove("id-b"))
    pool_run.cluster.at(20.0, lambda: pool_run.cluster.machines.update({"id-c": machine("c")}))
    outcomes = pool_run.run(range(40))
    assert all(outcome.done for outcome in outcomes.values())
    assert {node for _, node, _, _ in pool_run.cluster.sent} == {"id-a", "id-b", "id-c"}
    (retry,) = pool_run.retries()
    assert "node has died" in retry.message
    assert [notice.what for notice in pool_run.notices("left")] == ["left"]
    (again,) = [sent for sent in pool_run.cluster.sent if sent[3] == retry.number][1:]
    assert again[0] == pytest.approx(8.5, abs=3.0)  # at once, and not after a wait: nobody was to blame


def test_a_job_whose_nodes_keep_leaving_is_not_held_against_it() -> None:
    """More moves than tries: spot machines go, and the candidate is scored in the end."""
    pool_run = PoolRun(machine("a"), machine("home"))
    pool_run.cluster.trouble = lambda worker, job: None

    def pull(turn: int) -> None:
        for node in [n for n in pool_run.cluster.machines if n != "id-home"]:
            pool_run.cluster.remove(node)
        pool_run.cluster.machines[f"id-spot{turn}"] = machine(f"spot{turn}")

    for turn in range(MOST_TRIES + 3):
        pool_run.cluster.at(6.5 + 7.0 * turn, lambda turn=turn: pull(turn))  # type: ignore[misc]
    assert all(outcome.done for outcome in pool_run.run(range(30)).values())


def test_a_leaving_node_gets_no_new_work_and_finishes_what_it_has() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    leaving = replace(machine("b"), leaving=True)
    pool_run.cluster.at(8.1, lambda: pool_run.cluster.machines.update({"id-b": leaving}))
    assert all(outcome.done for outcome in pool_run.run(range(20)).values())
    assert max(when for when, node, _, _ in pool_run.cluster.sent if node == "id-b") <= 10.0
    assert pool_run.retries() == []


def test_a_dead_worker_is_replaced_and_its_job_goes_to_another_node_after_a_wait() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    pool_run.cluster.at(8.5, lambda: pool_run.cluster.kill_a_worker_of("id-a"))
    outcomes = pool_run.run(range(10))
    assert all(outcome.done for outcome in outcomes.values())
    (retry,) = pool_run.retries()
    assert retry.message == "killed\nlast words"
    assert retry.seconds > 0
    first, second = [sent for sent in pool_run.cluster.sent if sent[3] == retry.number]
    assert (first[1], second[1]) == ("id-a", "id-b")
    assert second[0] >= 8.5 + 1.0
    assert pool_run.notices("lost")[0].facts["log"] == "last words"


def test_finished_tasks_of_a_lost_job_are_not_asked_again() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    sent: list[Job] = []
    pool_run.cluster.trouble = lambda worker, job: sent.append(job)
    pool_run.cluster.at(6.5, lambda: pool_run.cluster.kill_a_worker_of("id-a"))  # between its two tasks
    pool_run.run(range(2))
    (retry,) = pool_run.retries()
    again = [job for job in sent if job.candidate.number == retry.number]
    assert [list(job.items) for job in again] == [["add", "sort"], ["sort"]]


def test_finished_portions_of_a_lost_task_are_not_asked_again() -> None:
    """Tasks of 8 items in portions of 2, a quarter of a second each; the worker dies 0.6 s into its first task."""
    pool_run = PoolRun(machine("a"), machine("b"), spec=replace(SPEC, portion=2))
    sent: list[Job] = []
    pool_run.cluster.trouble = lambda worker, job: sent.append(job)
    pool_run.cluster.at(5.6, lambda: pool_run.cluster.kill_a_worker_of("id-a"))
    pool_run.run(range(2))
    (retry,) = pool_run.retries()
    first, again = [job for job in sent if job.candidate.number == retry.number]
    assert again.items == {"add": first.items["add"][4:], "sort": first.items["sort"]}
    assert again.together == {"add": first.items["add"]}  # so that its batches are those of the first try
    assert (retry.seconds, retry.worked) == (pytest.approx(0.1), pytest.approx(0.6))
    lefts = [one.left for one in pool_run.arrived if isinstance(one, Answers) and one.number == retry.number]
    assert lefts == [6, 4, 2, 0, 6, 4, 2, 0]


def test_a_job_that_ran_out_of_memory_goes_on_with_half_of_it_and_later_ones_begin_so() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    sent: list[Job] = []

    def trouble(worker: FakeWorker, job: Job) -> str | None:
        sent.append(job)
        return "memory" if job.candidate.number == 4 and job.memory > 0.25 else None

    pool_run.cluster.trouble = trouble
    outcomes = pool_run.run(range(12))
    assert all(outcome.done for outcome in outcomes.values())
    assert [job.memory for job in sent if job.candidate.number == 4] == [1.0, 0.5, 0.25]
    assert {job.memory for job in sent if job.candidate.number < 4} == {1.0}
    assert sent[-1].memory == 0.25
    memories = [job.memory for job in sent if job.candidate.number != 4]
    assert memories == sorted(memories, reverse=True)


def test_a_worker_that_says_that_memory_is_out_is_asked_for_less_too() -> None:
    """The evaluator survived, but its pass did not fit: no worker is replaced, and the batches are smaller."""
    pool_run = PoolRun(machine("a"), machine("b"), spec=replace(SPEC, troubles={3: "memory"}))
    sent: list[Job] = []
    pool_run.cluster.trouble = lambda worker, job: sent.append(job)
    outcomes = pool_run.run(range(6))
    assert [number for number, outcome in outcomes.items() if not outcome.done] == [3]
    assert [job.memory for job in sent if job.candidate.number == 3] == [1.0, 0.5, 0.25]
    assert {job.memory for job in sent if job.candidate.number != 3} == {1.0}  # it never worked, so it taught nothing
    assert pool_run.notices("lost") == []


def test_a_poison_candidate_takes_three_workers_and_its_twin_none() -> None:
    pool_run = PoolRun(machine("a"), machine("b"), machine("c"), machine("d"))
    poison = job(3).candidate.recipe.digest
    pool_run.cluster.trouble = lambda worker, job: "die" if job.candidate.recipe.digest == poison else None
    outcomes = pool_run.run(range(12))
    failure = outcomes[3].failure
    assert failure is not None
    assert failure.kind == "infrastructure"
    assert f"exit code 17 (tried {MOST_TRIES} times" in failure.message
    assert failure.traceback == "last words"
    nodes = [node for _, node, _, candidate in pool_run.cluster.sent if candidate == 3]
    assert len(set(nodes)) == MOST_TRIES
    assert [number for number, outcome in outcomes.items() if not outcome.done] == [3]
    assert pool_run.notices("quarantined") == []
    twin = replace(job(3), candidate=replace(job(3).candidate, number=99))
    pool_run.scheduler.submit(twin)
    (ended,) = [one for one in pool_run.scheduler.collect(10.0) if isinstance(one, Outcome)]
    assert ended.failure is not None
    assert ended.failure.message.startswith("the same recipe failed before: exit code 17")
    assert 99 not in [candidate for *_, candidate in pool_run.cluster.sent]


def test_a_candidate_that_kills_before_it_has_begun_takes_one_worker_more_and_no_further_one() -> None:
    """A process that dies at once takes its first words with it; it is excused once, and not for ever."""
    pool_run = PoolRun(machine("a"), machine("b"))
    plain = pool_run.cluster.send

    def send(number: int, job: Job) -> None:
        if job.candidate.number != 3:
            return plain(number, job)
        worker = pool_run.cluster.workers[number]
        pool_run.cluster.sent.append((pool_run.cluster.now(), worker.node.id, worker.evaluator.name, 3))
        pool_run.cluster.die(worker, WorkerDied("exit code 17", "process"))
        return None

    pool_run.cluster.send = send  # type: ignore[method-assign]
    outcomes = pool_run.run(range(8))
    assert [number for number, outcome in outcomes.items() if not outcome.done] == [3]
    assert sum(candidate == 3 for *_, candidate in pool_run.cluster.sent) == MOST_TRIES + 1


def test_a_gpu_that_keeps_failing_is_left_alone() -> None:
    pool_run = PoolRun(machine("a", 4, 1), machine("b", 4, 1), size=PoolSize(resources=Resources(1, 1)))
    pool_run.cluster.trouble = lambda worker, job: "die" if worker.node.name == "a" else None
    outcomes = pool_run.run(range(60))
    assert all(outcome.done for outcome in outcomes.values())
    first, *_ = pool_run.notices("quarantined")
    assert first.facts["place"] == "a GPU 0"
    sent = [when for when, node, _, _ in pool_run.cluster.sent if node == "id-a"]
    assert len(sent) == 3  # three different candidates, then none for the rest of these two minutes
    assert pool_run.cluster.now() < FIRST_SECONDS


def test_the_last_place_is_never_left_alone() -> None:
    pool_run = PoolRun(machine("a"))
    bad = {1, 2, 3}
    pool_run.cluster.trouble = lambda worker, job: "die" if job.candidate.number in bad else None
    outcomes = pool_run.run(range(8))
    assert {number for number, outcome in outcomes.items() if not outcome.done} == bad


def test_a_hanging_worker_is_found_by_what_jobs_usually_take() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    hung: list[FakeWorker] = []

    def trouble(worker: FakeWorker, job: Job) -> str | None:
        if job.candidate.number == 8 and not hung:
            hung.append(worker)
            return "hang"
        return None

    pool_run.cluster.trouble = trouble
    policy = Policy(TimeoutSettings(floor=20.0), stragglers=False)
    pool_run.scheduler = Scheduler(pool_run.cluster, None, policy)
    outcomes = pool_run.run(range(16))
    assert all(outcome.done for outcome in outcomes.values())
    (retry,) = pool_run.retries()
    assert retry.message == "it has not answered for 20 seconds: the worker hangs"
    assert 20.0 <= retry.seconds < 22.0
    assert hung[0].number not in pool_run.cluster.workers  # it was killed


def test_a_worker_that_never_loads_is_replaced() -> None:
    pool_run = PoolRun(machine("a"), machine("b"), policy=Policy(TimeoutSettings(unknown=100.0)))
    pool_run.cluster.workers[0].generation += 1  # its news get lost
    assert all(outcome.done for outcome in pool_run.run(range(60)).values())
    assert [notice.worker for notice in pool_run.notices("lost")] == ["a/0"]
    assert len(pool_run.cluster.started) == 3


def straggling() -> PoolRun:
    """Ten jobs, of which the ninth takes 20 times as long on the worker that gets it first."""
    pool_run = PoolRun(machine("a"), machine("b"))
    slow: list[int] = []

    def trouble(worker: FakeWorker, job: Job) -> float | None:
        if job.candidate.number == 8 and not slow:
            slow.append(worker.number)
            return 20.0
        return None

    pool_run.cluster.trouble = trouble
    assert all(outcome.done for outcome in pool_run.run(range(10)).values())
    return pool_run


def test_a_straggler_is_helped_and_the_first_answer_counts() -> None:
    pool_run = straggling()
    (first, helper) = [sent for sent in pool_run.cluster.sent if sent[3] == 8]
    assert first[1] != helper[1]
    (notice,) = pool_run.notices("straggler")
    assert (notice.worker, notice.facts["helper"], notice.facts["candidate"]) == (first[2], helper[2], 8)
    assert pool_run.cluster.now() < first[0] + 20.0  # the slow worker has not answered yet


def test_answers_of_the_slower_of_two_are_dropped_and_counted() -> None:
    pool_run = straggling()
    outcomes = pool_run.run(range(10, 60))  # the fast worker goes on, until the slow one is through
    assert len(outcomes) == 50
    wasted = pool_run.notices("wasted")
    assert [(notice.facts["candidate"], notice.facts["task"]) for notice in wasted] == [(8, "add"), (8, "sort")]
    assert [notice.facts["seconds"] for notice in wasted] == pytest.approx([20.0, 20.0], abs=1.0)
    assert sum(isinstance(one, Answers) and one.number == 8 for one in pool_run.arrived) == 2


def test_two_workers_at_one_task_share_its_items_whoever_is_faster() -> None:
    """The straggler's portions and its helper's overlap; each item counts once, for whoever was first."""
    pool_run = PoolRun(machine("a"), machine("b"), spec=replace(SPEC, portion=2))
    slow: list[int] = []

    def trouble(worker: FakeWorker, job: Job) -> float | None:
        if job.candidate.number == 8 and not slow:
            slow.append(worker.number)
            return 12.0
        return None

    pool_run.cluster.trouble = trouble
    outcomes = pool_run.run(range(40))
    assert all(outcome.done for outcome in outcomes.values())
    assert len(pool_run.notices("straggler")) == 1
    first, helper = [sent for sent in pool_run.cluster.sent if sent[3] == 8]
    assert helper[0] > first[0] + 3.0  # the slow one had answered something by then
    assert len(pool_run.notices("wasted")) >= 1


def test_other_versions_are_named_and_not_used() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    other = FakeCluster(SPEC, [machine("a"), machine("b")])
    other.versions["id-b"] = {"evomerge": "code old", "numpy": "1.0"}
    pool_run.cluster, pool_run.scheduler = other, Scheduler(other)
    assert all(outcome.done for outcome in pool_run.run(range(4)).values())
    (notice,) = pool_run.notices("refused")
    assert "node b: evomerge is code old there and code " in notice.facts["message"]
    assert "numpy is 1.0 there and " in notice.facts["message"]
    assert {node for _, node, _, _ in other.sent} == {"id-a"}


def test_a_cluster_of_other_versions_only_is_an_error() -> None:
    pool_run = PoolRun(machine("a"))
    other = FakeCluster(SPEC, [machine("a")])
    other.versions["id-a"] = {"evomerge": "code old"}
    pool_run.cluster, pool_run.scheduler = other, Scheduler(other)
    with pytest.raises(InputError, match="no worker can be used: node a: evomerge is code old there"):
        pool_run.run(range(1), most_seconds=100.0)


def test_workers_that_die_while_starting_are_tried_again_ever_more_slowly() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    for second in range(120):
        pool_run.cluster.at(float(second) + 0.7, lambda: pool_run.cluster.kill_a_worker_of("id-a"))
    pool_run.run(range(50))
    times = [when for when, node, _ in pool_run.cluster.started if node == "id-a"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) < 9
    assert gaps[-1] > 8.0


def test_figures_are_published() -> None:
    pool_run = PoolRun(machine("a"), machine("b"))
    pool_run.run(range(12))
    figures = pool_run.cluster.published
    assert figures["candidates_done"][0] > 0
    assert figures["workers/busy"][1] == {"state": "busy"}
    assert sum(value for name, (value, _) in figures.items() if name.startswith("workers/")) == 2
    assert figures["worker_busy_seconds/a/0"][1] == {"worker": "a/0"}


def test_closing_drops_what_is_under_way() -> None:
    pool_run = PoolRun(machine("a"))
    pool_run.scheduler.collect(10.0)
    pool_run.scheduler.submit(job(1))
    pool_run.scheduler.close()
    pool_run.scheduler.close()
    assert pool_run.cluster.closed
    assert pool_run.scheduler.collect(1.0) == []
