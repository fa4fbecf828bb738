"""Copies of the archive elsewhere, made while the run goes on: beside it, and at any place that fsspec can reach.

The door to fsspec. A copy is a consistent snapshot; the one before it is kept until the new one is whole.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

from evomerge.archive._snapshot import last_event, newest_event, snapshot
from evomerge.errors import ExtraMissing, InputError, RunError

BACKUP_NAMES = ("archive.backup.sqlite", "archive.backup-before.sqlite")  # the newest first
BACKUP_SECONDS = 300.0
MIRROR_SECONDS = 30.0
URI_FILE = "archive.mirror"  # a file in the run folder names the mirror, for when the archive cannot be read


class Keep(Protocol):
    """A place that keeps copies of one archive."""

    seconds: float  # between two copies

    def put(self, archive: Path) -> int:
        """Copy the archive there, and return the number of the last event of the copy."""
        ...


class Beside:
    """Keeps two copies in the run folder itself: against a damaged file, not against a lost disk."""

    seconds = BACKUP_SECONDS

    def put(self, archive: Path) -> int:
        """Make the newest copy; the newest before becomes the older one."""
        newest, older = (archive.with_name(name) for name in BACKUP_NAMES)
        fresh = archive.with_name("archive.backup-new.sqlite")
        last = snapshot(archive, fresh)
        if newest.exists():
            newest.replace(older)
        fresh.replace(newest)
        return last


class Mirror:
    """Keeps two copies below a URI: s3://bucket/run, gs://..., sftp://..., or a folder on another disk."""

    seconds = MIRROR_SECONDS

    def __init__(self, uri: str) -> None:
        """Find the file system.

        Raises:
            InputError: the URI is of no file system that is installed, or holds a password.
        """
        if urlsplit(uri).password is not None:
            raise InputError(
                "the URI of the mirror holds a password, which would be written to the run folder; give it in the "
                "environment or in the file where that file system looks for it"
            )
        self.uri = uri
        self._files, self._root = _file_system(uri)

    def put(self, archive: Path) -> int:
        """Upload a snapshot under another name, then let it take the place of the last one."""
        newest, older = (f"{self._root}/{name}" for name in ("archive.sqlite", "archive-before.sqlite"))
        with tempfile.TemporaryDirectory(prefix="evomerge-mirror-") as scratch:
            local = Path(scratch, "archive.sqlite")
            last = snapshot(archive, local)
            try:
                self._files.makedirs(self._root, exist_ok=True)
                self._files.put_file(str(local), f"{newest}.part")
                if self._files.exists(newest):
                    self._files.mv(newest, older)
                self._files.mv(f"{newest}.part", newest)
            # Broad on purpose: every file system raises its own errors, and none of them may end a search.
            except Exception as error:
                raise RunError(f"mirror {self.uri} cannot be written: {type(error).__name__}: {error}") from error
        return last

    def fetch(self, folder: Path) -> list[Path]:
        """Download what is there into `folder`, the newest first."""
        found = []
        for name in ("archive.sqlite", "archive-before.sqlite"):
            local = folder / f"mirrored-{name}"
            try:
                self._files.get_file(f"{self._root}/{name}", str(local))
            except FileNotFoundError:
                continue
            except Exception as error:  # broad for the same reason
                raise RunError(f"mirror {self.uri} cannot be read: {type(error).__name__}: {error}") from error
            found.append(local)
        return found


class Keeper:
    """A thread that copies the archive now and then, and once more at the end; a context manager.

    Trouble with a copy never stops the run: it is tried again, and `problems` tells what did not work.
    """

    def __init__(self, archive: Path, keeps: Sequence[Keep]) -> None:
        self._archive, self._keeps = archive, list(keeps)
        self._copied = dict.fromkeys(range(len(self._keeps)), 0)  # the last event of each copy
        self._problems: dict[int, str] = {}
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_on, args=(index,), name=f"evomerge-keep-{index}", daemon=True)
            for index in self._copied
        ]

    @property
    def problems(self) -> list[str]:
        """What is wrong with copies at the moment."""
        return list(self._problems.values())

    def __enter__(self) -> Keeper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def copy(self, index: int) -> None:
        """Bring one copy up to date, where something has happened since it was made."""
        try:
            if self._copied[index] != newest_event(self._archive):
                self._copied[index] = self._keeps[index].put(self._archive)
            self._problems.pop(index, None)
        except (RunError, OSError) as error:
            self._problems[index] = str(error)

    def _keep_on(self, index: int) -> None:
        while not self._end.wait(self._keeps[index].seconds):
            self.copy(index)
        if not isinstance(self._keeps[index], Beside) or self._copied[index]:  # a short run needs no backup
            self.copy(index)


def mirror_of(folder: Path) -> str | None:
    """Return where a run folder is mirrored to, if anywhere."""
    try:
        return (folder / URI_FILE).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def restore(uri: str, folder: Path) -> Path:
    """Bring the newest undamaged copy of a mirror into a run folder that has no archive, and return its path.

    Raises:
        RunError: there is no undamaged copy.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="evomerge-mirror-", dir=folder) as scratch:
        for copy in Mirror(uri).fetch(Path(scratch)):
            if last_event(copy) is not None:
                target = folder / "archive.sqlite"
                copy.chmod(0o600)
                copy.replace(target)
                return target
    raise RunError(f"mirror {uri} holds no undamaged archive")


def _file_system(uri: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise ExtraMissing("fsspec", "mirror") from error
    try:
        files, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"mirror {uri!r}: {error}; expected a folder, or a URI as in s3://bucket/folder") from error
    return files, root.rstrip("/")
