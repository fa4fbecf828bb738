"""Folders that get their final name only when they are complete, by an atomic rename."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import WeightsError


def check_free(target: Path) -> None:
    """Refuse a target that is a link, a file, or a folder with content."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise WeightsError(f"'{target}': expected a new folder, found a {'link' if target.is_symlink() else 'file'}")
    if target.is_dir() and any(target.iterdir()):
        raise WeightsError(f"'{target}' exists and is not empty; choose another folder, or remove it first")


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; rename it to `target` at the end, or remove it on any error.

    Raises:
        WeightsError: the folder is taken, or cannot be written; nothing is left behind.
    """
    made = [parent for parent in (target.parent, *target.parent.parents) if not parent.exists()]
    partial = target.with_name(f"{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        yield partial
        _sync_folder(partial)
        check_free(target)  # checked again, because another process may have created it meanwhile
        os.rename(partial, target)
        _sync_folder(target.parent)  # a rename is durable only when its parent folder is on the disk
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in made:  # innermost first; only folders made here, and only while they are empty
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError):
            raise WeightsError(
                f"cannot write '{target}': {error.strerror or error}; no partial output remains. Free "
                "space or choose a writable folder"
            ) from error
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)  # a folder has no file object, and fsync needs a descriptor
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
