"""`evomerge submit` on a real Ray cluster of three nodes on this machine: uploaded, followed, stopped, resumed."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge import search as evomerge_search
from evomerge.errors import EvomergeError
from evomerge.runs import open_run
from tests.clock import BACKSTOP
from tests.end_to_end.conftest import EXPERTS, TASKS, command, environment, evomerge

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]

SECRET = "planted-5c1f09-token"
SEARCH = """
merge:
  merge_method: task_arithmetic
  base_model: models/base
  models: [{{model: models/add}}, {{model: models/sort}}]
  parameters:
    weight: {{search: [0.0, 1.2], per: [model]}}
objectives: [{{task: add}}, {{task: sort}}]
tasks: {{include: [tasks]}}
scoring: {{items: 8, holdout: 0.05}}
controller: {{name: cma-es, population: 4}}
budget: {{candidates: {candidates}}}
seed: 3
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

memory = 80 * 2**20
head = {"num_cpus": 0, "include_dashboard": True, "object_store_memory": memory}
head |= {"dashboard_port": int(sys.argv[1]), "dashboard_agent_listen_port": int(sys.argv[2])}
cluster = Cluster(initialize_head=True, head_node_args=head)
try:
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=memory)
    cluster.wait_for_nodes()
    print("ready", flush=True)
    sys.stdin.read()
finally:
    cluster.shutdown()
"""
TOKEN = secrets.token_hex(32)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The job server of a cluster that asks for a token; its head has no CPU for workers, two nodes have one each."""
    pytest.importorskip("aiohttp_cors", reason="needs evomerge[cluster]")
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        cluster = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(port), str(free_port())],
            # Ray's workers are nice to others (15); where other tests run beside this one, that is for ever
            env={**environment(), "PATH": path, "RAY_worker_niceness": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        try:
            assert cluster.stdout.readline() == "ready\n", "the cluster did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            cluster.stdin.close()
            cluster.wait(timeout=BACKSTOP)


@pytest.fixture
def place(tmp_path: Path, address: str) -> Path:
    """A folder with a search file, what it names by relative paths, and a cluster file."""
    (tmp_path / "models").mkdir()
    for name in ("base", "add", "sort"):
        (tmp_path / "models" / name).symlink_to(EXPERTS / name)
    (tmp_path / "tasks").symlink_to(TASKS)
    (tmp_path / "long.yaml").write_text(SEARCH.format(candidates=100000))
    lines = [f"address: {address}", "workers: 2", f"runs: {tmp_path}/runs", f"files: {tmp_path}/files"]
    (tmp_path / "cluster.yaml").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_search_is_uploaded_followed_stopped_refused_and_resumed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run through three jobs: watched until Ctrl-C and stopped; refused as it is there already; gone on with."""
    monkeypatch.setenv("PLANTED_TOKEN", SECRET)
    cluster = ("--cluster", str(place / "cluster.yaml"), "--env", "PLANTED_TOKEN")
    watching = subprocess.Popen(
        command("submit", place / "long.yaml", *cluster),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    run = place / "runs" / "long"
    wait_for_candidates(run, 1)
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=BACKSTOP)
    assert watching.returncode == 130, out + err
    found = re.search(r"(evomerge-long-[0-9a-f]{8}) goes on", err)
    assert found, err
    wait_for_candidates(run, len(open_run(run).trials()) + 2)

    stop = ("submit", "--stop", found[1], *cluster[:2])
    stopped = evomerge(*stop)
    assert stopped.returncode == 0, stopped.stderr
    assert "job stopped" in stopped.stdout
    assert open_run(run).state == "interrupted"
    assert "had ended before" in evomerge(*stop).stderr
    told = int((open_run(run).trials()["status"] == "done").sum())

    again = evomerge("submit", place / "long.yaml", *cluster)
    assert again.returncode == 2, "the status is that of the search"
    assert "already holds a search" in again.stdout

    done = evomerge("submit", place / "long.yaml", *cluster, "--resume", "--candidates", str(told + 8))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job succeeded" in done.stdout
    assert "evomerge export" in done.stdout  # the search's own summary, from the head node
    assert f"{run} on the cluster's head" in done.stdout
    there = open_run(run)
    trials = there.trials()
    assert there.state == "finished"
    assert list(trials["status"]) == ["done"] * (told + 8)
    assert len(set(trials["worker"])) == 2, set(trials["worker"])
    assert all(str(place / "files") in model for model in there.config.models.names), "the upload is where it stays"
    said = [out, err, *(one.stdout + one.stderr for one in (stopped, again, done))]
    assert not any(SECRET in text for text in said)
    for file in (place / "runs").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file

    here = evomerge_search(place / "long.yaml", out=place / "here", candidates=told + 8).trials()
    columns = [name for name in here.columns if name.startswith(("score.", "gene.", "stderr.", "items."))]
    assert trials[columns].equals(here[columns]), "the trace is that of this machine, undisturbed"


def test_a_cluster_that_wants_a_token_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token")
    refused = evomerge("submit", "--stop", "nobody", "--cluster", place / "cluster.yaml")
    assert refused.returncode == 2
    assert "wants a token" in refused.stderr
    assert TOKEN not in refused.stderr


def test_a_job_that_nobody_knows(place: Path) -> None:
    nobody = evomerge("submit", "--follow", "nobody", "--cluster", place / "cluster.yaml")
    assert nobody.returncode == 2
    assert "knows no job 'nobody'" in nobody.stderr


def wait_for_candidates(run: Path, count: int) -> None:
    """Wait until so many candidates are done."""
    for _ in range(2400):
        if (run / "archive.sqlite").exists():
            try:
                trials = open_run(run).trials()
            except EvomergeError:  # being made right now
                trials = None
            if trials is not None and (trials["status"] == "done").sum() >= count:
                return
        time.sleep(0.1)
    raise AssertionError(f"{run}: fewer than {count} candidates after four minutes")
