"""The folder of a private Ray: short enough for sockets, and gone even where its driver was killed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.workers.ray._local_cluster import PrivateRay, quiet_ray


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_killed_drivers_left_behind_is_removed_and_nothing_else(place: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = place / f"evomerge-ray-{dead.pid}-abc"
    (left / "session").mkdir(parents=True)
    kept = [
        place / f"evomerge-ray-{os.getpid()}-abc",
        place / f"evomerge-ray-{os.getppid()}-abc",
        place / "ray-of-others",
    ]
    for folder in kept:
        folder.mkdir()
    fresh = PrivateRay()
    assert not left.exists()
    assert all(folder.exists() for folder in kept)
    assert Path(fresh.folder).is_dir()
    fresh.remove()
    assert not Path(fresh.folder).exists()


def test_a_long_folder_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    fresh = PrivateRay()
    assert len(fresh.folder) <= 40
    fresh.remove()
    assert list(deep.iterdir()) == []


def test_quiet_only_while_inside(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("ray._private.authentication")
    with quiet_ray():
        logger.warning("inside")
        logger.error("an error")
    logger.warning("outside")
    assert [record.message for record in caplog.records] == ["an error", "outside"]
