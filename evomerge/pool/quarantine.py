"""Which machine or GPU is left alone for a while, because it keeps failing."""

from __future__ import annotations

from dataclasses import dataclass, field

FAILURES = 3  # of different candidates without a success between them: then it is the place, not the candidates
FIRST_SECONDS = 300.0  # of the first quarantine; each further one is twice as long
LONGEST_SECONDS = 3600.0


@dataclass
class _Record:
    failed: set[int] = field(default_factory=set)  # candidates, since the last success
    sentences: int = 0
    until: float = float("-inf")


class Quarantine:
    """Counts failures per place. A place is a GPU of a node, or the node where workers use no GPU.

    After a quarantine one more failure is enough for the next, which is twice as long; a success ends the story.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Record] = {}
        self._latest = float("-inf")  # end of the latest quarantine

    def failed(self, place: str, candidate: int, now: float) -> float | None:
        """Note a failure; return for how many seconds the place is left alone, None where it goes on."""
        record = self._places.setdefault(place, _Record())
        record.failed.add(candidate)
        needed = FAILURES if not record.sentences else 1
        if len(record.failed) < needed or record.until > now:
            return None
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**record.sentences)
        record.sentences += 1
        record.until = now + seconds
        self._latest = max(self._latest, record.until)
        record.failed.clear()
        return seconds

    def succeeded(self, place: str) -> None:
        """Note that a job ended well there."""
        self._places.pop(place, None)

    def acquit(self, candidate: int) -> None:
        """Take back what was held against places because of a candidate that fails everywhere."""
        for record in self._places.values():
            record.failed.discard(candidate)

    def quiet(self, now: float) -> bool:
        """Return whether no place at all is left alone now."""
        return now >= self._latest

    def holds(self, place: str, now: float) -> bool:
        """Return whether a place is to be left alone now."""
        record = self._places.get(place)
        return record is not None and now < record.until
