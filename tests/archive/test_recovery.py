"""A damaged archive is restored from its newest copy, and the search goes on as if it had been killed there."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive import FILE_NAME, Archive, Beside, Mirror, restore_newest
from evomerge.archive._backup import BACKUP_NAMES
from evomerge.archive._recovery import Restored
from evomerge.commands._execution import reopened
from evomerge.errors import RunError
from tests.loop.conftest import folder
from tests.loop.world import World, trace
from tests.workers.fakes import ShuffledPool

__all__ = ["folder"]


@pytest.fixture
def whole(folder: Path) -> Path:
    """A finished run of 200 candidates, some of which share a recipe.

    Results come one by one, so that every run of this test writes the same events to the same pages: with the local
    pool, whether the last pages held rows or only an index depended on how busy the machine was.
    """
    World(
        folder / "whole", candidates=200, levels=3, controller="random", pool=lambda spec: ShuffledPool(spec, 2)
    ).run()
    return folder / "whole"


def damaged(whole: Path, name: str) -> tuple[Path, World]:
    run = whole.with_name(name)
    shutil.copytree(whole, run)
    return run, World(run, candidates=200, levels=3, controller="random")


def restored(run: Path, mirror: str | None = None) -> list[str]:
    """Open the run as `resume` does; return what it said."""
    said: list[str] = []
    reopened(run, mirror, said.append).close()
    return said


def events(run: Path) -> int:
    with Archive.open(run) as archive:
        return sum(1 for _ in archive.events())


def test_a_backup_stands_in_where_the_file_is_beyond_reading(whole: Path) -> None:
    run, world = damaged(whole, "header")
    Beside().put(run / FILE_NAME)
    assert (run / BACKUP_NAMES[0]).stat().st_mode & 0o777 == 0o600
    with open(run / FILE_NAME, "r+b") as file:
        file.write(b"\0" * 8192)
    (text,) = restored(run)
    assert f"restored 200 candidates and {events(whole)} events from a backup in the run folder" in text
    assert events(run) == events(whole) + 1  # the recovery is an event
    world.run()
    assert trace(run) == trace(whole)


def test_of_several_copies_the_longest_history_is_taken(whole: Path, tmp_path: Path) -> None:
    run, world = damaged(whole, "several")
    early = World(whole.with_name("early"), candidates=8, levels=3, controller="random")
    early.run()
    shutil.copy(early.folder / FILE_NAME, run / BACKUP_NAMES[0])
    Mirror(str(tmp_path / "mirror")).put(run / FILE_NAME)
    (run / FILE_NAME).write_bytes((run / FILE_NAME).read_bytes()[:4096])
    (text,) = restored(run, str(tmp_path / "mirror"))
    assert f"restored 200 candidates and {events(whole)} events from the mirror" in text
    assert trace(run) == trace(whole)
    (run / FILE_NAME).write_bytes((run / FILE_NAME).read_bytes()[:4096])
    (text,) = restored(run)
    assert "restored 8 candidates" in text
    world.run()
    assert trace(run) == trace(whole)


def overwrite_outcomes(path: Path) -> None:
    """Write garbage into the first page of the outcomes; events stay readable."""
    with closing(sqlite3.connect(path)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outcomes'").fetchone()[0]
    with open(path, "r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xa5" * 3000)


@pytest.fixture
def backed_up(whole: Path) -> tuple[Path, World]:
    """The same run with a backup of its first 120 candidates."""
    run = whole.with_name("backed-up")
    world = World(run, candidates=200, levels=3, controller="random", pool=lambda spec: ShuffledPool(spec, 2))
    replace(world, candidates=120).run()
    Beside().put(run / FILE_NAME)
    world.run()
    assert trace(run) == trace(whole)
    return run, world


@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_truncated_archive_goes_on_from_its_backup(whole: Path, backed_up: tuple[Path, World], share: float) -> None:
    run, world = backed_up
    path = run / FILE_NAME
    before = events(run)
    os.truncate(path, int(path.stat().st_size * share) // 4096 * 4096)
    with pytest.raises(RunError, match=r"is damaged .*`evomerge resume"):
        Archive.open(run)
    (text,) = restored(run)
    assert "restored 120 candidates" in text
    assert "what was recorded later is lost, and the damaged file does not show how much" in text
    (kept,) = run.glob("archive.damaged-*.sqlite")
    assert kept.name in text
    assert 1 < events(run) < before
    world.run()
    assert trace(run) == trace(whole)


def test_what_was_recorded_after_the_backup_is_reported(whole: Path, backed_up: tuple[Path, World]) -> None:
    """Garbage in a page of answers leaves the events readable: they say which results are gone."""
    run, world = backed_up
    path = run / FILE_NAME
    with Archive.open(run) as archive:
        last = list(archive.events())[-1].seq
    overwrite_outcomes(path)
    (text,) = restored(run)
    with Archive.open(run) as archive:
        kept = [event for event in archive.events() if event.kind != "recovered"]
        (note,) = archive.events("recovered")
    assert note.payload == {"source": "a backup in the run folder", "events": kept[-1].seq, "lost": last - kept[-1].seq}
    assert f"at least {last - kept[-1].seq} later events are lost, with the results of candidates " in text
    done = {event.candidate for event in kept if event.kind == "finished"}
    first = min(set(range(200)) - done)
    assert re.search(rf"candidates {first}, .* and \d+ more; the damaged file", text)
    world.run()
    assert trace(run) == trace(whole)


def test_nothing_is_lost_where_the_backup_holds_the_last_event(whole: Path) -> None:
    run, _ = damaged(whole, "same")
    Beside().put(run / FILE_NAME)
    overwrite_outcomes(run / FILE_NAME)
    (text,) = restored(run)
    assert "nothing is lost" in text


def test_a_damaged_archive_does_not_replace_its_good_copy(whole: Path, tmp_path: Path) -> None:
    run, _ = damaged(whole, "copied")
    Beside().put(run / FILE_NAME)
    good = (run / BACKUP_NAMES[0]).read_bytes()
    overwrite_outcomes(run / FILE_NAME)
    for keep in (Beside(), Mirror(str(tmp_path / "mirror"))):
        with pytest.raises(RunError, match=r"archive.sqlite is damaged"):
            keep.put(run / FILE_NAME)
    assert (run / BACKUP_NAMES[0]).read_bytes() == good
    assert not list(run.glob("*.part"))


def test_where_there_is_no_copy_it_is_said(whole: Path) -> None:
    run, _ = damaged(whole, "nothing")
    (run / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"\0" * 4096)
    with pytest.raises(RunError, match="there is no undamaged copy"):
        restore_newest(run, FILE_NAME)
    assert (run / FILE_NAME).exists()  # it was not touched


def test_a_long_loss_is_named_in_part() -> None:
    result = Restored("a backup", 10, 0.0, 3, 40, tuple(range(3, 20)), Path("archive.damaged-x.sqlite"))
    assert "candidates 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 5 more" in result.text()
    assert "which ends at 1970-01-01 00:00:00 UTC" in result.text()
