"""A full disk, a read-only folder, and writers in other processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evomerge.archive import Archive, on_network
from evomerge.candidate import Answers, Response
from evomerge.errors import RunError
from tests.archive.test_archive import candidate, filled


def fill(archive: Archive) -> int:
    """Append until it fails; return how many candidates' answers were recorded."""
    for number in range(10_000):
        responses = tuple(Response("add", f"item-{i}", "acc", 1.0, "x" * 200) for i in range(20))
        with archive.transaction():
            archive.put_asked([candidate(number, (number / 10_000, 0.5))], size=1)
            archive.put_answers(Answers(number, "search", "add", responses))
    raise AssertionError("the disk never filled up")


def test_a_full_disk_loses_nothing_that_was_recorded(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"0" * 2**20)
    archive = Archive.create(small_disk / "run", {"seed": 7})
    with pytest.raises(RunError, match=r"cannot grow: .*(full|I/O).*recorded before is safe.*evomerge resume"):
        fill(archive)
    recorded = archive.count()
    assert recorded > 5
    archive.close()
    ballast.unlink()
    with Archive.open(small_disk / "run", read_only=False) as again:
        assert again.count() == recorded
        assert all(len(again.responses("search", number)) == 20 for number in range(recorded))
        again.put_event("note", None, {"text": "room again"})


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"0" * (shutil.disk_usage(small_disk).total - 8192))
    with pytest.raises(RunError, match="cannot"):
        Archive.create(small_disk / "run", {"seed": 7, "file": "x" * 100_000})
    assert not (small_disk / "run").exists()  # nothing half-made is left


def unprivileged(function: Callable[[], list[str]]) -> list[str]:
    """Return what `function` says in a child whose user permissions do stop; root passes through them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)  # nothing of pytest may run in the child
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, encoding="utf-8") as pipe:
        said: list[str] = json.loads(pipe.read())
    return said


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[Path]:
    """`tmp_path`, which other users may pass through while the test runs."""
    closed = {parent: parent.stat().st_mode for parent in [tmp_path, *tmp_path.parents]}
    closed = {parent: mode for parent, mode in closed.items() if not mode & 0o001}
    for parent, mode in closed.items():
        parent.chmod(mode | 0o001)
    yield tmp_path
    for parent, mode in closed.items():
        parent.chmod(mode)


def test_a_read_only_folder_can_be_read_and_is_not_written(reachable: Path) -> None:
    path = filled(reachable / "run")
    path.chmod(0o444)
    path.with_name("archive.lock").chmod(0o444)
    path.parent.chmod(0o555)

    def visit() -> list[str]:
        with Archive.open(path.parent) as archive:
            said = [str(archive.count())]
        with pytest.raises(RunError) as refused:
            Archive.open(path.parent, read_only=False)
        said.append(str(refused.value))
        with pytest.raises(RunError) as refused:
            Archive.create(path.parent / "below", {})
        return [*said, str(refused.value)]

    try:
        count, opened, created = unprivileged(visit)
    finally:
        path.parent.chmod(0o755)
    assert count == "400"
    assert "cannot be written (Permission denied); make it writable" in opened
    assert "cannot be made: Permission denied; choose another one" in created


def test_another_process_is_named_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = (
        "import sys, time; from evomerge.archive import Archive\n"
        "archive = Archive.create(sys.argv[1], {'seed': 7})\n"
        "archive.put_event('note', None, {'text': 'mine'})\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(RunError, match=f"in use by process {other.pid} on "):
            Archive.open(folder, read_only=False)
        with Archive.open(folder) as reader:
            assert [event.payload["text"] for event in reader.events()] == ["mine"]
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with Archive.open(folder, read_only=False) as archive:
        archive.put_event("note", None, {"text": "and mine"})
        assert [event.payload["text"] for event in archive.events()] == ["mine", "and mine"]


def test_network_file_systems_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the write-ahead log's shared memory would not reach readers on other machines."""
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/far\\040away nfs4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: mounts)
    assert on_network(tmp_path / "far away" / "run" / "archive.sqlite")
    assert not on_network(tmp_path / "near" / "archive.sqlite")
