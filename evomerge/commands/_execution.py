"""Where a run is kept: its run folder and the copies of its archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.archive import (
    FILE_NAME,
    URI_FILE,
    Archive,
    ArchiveDamaged,
    Beside,
    Keep,
    Keeper,
    Mirror,
    WriterLock,
    mirror_of,
    on_network,
    restore,
    restore_newest,
)

Note = Callable[[str], None]


def reopened(folder: Path, mirror: str | None, note: Note) -> Archive:
    """Return a run's archive, for writing.

    A damaged one is replaced by its newest good copy, and a missing one is fetched from its mirror.

    Raises:
        RunError: there is none, another process is at it, or nothing of it is left.
    """
    mirror = mirror or mirror_of(folder)
    if mirror is not None and not (folder / FILE_NAME).exists():
        restore(mirror, folder)
        note(f"fetched the archive from {mirror}")
    try:
        return Archive.open(folder, read_only=False)
    except ArchiveDamaged:
        lock = WriterLock(folder)
        try:
            restored = restore_newest(folder, FILE_NAME, mirror)
        finally:
            lock.release()
        note(restored.text())
        return Archive.open(folder, read_only=False)


@contextmanager
def kept(archive: Archive, mirror: str | None, note: Note) -> Iterator[None]:
    """Copy the archive while the search runs: beside itself, and to its mirror if it has one.

    Raises:
        InputError: the mirror cannot be used.
        RunError: the mirror cannot be written from the start; later trouble is only noted.
    """
    folder = archive.path.parent
    mirror = mirror or mirror_of(folder)
    if on_network(archive.path):
        text = "the run folder is on a network file system: the archive uses a rollback journal, which is slower"
        archive.put_event("note", None, {"text": text})
        note(text)
    keeps: list[Keep] = [Beside()]
    if mirror is not None:
        keeps.append(Mirror(mirror))
        keeps[-1].put(archive.path)
        (folder / URI_FILE).write_text(f"{mirror}\n", encoding="utf-8")
    keeper = Keeper(archive.path, keeps)
    try:
        with keeper:
            yield
    finally:
        for problem in keeper.problems:
            note(problem)
