"""Settings of all tests: order on request, property tests without time limits, the made-up clock."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.clock import Clock

# Tests of these folders and files start the command line, a kernel or a browser, or run whole searches.
SLOW = (
    "tests/docs/",
    "tests/end_to_end/",
    "tests/notebooks/",
    "tests/controllers/test_constraints.py",
    "tests/engine/test_parallel.py",
    "tests/loop/test_kills.py",
    "tests/reports/test_browser.py",
    "tests/reports/test_page.py",
    "tests/reports/test_validator.py",
)

# Deadlines of property tests compare durations, which a busy machine stretches.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run folders, files and tests in an order of chance")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what `make fast` leaves out, before `-m` selects."""
    if item.path.relative_to(item.config.rootpath).as_posix().startswith(SLOW):
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle folders, the files in them and the tests in those, so that shared fixtures are still made once."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    chance = random.Random(seed)  # the same order in each process of pytest-xdist
    ranks: dict[object, float] = {}

    def rank(key: object) -> float:
        return ranks.setdefault(key, chance.random())

    order = {item: (rank(item.path.parent), rank(item.path), rank(item)) for item in items}
    items.sort(key=order.__getitem__)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of this test; only a sleep, or the test itself, moves it."""
    return Clock(monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 4 MiB, or of as many bytes as the test's parameter says."""
    point = tmp_path / "disk"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 4 * 2**20)}", "tmpfs", str(point)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs privileges")
    yield point
    subprocess.run(["umount", str(point)], check=True)
