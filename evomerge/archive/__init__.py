"""The archive: an append-only record of candidates, answers and events; everything else is recomputed from it."""

from evomerge.archive.lock import holder_of
from evomerge.archive.reader import Event
from evomerge.archive.store import FILE_NAME, Archive

__all__ = ["FILE_NAME", "Archive", "Event", "holder_of"]
