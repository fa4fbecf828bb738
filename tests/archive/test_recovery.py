"""A damaged archive gives back its last good state, and the search goes on as if it had been killed there."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from evomerge.archive import FILE_NAME, Archive
from evomerge.archive.mirror import BACKUP_NAMES, Beside, Mirror
from evomerge.archive.recovery import recover
from evomerge.candidate import Answers, Candidate, Outcome, Response
from evomerge.errors import RunError
from evomerge.run.places import reopened
from evomerge.scoring.synthetic import synthetic_recipe
from tests.pool.fakes import ShuffledPool
from tests.search.conftest import folder
from tests.search.world import World, trace

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


def recovered(run: Path, mirror: str | None = None) -> list[str]:
    """Open the run as `resume` does; return what it said."""
    said: list[str] = []
    reopened(run, mirror, said.append).close()
    return said


def events(run: Path) -> int:
    with Archive.open(run) as archive:
        return sum(1 for _ in archive.events())


@pytest.mark.parametrize("share", [0.6, 0.8, 0.97])
def test_a_truncated_archive_goes_on_from_a_prefix_of_its_history(whole: Path, share: float) -> None:
    run, world = damaged(whole, "cut")
    cut(run, share)
    with pytest.raises(RunError, match=r"is damaged .*`evomerge resume"):
        Archive.open(run)
    (text,) = recovered(run)
    assert "from the damaged file itself" in text
    lost = events(whole) + 1 - events(run)  # the recovery is an event
    known = re.search(r"(at least (\d+) later events are lost|how much is lost is unknown);", text)
    assert known is not None, text
    assert 0 < int(known[2] or 1) <= lost
    (kept,) = run.glob("archive.damaged-*.sqlite")
    assert kept.name in text
    assert 1 < events(run) < events(whole)
    world.run()
    assert trace(run) == trace(whole)


def test_what_cannot_be_read_is_not_made_up(whole: Path) -> None:
    """A fifth of the file holds the facts and some candidates, but not the events that say how it began."""
    run, _ = damaged(whole, "stump")
    cut(run, 0.2)
    with pytest.raises(RunError, match="nothing can be read from it, and there is no undamaged copy"):
        recovered(run)


def cut(run: Path, share: float) -> None:
    path = run / FILE_NAME
    os.truncate(path, int(path.stat().st_size * share) // 4096 * 4096)


def test_garbage_in_a_page_is_noticed_and_survived_where_the_facts_are_whole(whole: Path) -> None:
    ends = {place: end_of(whole, place) for place in range(1, 80, 11)}
    assert set(ends.values()) <= {"unharmed", "recovered", "nothing left"}
    assert sum(end == "recovered" for end in ends.values()) >= 3, ends


def end_of(whole: Path, place: int) -> str:
    """Write garbage into one page, open the run as `resume` does, go on with it, and say what became of it."""
    run, world = damaged(whole, f"garbage-{place}")
    with open(run / FILE_NAME, "r+b") as file:
        file.seek(4096 * place + 64)
        file.write(b"\xa5" * 3000)
    try:
        said = recovered(run)
    except RunError as error:
        return "nothing left" if "nothing can be read from it" in str(error) else str(error)
    world.run()
    return ("recovered" if said else "unharmed") if trace(run) == trace(whole) else f"page {place}: another trace"


def test_a_backup_stands_in_where_the_file_is_beyond_reading(whole: Path) -> None:
    run, world = damaged(whole, "header")
    Beside().put(run / FILE_NAME)
    assert (run / BACKUP_NAMES[0]).stat().st_mode & 0o777 == 0o600
    with open(run / FILE_NAME, "r+b") as file:
        file.write(b"\0" * 8192)
    (text,) = recovered(run)
    assert f"recovered 200 candidates and {events(whole)} events from a backup in the run folder" in text
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
    (text,) = recovered(run, str(tmp_path / "mirror"))
    assert f"recovered 200 candidates and {events(whole)} events from the mirror" in text
    assert trace(run) == trace(whole)
    (run / FILE_NAME).write_bytes((run / FILE_NAME).read_bytes()[:4096])
    (text,) = recovered(run)
    assert "recovered 8 candidates" in text
    world.run()
    assert trace(run) == trace(whole)


def test_a_half_recorded_candidate_is_taken_back_to_where_it_was_whole(whole: Path) -> None:
    """Answers that are missing although their event is there end the history before that event."""
    run, world = damaged(whole, "hole")
    with sqlite3.connect(run / FILE_NAME) as connection:
        connection.execute("DROP TRIGGER answers_no_DELETE")
        connection.execute(
            "DELETE FROM answers WHERE candidate = 20 AND question = (SELECT max(question) FROM answers)"
        )
    connection.close()
    with open(run / FILE_NAME, "r+b") as file:  # a page at the end, of which nothing is needed, so that it is noticed
        file.seek(0, 2)
        size = file.tell()
        file.seek(28)
        file.write((size // 4096 + 5).to_bytes(4, "big"))
    result = recover(run, FILE_NAME)
    with Archive.open(run) as archive:
        kinds = [(event.kind, event.candidate) for event in archive.events()]
    assert ("finished", 20) not in kinds
    assert result.lost is not None
    assert result.lost > 0
    world.run()
    assert trace(run) == trace(whole)


def test_parts_of_tasks_and_several_metrics_per_item_are_kept(folder: Path) -> None:
    """A history of 60 candidates with two metrics per item, the tasks answered in two parts; cut near its end."""
    run = folder / "metrics"
    with Archive.create(run, {"seed": 7}) as archive:
        for number in range(60):
            genes = (number / 60, 0.5)
            archive.put_asked([Candidate(number, synthetic_recipe(genes), genes)], 1)
            for place, left in (("a", 1), ("b", 0)):
                given = tuple(Response("add", place, metric, 1.0, "said" * 20) for metric in ("acc", "acc_norm"))
                archive.put_answers(Answers(number, "search", "add", given, left), ("a", "b") if left else ())
            archive.put_outcome(Outcome(number, "search"))
        whole = sum(1 for _ in archive.events())
    cut(run, 0.7)
    result = recover(run, FILE_NAME)
    with Archive.open(run) as archive:
        kinds = [event.kind for event in archive.events()]
        ended = {event.candidate for event in archive.events("finished")}
        assert all(len(archive.responses("search", number or 0)) == 4 for number in ended)
    assert 100 < result.events < whole
    assert kinds.count("part") >= len(ended) >= 20


def test_where_nothing_is_left_it_is_said(whole: Path) -> None:
    run, _ = damaged(whole, "nothing")
    (run / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"\0" * 4096)
    with pytest.raises(RunError, match="nothing can be read from it, and there is no undamaged copy"):
        recover(run, FILE_NAME)
    assert (run / FILE_NAME).exists()  # it was not touched
