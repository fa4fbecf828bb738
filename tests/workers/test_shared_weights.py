"""Workers of one machine hold the parents once: their memory is the page cache's, and it is never written to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evomerge.checkpoints import read_layout
from evomerge.engine import ResidentModel
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe, Source
from evomerge.workers._worker import MappedFiles
from tests.pico import make_model

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")


def mapped(folder: Path) -> dict[str, int]:
    """Return kilobytes of the weights' files here: mapped (Size), and copied since they were written to (Anonymous)."""
    found = {"Size": 0, "Anonymous": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = str(folder) in line
        name, _, value = line.partition(":")
        if inside and name in found:
            found[name] += int(value.split()[0])
    return found


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    make_model(tmp_path / "base", seed=0)
    for seed, name in enumerate(("left", "right"), start=1):
        make_model(tmp_path / name, seed=seed, noise_from=tmp_path / "base")
    return [str(tmp_path / name) for name in ("base", "left", "right")]


def recipe(models: list[str], weight: float) -> Recipe:
    sources = tuple(Source(model, (("weight", weight), ("density", 0.5))) for model in models[1:])
    return Recipe("ties", sources, base=models[0])


def test_shared_parents_are_mapped_never_copied_and_give_the_same_weights(models: list[str], tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) // 1024
    own = ResidentModel(models, device="cpu")
    assert mapped(tmp_path)["Size"] == 0
    shared = ResidentModel(models, device="cpu", shared=True)
    assert mapped(tmp_path)["Size"] >= size
    for weight in (0.3, 0.9):
        assert shared.write(recipe(models, weight)) == own.write(recipe(models, weight))
    assert mapped(tmp_path)["Anonymous"] == 0


def test_a_file_that_is_written_to_meanwhile_is_noticed(models: list[str], tmp_path: Path) -> None:
    files = MappedFiles([read_layout(model) for model in models])
    files.check()
    path = tmp_path / "left" / "model.safetensors"
    with open(path, "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    with pytest.raises(WeightsError, match=r"left/model.safetensors' was changed while a search uses it"):
        files.check()
