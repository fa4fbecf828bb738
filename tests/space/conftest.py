from __future__ import annotations

from pathlib import Path

import pytest

from tests.space.files import QUICKSTART


@pytest.fixture
def quickstart() -> str:
    """The example of the design, as a search file."""
    return QUICKSTART


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for search files, beside folders of models and tasks."""
    for name in ("base", "add", "sort", "spell"):
        (tmp_path / "experts" / name).mkdir(parents=True)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "spaces").mkdir()
    return tmp_path / "spaces"


@pytest.fixture
def write(folder: Path):
    """Writes a search file and returns its path."""

    def write(text: str, name: str = "search.yaml") -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
