"""Workers, raylets and drivers of a real Ray cluster killed at random, a node added: the trace stays the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.archive import Archive
from tests.chaos.driver import world
from tests.chaos.mayhem import ROOT, Mayhem, Nodes, answers_per_question, lost_work
from tests.end_to_end.conftest import command, evomerge, search_text
from tests.loop.world import trace

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(1500)]
# These run when asked for:  python -m pytest -m chaos tests/chaos -s
ACTIONS = ["worker", "worker", "raylet", "driver", "add"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path: Ray puts sockets below it."""
    with tempfile.TemporaryDirectory(prefix="em-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def survives(folder: Path, seed: int, candidates: int = 24, seconds: float = 0.6) -> None:
    """A synthetic search on three nodes, two of which work, against the same search in one process."""
    whole = world(folder / "whole", candidates)
    whole.run()
    run = folder / "run"
    with Nodes(2, seed, folder) as nodes:
        driver = [sys.executable, "-m", "tests.chaos.driver", str(run), nodes.address, str(candidates), str(seconds)]
        mayhem = Mayhem(run, nodes, lambda resumes: driver, seed, candidates)
        mayhem.run(list(ACTIONS), most_seconds=300)
    print(f"\nseed {seed}: {mayhem.done}; {lost_work(run)}")
    assert trace(run) == trace(folder / "whole")
    assert set(answers_per_question(run).values()) == {1}
    assert {action for _, action in mayhem.done} == set(ACTIONS)


def test_a_search_survives_random_kills(short_folder: Path) -> None:
    survives(short_folder, seed=1)


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_a_search_survives_random_kills_with_other_seeds(short_folder: Path, seed: int) -> None:
    survives(short_folder, seed)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_search_of_the_shipped_experts_survives_random_kills(short_folder: Path, seed: int) -> None:
    """The same best, and the same answer to every question, as the run of one process that nobody disturbed."""
    candidates = 10
    file = short_folder / "search.yaml"
    file.write_text(search_text(candidates=candidates))
    undisturbed = evomerge("search", file, "--out", short_folder / "whole", "--quiet", timeout=600)
    assert undisturbed.returncode == 0, undisturbed.stderr
    run = short_folder / "run"
    with Nodes(2, seed, short_folder) as nodes:

        def driver(resumes: bool) -> list[str]:
            verb = ["resume", run] if resumes else ["search", file, "--out", run]
            return command(*verb, "--address", nodes.address, "--quiet")

        mayhem = Mayhem(run, nodes, driver, seed, candidates)
        mayhem.run(list(ACTIONS), most_seconds=1200)
    print(f"\nseed {seed}: {mayhem.done}; {lost_work(run)}")
    assert facts_of(run) == facts_of(short_folder / "whole")
    assert set(answers_per_question(run).values()) == {1}


def facts_of(folder: Path) -> dict[str, object]:
    """What a search of models must give whoever works: trace, weights, held-out answers, the best."""
    from evomerge import open_run

    best = open_run(folder).best()
    assert best is not None
    with Archive.open(folder) as archive:
        held_out = {(number, r.task, r.item, r.metric): r.value for number, r in archive.response_rows("holdout")}
        weights = {o.number: o.fingerprint for o in archive.outcomes()}
    return {**trace(folder), "best": best.number, "held out": held_out, "weights": weights}


def test_the_head_is_killed_and_another_cluster_of_another_size_goes_on(short_folder: Path) -> None:
    whole = world(short_folder / "whole", 24)
    whole.run()
    run = short_folder / "run"

    def start(nodes: Nodes) -> subprocess.Popen[str]:
        driver = [sys.executable, "-m", "tests.chaos.driver", str(run), nodes.address, "24", "0.6"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            driver, stdout=pipe, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=nodes.environment
        )

    with Nodes(2, 0, short_folder) as nodes:
        first = start(nodes)
        mayhem = Mayhem(run, nodes, lambda resumes: [], 0, 24)
        while mayhem.told() < 6:
            assert first.poll() is None, first.communicate()[0][-3000:]
            time.sleep(0.05)
        nodes.tell("head")
        begun = time.monotonic()
        try:
            said, _ = first.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            first.kill()
            said, _ = first.communicate()
        print(f"\nthe driver ended with {first.returncode} after {time.monotonic() - begun:.0f} s: {said[-300:]!r}")
    with Nodes(1, 0, short_folder) as nodes:
        second = start(nodes)
        said, _ = second.communicate(timeout=600)
        assert second.returncode == 0, said[-3000:]
    assert trace(run) == trace(short_folder / "whole")
    assert set(answers_per_question(run).values()) == {1}
