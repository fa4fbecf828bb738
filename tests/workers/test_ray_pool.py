"""A pool on a real Ray: workers that die or hang, and figures for monitoring."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from evomerge.candidate import Answers, Job, Outcome
from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers import PoolEvent, Retry
from tests.clock import BACKSTOP
from tests.workers.test_pools import ITEMS, OPTIMA, expected, job, run_all

pytest.importorskip("ray")
from evomerge.workers import start_ray_pool
from evomerge.workers.ray._pool import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LIMIT = 3600.0  # seconds without a sign of life, after which a worker hangs


def test_dead_workers_are_replaced_and_their_jobs_done_elsewhere(
    running_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidate 7 hangs when it is marked in the scratch folder; once all others are done, the pool's clock jumps."""
    jump = 0.0

    def look(ended: int) -> None:
        nonlocal jump
        if ended == 9 and (tmp_path / "died-7").exists():
            jump = 2 * LIMIT

    monkeypatch.setattr(RayCluster, "now", lambda cluster: time.monotonic() + jump)
    spec = SyntheticSpec(OPTIMA, troubles={2: "die once", 5: "die", 7: "hang once"}, scratch=str(tmp_path))
    pool = start_ray_pool(spec, 2, deadline_seconds=LIMIT, log=tmp_path / "ray.log")
    try:
        answers, outcomes, retries = run_all(pool, range(10), look)
    finally:
        pool.close()
    assert capsys.readouterr().out == ""
    assert "A worker died or was killed" in (tmp_path / "ray.log").read_text()
    failed = {number: outcome.failure for number, outcome in outcomes.items() if outcome.failure}
    assert {number: failure.kind for number, failure in failed.items()} == {5: "infrastructure"}
    assert "ActorDiedError" in failed[5].message
    assert "tried 3 times" in failed[5].message
    counts = Counter(retry.number for retry in retries)
    assert (counts[2], counts[7]) == (1, 1)
    assert counts[5] in (2, 3)  # a death before the worker could say that it had begun is excused, once
    assert "hangs" in next(retry.message for retry in retries if retry.number == 7)
    assert len({result.worker for result in (*retries, *outcomes.values())}) == 2
    for number in set(range(10)) - {5}:
        assert {a for a in answers if a.number == number} == expected(number)


def test_a_worker_killed_in_the_middle_of_a_task_loses_only_what_it_had_not_said(
    running_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks of 8 items in pairs; after five pairs the worker hangs, and its process gets SIGKILL."""
    spec = SyntheticSpec(OPTIMA, portion=2, troubles={3: "hang once"}, scratch=str(tmp_path))
    pool = start_ray_pool(spec, 1, deadline_seconds=LIMIT)
    asked: list[Job] = []
    niceness: list[int] = []
    plain = RayCluster.send
    monkeypatch.setattr(RayCluster, "send", lambda self, number, job: (asked.append(job), plain(self, number, job))[1])
    parts: list[Answers] = []
    others: list[Outcome | Retry] = []
    pid = 0
    try:
        pool.submit(job(3))
        while not any(isinstance(one, Outcome) for one in others):
            for one in pool.collect(0.5):
                if isinstance(one, PoolEvent) and one.what == "joined":
                    pid = one.facts["pid"]
                    niceness.append(os.getpriority(os.PRIO_PROCESS, pid))
                elif isinstance(one, Answers):
                    parts.append(one)
                    if len(parts) == 5:
                        os.kill(pid, signal.SIGKILL)
                elif not isinstance(one, PoolEvent):
                    others.append(one)
    finally:
        pool.close()
    assert set(niceness) == {os.nice(0)}  # not Ray's 15
    retry, outcome = others
    assert isinstance(retry, Retry)
    assert isinstance(outcome, Outcome)
    assert outcome.done
    assert 0 <= retry.seconds < retry.worked
    first, again = asked
    assert first.items == ITEMS
    assert sum(len(items) for items in again.items.values()) == 16 - 10  # what was said is not asked again
    assert all(again.together.get(task, items) == ITEMS[task] for task, items in again.items.items())
    said = [(part.task, item) for part in parts for item in part.items]
    assert len(said) == len(set(said)) == sum(len(items) for items in ITEMS.values())
    responses = {response for answers in expected(3) for response in answers.responses}
    assert {response for part in parts for response in part.responses} == responses


def test_a_node_that_was_told_to_leave_is_known() -> None:
    command = [sys.executable, "-m", "tests.workers.draining"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BACKSTOP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True"]


def test_monitoring_can_scrape_the_figures(running_ray: None) -> None:
    """A real scrape of the node's metrics endpoint, as Prometheus would do it."""
    import ray

    pool = start_ray_pool(SyntheticSpec(OPTIMA), 2)
    (node,) = [row for row in ray.nodes() if row["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        run_all(pool, range(5))
        workers = [row["name"] for row in pool.status()]
        found = dict[str, float]()
        while (found.get("ray_evomerge_candidates_done"), found.get("ray_evomerge_workers idle")) != (5.0, 2.0):
            pool.collect(0.5)
            time.sleep(0.5)
            with urllib.request.urlopen(url, timeout=BACKSTOP) as answer:
                found = figures(answer.read().decode())
    finally:
        pool.close()
    assert found["ray_evomerge_candidates_failed"] == found["ray_evomerge_retries"] == 0.0
    assert found["ray_evomerge_stage_seconds score"] > 0
    assert {f"ray_evomerge_worker_busy_seconds {name}" for name in workers} <= set(found)


def figures(text: str) -> dict[str, float]:
    """Return 'name label' -> value of our gauges in Prometheus' text format, without the labels that Ray adds."""
    found = {}
    for line in text.splitlines():
        if line.startswith("ray_evomerge_"):
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            own = [part.split('"')[1] for part in labels.split(",") if part.startswith(("state=", "stage=", "worker="))]
            found[" ".join([name, *own])] = float(value)
    return found
