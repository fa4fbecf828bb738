"""SHA-256 of files, remembered on this machine, so that a model of many gigabytes is read for its hash only once.

What is remembered is trusted only while a file's device, inode, size, time of change and time of status change are
the same. The last of them is set by the system alone: a file replaced or written to gets another even where its
content's time is set back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from functools import lru_cache
from pathlib import Path

# Smaller files are hashed in less time than it is worth to remember them.
WORTH_BYTES = 16 * 2**20
# A file that changed this recently may change again within the clock's tick, unnoticed; git calls such a file racy.
SETTLED_SECONDS = 2.0
# Names another folder than ~/.cache/evomerge.
CACHE_VARIABLE = "EVOMERGE_CACHE"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    path = path.resolve()
    return _hash_in_state(str(path), _state(path))


@lru_cache(maxsize=4096)
def _hash_in_state(path: str, state: tuple[int, ...]) -> str:
    """Return a file's hash; its state is in the signature so that a changed file is read again."""
    size = state[2]
    if size < WORTH_BYTES:  # no note on disk
        return _read(path)
    note = _folder() / f"{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()}.json"
    known = _recall(note, state)
    if known:
        return known
    settled = time.time() - max(state[3], state[4]) / 1e9 > SETTLED_SECONDS
    digest = _read(path)
    if settled and _state(Path(path)) == state:  # a file that changed while it was read has no one hash
        _remember(note, path, state, digest)
    return digest


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):  # 4 MiB at a time: hashing needs no mapping of the file
            digest.update(block)
    return digest.hexdigest()


def _folder() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named) / "hashes"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "evomerge" / "hashes"


def _recall(note: Path, state: tuple[int, ...]) -> str | None:
    """Return the remembered hash, None where there is none for this state of the file."""
    try:
        entry = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(entry, dict) or entry.get("state") != list(state):
        return None
    digest = entry.get("sha256")
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _remember(note: Path, path: str, state: tuple[int, ...], digest: str) -> None:
    """Write a note, all or nothing; where that fails (no home, a full disk) the file is hashed again next time."""
    entry = {"path": path.encode("utf-8", "replace").decode(), "state": list(state), "sha256": digest}
    draft = note.with_suffix(f".{os.getpid()}.{id(entry)}")
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(entry), encoding="utf-8")
        os.replace(draft, note)  # atomic, so that another process never reads half a note
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)
