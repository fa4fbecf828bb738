"""The settings of a small Ray of our own, and its folder, which is removed even after a driver was killed."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_OBJECT_STORE = 128 * 2**20  # bytes; only recipes and answers travel
_LONGEST_FOLDER = 40  # characters: Ray puts sockets below it, and the path of a socket ends at 107
_PREFIX = "evomerge-ray-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-\w+")  # of the process that made it


def quiet_settings() -> dict[str, Any]:
    """Return arguments of `ray.init` that keep Ray's own messages off our terminal."""
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


@contextmanager
def hushed() -> Iterator[None]:
    """Let Ray's Python side say nothing below an error inside: it warns of its own defaults (token authentication)."""
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
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a private Ray calls nobody
        # How much nicer workers are than we: by Ray's own 15 they stand still beside anything else that runs here.
        os.environ.setdefault("RAY_worker_niceness", "0")
        return {
            "address": "local",  # not the cluster that RAY_ADDRESS may name: that is asked for by `address`
            "num_cpus": cpus,
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
            "_temp_dir": self.folder,
            **quiet_settings(),
        }

    def remove(self) -> None:
        """Remove the folder, once Ray has stopped."""
        shutil.rmtree(self.folder, ignore_errors=True)


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
