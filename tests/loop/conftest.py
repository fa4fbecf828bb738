from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A run folder that does not exist yet, in memory where possible: these tests commit thousands of times."""
    shared = Path("/dev/shm")
    parent = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    yield parent / "run"
    shutil.rmtree(parent)
