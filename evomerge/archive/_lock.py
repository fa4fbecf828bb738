"""One writer per run folder: a lock that dies with its process and says who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from evomerge.errors import RunError

FILE_NAME = "archive.lock"


class WriterLock:
    """Held from construction to `release`, or to the end of the process however it ends; readers are never stopped.

    It is `flock` on a file of its own: unlike POSIX record locks, it is not lost when some other part of the process
    opens and closes the same file.
    """

    def __init__(self, folder: Path) -> None:

        self.path = folder / FILE_NAME
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RunError(
                f"run folder {folder} cannot be written ({error.strerror}); make it writable or choose another one"
            ) from error
        try:
            _lock_patiently(self._descriptor)
        except BlockingIOError:
            holder = _read_holder(self._descriptor)
            os.close(self._descriptor)
            raise RunError(
                f"run folder {folder} is in use by {holder}; wait for it or stop it. "
                f"`evomerge status {folder}` works meanwhile"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise RunError(
                f"the file system of {folder} gives no file locks ({error.strerror}), so two searches could write "
                "into one archive; choose a run folder on a local disk"
            ) from error
        _write_holder(self._descriptor)

    @property
    def held(self) -> bool:
        """True until `release`."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)  # closing the last descriptor unlocks
            self._descriptor = -1


def _lock_patiently(descriptor: int) -> None:
    """Take the exclusive lock; wait a moment for a reader that only tests whether the folder has a writer."""
    import fcntl

    for attempt in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt == 9:
                raise
            time.sleep(0.02)


def holder_of(folder: Path) -> str | None:
    """Return who writes to a run folder now, as in 'process 7 on host'; None without a writer. Takes no lock."""
    import fcntl

    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        # A shared lock is refused while the writer has its own, and is given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _write_holder(descriptor: int) -> None:
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _read_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # taken a moment ago: not written yet
        return "another process"
