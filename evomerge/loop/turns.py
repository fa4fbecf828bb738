"""Whose turn it is to be told: in the order of the numbers, or in that of arrival."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Turns:
    """Keeps the candidates that are finished and not told.

    In order, a result that arrives early waits for those before it, so what the controller learns does not depend on
    how many workers there are or on how fast they are. On arrival, nobody waits; the order is whatever it was.
    """

    def __init__(self, *, on_arrival: bool) -> None:
        self.on_arrival = on_arrival
        self.told = 0  # how many
        self._first = 0  # candidates below this are told
        self._ahead: set[int] = set()  # told beyond it; stays small, as all before them are under way
        self._waiting: dict[int, None] = {}  # in the order of arrival

    def restore(self, told: Iterable[int]) -> None:
        """Count what was told in earlier sessions, in any order."""
        for number in told:
            self._count(number)

    def open(self, numbers: Iterable[int]) -> Iterable[int]:
        """Yield those of `numbers` that are not told yet."""
        return (number for number in numbers if number >= self._first and number not in self._ahead)

    @property
    def first_untold(self) -> int:
        """The lowest number that is not told."""
        return self._first

    @property
    def ready(self) -> bool:
        """True where somebody's turn has come."""
        return bool(self._waiting) if self.on_arrival else self._first in self._waiting

    def finish(self, numbers: Collection[int]) -> None:
        """Take note of candidates whose result is there."""
        self._waiting.update(dict.fromkeys(numbers))

    def next(self) -> int | None:
        """Return the candidate to tell now, which counts as told from here on; None where nobody's turn has come."""
        if not self.ready:
            return None
        number = next(iter(self._waiting)) if self.on_arrival else self._first
        del self._waiting[number]
        self._count(number)
        return number

    def _count(self, number: int) -> None:
        self.told += 1
        self._ahead.add(number)
        while self._first in self._ahead:
            self._ahead.discard(self._first)
            self._first += 1
