"""A search by the quadratic controller, cut off at several moments and resumed, is the search that was never cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loop.world import World, trace


class Cut(Exception):
    """The end of a session at a moment of our choice; what is not on the disk then is lost."""


@pytest.mark.parametrize("controller", ["quadratic", "nehvi", "nsga-iii"])
def test_resume_goes_on_as_if_nothing_had_happened(tmp_path: Path, controller: str) -> None:
    key = "population" if controller == "nsga-iii" else "batch_size"

    def world(name: str) -> World:
        return World(tmp_path / name, controller, 22, options={key: 4})

    moments: list[str] = []
    world("whole").run(moments.append)
    whole = trace(tmp_path / "whole")
    assert len(whole["observed"]) == 22
    cut = world("cut")
    for fraction in (
        0.3,
        0.5,
        0.8,
    ):  # in the design, after it, and in a late round: each resume replays the ones before
        left = int(fraction * len(moments)) - cut_moments(cut, moments)
        seen = 0

        def watch(moment: str, left: int = left) -> None:
            nonlocal seen
            seen += 1
            if seen == left:
                raise Cut

        with pytest.raises(Cut):
            cut.run(watch)
    cut.run()
    assert trace(tmp_path / "cut") == whole


def cut_moments(world: World, moments: list[str]) -> int:
    """Return about how many of the whole run's moments a world has behind it."""
    if not (world.folder / "archive.sqlite").is_file():
        return 0
    return int(len(moments) * len(trace(world.folder)["observed"]) / 22)
