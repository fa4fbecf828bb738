"""A small Ray of our own: its settings, its folder (removed even after a driver was killed), and its messages.

Ray's driver prints messages about dead workers and nodes to standard output, from a thread of its own, whatever
`log_to_driver` says. Programs read our standard output (`--json`), so those lines go to a log.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from evomerge.workers._secrets import hide

_OBJECT_STORE = 128 * 2**20  # bytes; only recipes and answers travel
_LONGEST_FOLDER = 40  # characters: Ray puts sockets below it, and the path of a socket ends at 107
_PREFIX = "evomerge-ray-"
_RAY_THREADS = "ray_"  # the names of Ray's own threads begin with it
_NAME = re.compile(rf"{_PREFIX}(\d+)-\w+")  # the number is the id of the process that made it


def quiet_settings() -> dict[str, Any]:
    """Return arguments of `ray.init` that keep Ray's own messages off our terminal."""
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Silence Ray's Python messages below an error: it warns of its own defaults (token authentication)."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class PrivateRay:
    """A folder for one private Ray; made by the constructor, gone after `remove`."""

    def __init__(self) -> None:
        for place in {tempfile.gettempdir(), "/tmp"}:
            _remove_left_behind(Path(place))
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        if len(folder) > _LONGEST_FOLDER:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp")
        self.folder = folder

    def settings(self, cpus: int) -> dict[str, Any]:
        """Return the arguments of `ray.init` for a Ray with this many CPUs."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a private Ray sends no usage statistics
        # Workers run at the driver's niceness: with Ray's own default of 15 they starve beside other programs.
        os.environ.setdefault("RAY_worker_niceness", "0")
        return {
            "address": "local",  # never the cluster that RAY_ADDRESS may name: only `address` asks for that
            "num_cpus": cpus,
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
            "_temp_dir": self.folder,
            **quiet_settings(),
        }

    def remove(self) -> None:
        """Remove the folder, once Ray has stopped."""
        shutil.rmtree(self.folder, ignore_errors=True)


class StdoutFilter:
    """Standard output without the lines of Ray's threads, from `__enter__` on; they go to a log, or to stderr."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._stream: TextIO | None = None

    def __enter__(self) -> StdoutFilter:
        self._stream = sys.stdout
        sys.stdout = cast(TextIO, self)
        return self

    def __exit__(
        self, kind: type | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        if sys.stdout is cast(TextIO, self) and self._stream is not None:  # otherwise it was replaced since
            sys.stdout = self._stream

    def __getattr__(self, name: str) -> Any:
        """Return this attribute of the real stream, such as its encoding."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text to the stream, or to the log where a thread of Ray writes it."""
        assert self._stream is not None
        if not threading.current_thread().name.startswith(_RAY_THREADS):
            return self._stream.write(text)
        if self._log is None:
            return sys.stderr.write(text)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(hide(text))
        return len(text)


def _remove_left_behind(place: Path) -> None:
    """Remove the folders of our own processes that were killed; their Ray ends with them, its files do not."""
    for folder in place.glob(f"{_PREFIX}*"):
        match = _NAME.fullmatch(folder.name)
        with suppress(OSError):
            if match and not _alive(int(match[1])) and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
