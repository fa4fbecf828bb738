"""The front's picture: what is in its frame, and files that are what their endings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge import figures
from evomerge.errors import InputError
from evomerge.reports.figures._front_chart import front_frame
from evomerge.runs import Run, open_run
from tests.commands.made import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=12))


def test_frame_has_front_dominated_and_parents(run: Run) -> None:
    frame = front_frame(run)
    assert len(frame) == 12 + 3
    assert set(frame["kind"]) == {"front", "dominated", "parent"}
    front = set(frame[frame["kind"] == "front"]["name"])
    assert front == {f"candidate {number}" for number in run.front()["candidate"]}


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("html", b"<!DOCTYPE html>")])
def test_saved_files_are_what_their_endings_say(run: Run, tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"front.{ending}"
    figures.save(figures.front(run), path)
    content = path.read_bytes()
    assert content.lstrip().startswith(magic)
    if ending == "html":
        assert b"cdn.jsdelivr" not in content  # works without a network
    if ending == "svg":
        assert b"parent" in content


def test_an_unknown_ending_lists_the_known_ones(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png, \.svg"):
        figures.save(figures.front(run), tmp_path / "front.bmp")
    with pytest.raises(InputError, match="does not exist"):
        figures.save(figures.front(run), tmp_path / "nowhere" / "front.png")
