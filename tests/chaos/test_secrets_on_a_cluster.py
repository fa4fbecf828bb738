"""A token planted in the driver's environment: workers have it, and it is written nowhere, failures included."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from evomerge.archive import Archive
from tests.chaos.mayhem import Nodes
from tests.chaos.test_chaos import short_folder
from tests.end_to_end.conftest import EXPERTS, command

__all__ = ["short_folder"]
pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(400)]
TOKEN = "planted-" + "hub-token-0123456789"
FITNESS = """
import os

def holds_the_token(asked):
    token = os.environ.get("HF_TOKEN", "")
    with open(os.path.join(os.path.dirname(__file__), "calls"), "ab") as calls:
        before = calls.tell()
        calls.write(b".")
    if before == 3:  # base, the other parent and candidate 0 came first
        raise RuntimeError("401 Unauthorized: Bearer " + token)
    return float(len(token))
"""
SEARCH = """
merge:
  merge_method: task_arithmetic
  base_model: {experts}/base
  models: [{{model: {experts}/add}}]
  parameters: {{weight: {{search: [0.0, 1.2]}}}}
objectives: [{{python: {{function: 'fitness:holds_the_token'}}, name: mine, goal: maximize}}]
controller: {{name: sobol}}
budget: {{candidates: {candidates}}}
"""


def places_with(needle: bytes, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def test_a_planted_token_is_found_nowhere(short_folder: Path) -> None:
    (short_folder / "fitness.py").write_text(FITNESS)
    file = short_folder / "search.yaml"
    file.write_text(SEARCH.format(experts=EXPERTS, candidates=2))
    with Nodes(1, 0, short_folder) as nodes:
        done = subprocess.run(
            command("search", file, "--out", short_folder / "run", "--address", nodes.address),
            capture_output=True,
            text=True,
            timeout=300,
            env={**nodes.environment, "HF_TOKEN": TOKEN},
        )
        time.sleep(1.0)  # Ray writes its logs a moment later
        logs = short_folder / "ray"
        assert len(list(logs.rglob("*.log"))) > 5
        assert places_with(TOKEN.encode(), short_folder) == []
    assert TOKEN not in done.stdout + done.stderr
    with Archive.open(short_folder / "run") as archive:
        first, second = archive.outcome(0), archive.outcome(1)
        scores = [one.value for one in archive.responses("search", 0) if one.metric == "score"]
    assert done.returncode == 0, done.stderr
    assert scores == [len(TOKEN)]  # the worker had it
    assert first is not None
    assert first.done
    assert second is not None
    assert second.failure is not None
    assert "401 Unauthorized: Bearer [secret]" in second.failure.message + second.failure.traceback
