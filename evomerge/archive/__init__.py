"""The archive: an append-only SQLite record of candidates, responses and events, which is also the checkpoint.

Everything else (scores, fronts, states) is recomputed from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.archive._backup import URI_FILE, Beside, Keep, Keeper, Mirror, mirror_of, restore
    from evomerge.archive._event_kinds import (
        EventKind,
        RacedPayload,
        ResumedPayload,
        RetryPayload,
        WorkerPayload,
    )
    from evomerge.archive._lock import WriterLock, holder_of
    from evomerge.archive._reader import Event
    from evomerge.archive._recovery import restore_newest
    from evomerge.archive._schema import ArchiveDamaged, on_network
    from evomerge.archive._store import FILE_NAME, Archive

__all__ = [
    "FILE_NAME",
    "URI_FILE",
    "Archive",
    "ArchiveDamaged",
    "Beside",
    "Event",
    "EventKind",
    "Keep",
    "Keeper",
    "Mirror",
    "RacedPayload",
    "ResumedPayload",
    "RetryPayload",
    "WorkerPayload",
    "WriterLock",
    "holder_of",
    "mirror_of",
    "on_network",
    "restore",
    "restore_newest",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
