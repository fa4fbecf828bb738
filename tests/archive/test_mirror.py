"""Copies of a growing archive: consistent, whole or absent, and enough to go on elsewhere."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import fsspec
import pytest

from evomerge.archive import FILE_NAME, Archive, Beside, Keeper, Mirror, mirror_of, restore
from evomerge.archive._snapshot import last_event, snapshot
from evomerge.commands._execution import kept, reopened
from evomerge.errors import InputError, RunError
from tests.archive.test_archive import filled
from tests.clock import BACKSTOP
from tests.loop.conftest import folder
from tests.loop.world import World, trace

__all__ = ["folder"]


def test_a_snapshot_holds_what_is_committed_and_nothing_else(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "run", {"seed": 7}) as archive:
        archive.put_event("note", None, {"text": "committed"})
        with archive.transaction():
            archive.put_event("note", None, {"text": "under way"})
            assert snapshot(archive.path, tmp_path / "copy.sqlite") == 1
    assert last_event(tmp_path / "copy.sqlite") == 1
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("copy.sqlite-*"))  # one plain file


def test_snapshots_of_an_archive_that_is_written_to_are_all_whole(tmp_path: Path) -> None:
    stop = threading.Event()
    folder = tmp_path / "run"
    with Archive.create(folder, {"seed": 7}):
        pass

    def write() -> None:
        with Archive.open(folder, read_only=False) as archive:
            while not stop.is_set():
                archive.put_event("note", None, {"text": "x" * 500})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        lasts = []
        for turn in range(8):
            snapshot(folder / FILE_NAME, tmp_path / f"{turn}.sqlite")
            lasts.append(last_event(tmp_path / f"{turn}.sqlite"))
    finally:
        stop.set()
        writer.join()
    assert None not in lasts
    assert lasts == sorted(lasts)


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_mirror_keeps_the_last_two_copies(tmp_path: Path, scheme: str) -> None:
    path = filled(tmp_path / "run")
    root = str(tmp_path / "far" / "away") if scheme != "memory://" else f"/{tmp_path.name}-mirror"
    mirror = Mirror(scheme + root)
    first = mirror.put(path)
    with Archive.open(path.parent, read_only=False) as archive:
        archive.put_event("note", None, {"text": "later"})
    assert mirror.put(path) == first + 1
    files, _ = fsspec.core.url_to_fs(scheme + root)
    assert sorted(Path(name).name for name in files.ls(root, detail=False)) == [
        "archive-before.sqlite",
        "archive.sqlite",
    ]
    newest, older = mirror.fetch(tmp_path)
    assert (last_event(newest), last_event(older)) == (first + 1, first)


def test_a_killed_upload_leaves_the_copy_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path / "run")
    mirror = Mirror(str(tmp_path / "mirror"))
    last = mirror.put(path)
    with Archive.open(path.parent, read_only=False) as archive:
        archive.put_event("note", None, {"text": "later"})
    for broken in ("put_file", "mv"):
        with monkeypatch.context() as patch:
            patch.setattr(type(mirror._files), broken, _fails)
            with pytest.raises(RunError, match=r"mirror .* cannot be written: OSError: the network is gone"):
                mirror.put(path)
        assert last_event(restore(mirror.uri, tmp_path / broken)) == last


def _fails(*_: object, **__: object) -> None:
    raise OSError("the network is gone")


def test_a_machine_is_lost_and_its_run_goes_on_elsewhere(folder: Path, tmp_path: Path) -> None:
    World(folder / "whole", candidates=30).run()
    first = World(folder / "first", candidates=12)
    first.run()
    uri = str(tmp_path / "mirror")
    Mirror(uri).put(first.folder / FILE_NAME)
    second = World(folder / "second", candidates=30)
    said: list[str] = []
    reopened(second.folder, uri, said.append).close()
    assert said == [f"fetched the archive from {uri}"]
    second.run()
    assert trace(second.folder) == trace(folder / "whole")
    assert (second.folder / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_keeper_copies_while_the_run_goes_on_and_at_its_end(tmp_path: Path) -> None:
    copied = threading.Event()

    class Quick(Mirror):
        seconds = 0.01

        def put(self, path: Path) -> None:
            super().put(path)
            if last_event(copy) == 1:
                copied.set()

    folder = tmp_path / "run"
    mirror = Quick(str(tmp_path / "mirror"))
    copy = tmp_path / "mirror" / "archive.sqlite"
    with Archive.create(folder, {"seed": 7}) as archive:
        with Keeper(archive.path, [mirror]) as keeper:
            archive.put_event("note", None, {"text": "1"})
            assert copied.wait(BACKSTOP)
            archive.put_event("note", None, {"text": "2"})
        assert last_event(copy) == 2
        assert keeper.problems == []


def test_trouble_with_a_mirror_does_not_stop_the_run_and_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    uri = str(tmp_path / "mirror")
    with Archive.create(tmp_path / "run", {"seed": 7}) as archive:
        with kept(archive, uri, said.append):
            os.rename(tmp_path / "mirror", tmp_path / "elsewhere")
            (tmp_path / "mirror").write_text("a file in its place")
            archive.put_event("note", None, {"text": "goes on"})
        assert archive.seconds() >= 0
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert mirror_of(tmp_path / "run") == uri  # a resume mirrors to the same place


def test_a_short_run_has_no_backup_beside_it(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "run", {"seed": 7}) as archive, kept(archive, None, print):
        archive.put_event("note", None, {"text": "quick"})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["archive.lock", "archive.sqlite"]


def test_backups_beside_the_archive_rotate(tmp_path: Path) -> None:
    path = filled(tmp_path / "run")
    first = Beside().put(path)
    with Archive.open(path.parent, read_only=False) as archive:
        archive.put_event("note", None, {"text": "later"})
    Beside().put(path)
    assert last_event(path.with_name("archive.backup.sqlite")) == first + 1
    assert last_event(path.with_name("archive.backup-before.sqlite")) == first


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nosuch://bucket/run", r"mirror 'nosuch://bucket/run': .*expected a folder, or a URI"),
        ("sftp://me:hunter22@host/run", "holds a password"),
    ],
)
def test_mirrors_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        Mirror(uri)
    assert "hunter22" not in str(refused.value)


def test_an_empty_mirror(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no undamaged archive"):
        restore(str(tmp_path / "mirror"), tmp_path / "run")
