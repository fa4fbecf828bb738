"""The simulated cluster is a fair one: its accounts add up, and the real driver above it loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale.simulate import TASKS, simulate
from benchmarks.scale.world import World
from evomerge.archive import Archive

CALM = World(
    16, node_life=1e9, crash_share=0.0, memory_share=0.0, hang_share=0.0, bad_share=0.0, slow_share=0.0, commit=0.0
)
ROUGH = World(16, node_life=600.0, crash_share=0.05, memory_share=0.1, hang_share=0.02, bad_share=0.05, slow_share=0.1)


def told(folder: Path) -> dict[int | None, object]:
    with Archive.open(folder) as archive:
        return {event.candidate: event.payload["fitness"] for event in archive.events("observed")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """One search on a cluster where nothing goes wrong but a killed driver, and one where everything does."""
    folder = tmp_path_factory.mktemp("simulated")
    found = {
        name: simulate(world, "sobol", None, 96, folder / name, kill=True)
        for name, world in (("calm", CALM), ("rough", ROUGH))
    }
    return {name: {**row, "observed": told(folder / name)} for name, row in found.items()}


def test_worker_seconds_add_up(rows: dict[str, dict[str, object]]) -> None:
    for row in rows.values():
        shares = [float(str(row[name])) for name in ("useful", "twice", "lost", "loading", "idle")]
        assert min(shares) >= 0.0
        # what is missing is places without a worker: between a death and its successor's start
        assert 0.9 < sum(shares) < 1.001
    calm = rows["calm"]
    assert sum(float(str(calm[name])) for name in ("useful", "loading", "idle", "lost")) == pytest.approx(1.0, abs=0.01)


def test_a_rough_cluster_is_rough_and_a_calm_one_is_not(rows: dict[str, dict[str, object]]) -> None:
    calm, rough = rows["calm"], rows["rough"]
    assert calm["counts"]["retries"] == 0  # type: ignore[index]
    assert calm["failed"] == 0
    troubles = ("reclaimed nodes", "crash", "memory", "hang")
    assert {calm["counts"][name] for name in troubles} == {0}  # type: ignore[index]
    assert min(rough["counts"][name] for name in troubles) > 0  # type: ignore[index]
    assert rough["counts"]["retries"] > 0  # type: ignore[index]
    assert rough["lost"] > calm["lost"]  # type: ignore[operator]
    assert rough["useful"] < calm["useful"]  # type: ignore[operator]


def test_who_answers_and_what_goes_wrong_changes_no_score(rows: dict[str, dict[str, object]]) -> None:
    """`simulate` has checked that every answer is there once; here, that they are the answers of a calm world."""
    calm, rough = rows["calm"]["observed"], rows["rough"]["observed"]
    scored = {number: fitness for number, fitness in rough.items() if fitness is not None}  # type: ignore[attr-defined]
    assert len(scored) > 70
    assert all(calm[number] == fitness for number, fitness in scored.items())  # type: ignore[index]
    assert len(next(iter(scored.values()))) == len(TASKS)


def test_a_slow_driver_shows_as_idle_workers(tmp_path: Path, rows: dict[str, dict[str, object]]) -> None:
    slow = simulate(replace(CALM, commit=1.5), "sobol", None, 96, tmp_path / "slow", kill=True)
    assert slow["commit_load"] > 0.3
    assert float(str(slow["idle"])) > 2 * float(str(rows["calm"]["idle"]))
