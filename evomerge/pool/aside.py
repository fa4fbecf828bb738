"""What a library prints from threads of its own, kept off our standard output.

Ray's driver prints what raylets say about dead workers and nodes to standard output, from a thread of its own, whatever
`log_to_driver` says. Our standard output is read by programs (`--json`); those lines belong into a log.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from evomerge.pool.secrets import hide

_THREADS = "ray_"  # as the names of Ray's own threads begin


class Aside:
    """Standard output without the lines of Ray's threads, from `__enter__` on; they go to a log, or to stderr."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._stream: TextIO | None = None

    def __enter__(self) -> Aside:
        self._stream = sys.stdout
        sys.stdout = cast(TextIO, self)
        return self

    def __exit__(
        self, kind: type | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        if sys.stdout is cast(TextIO, self) and self._stream is not None:  # nobody has replaced it since
            sys.stdout = self._stream

    def __getattr__(self, name: str) -> Any:
        """Return what the real stream has under this name: whoever asks for its encoding or file number gets that."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text to where it belongs."""
        assert self._stream is not None
        if not threading.current_thread().name.startswith(_THREADS):
            return self._stream.write(text)
        if self._log is None:
            return sys.stderr.write(text)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(hide(text))
        return len(text)
