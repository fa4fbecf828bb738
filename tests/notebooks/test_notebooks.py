"""Every notebook runs from top to bottom, from its own folder, without an error, and leaves nothing behind."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.clock import BACKSTOP

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STORY = (
    "01_first_search",
    "02_reading_a_front",
    "03_cheap_fitness_with_irt",
    "04_amortized_fronts",
    "05_data_flow",
    "06_on_a_cluster",
)
# A path that begins at the root of a machine; none of the notebooks has a reason to show one.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:tmp|var|home|root|opt|work|Users|private|usr)/[\w.-]+")
MOST_BYTES = 400_000
THEIRS = ("ray", "torchinductor_")  # folders that Ray and torch make in the place for temporary files, and keep


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty place for temporary files, short enough for the names of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def marked(path: Path) -> object:
    return pytest.param(path, id=path.stem, marks=[pytest.mark.ray] if "cluster" in path.stem else [])


@pytest.mark.slow
@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
def test_notebook_runs(path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = sorted(path.parent.iterdir())
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=int(BACKSTOP), resources={"metadata": {"path": str(path.parent)}}).execute()
    assert sorted(path.parent.iterdir()) == before
    assert [place.name for place in scratch.iterdir() if not place.name.startswith(THEIRS)] == []


def test_the_whole_story_is_here() -> None:
    assert tuple(path.stem for path in NOTEBOOKS) == STORY


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "run the notebook and commit its outputs"
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_show_pictures_without_a_script_and_no_machine_paths(path: Path) -> None:
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    texts = [str(output.get("text", "")) for output in outputs]
    texts += [str(text) for output in outputs for kind, text in output.get("data", {}).items() if "image" not in kind]
    assert [found for text in texts for found in MACHINE_PATH.findall(text)] == []
    assert not any("<script" in text for text in texts)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < MOST_BYTES, "store pictures with fewer pixels or colours"
