"""Resamples the items of every generation: luck with items averages out over a search instead of being climbed.

Candidates of one generation answer the same few items, so that they can be compared; the next generation answers
others. With one pinned set, a controller improves on those very items; with resampled ones it follows the mean of all.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right

import numpy as np

from evomerge.archive import Archive
from evomerge.loop import Items

# A generation is at least so many consecutive candidates: an asynchronous search proposes one at a time.
LEAST = 8


class ItemSampler:
    """Which items a generation answers: a pure function of the archive's `asked` events, the items and a seed."""

    def __init__(self, archive: Archive, pool: Items, counts: dict[str, int], seed: int) -> None:
        """Take the tasks that are asked in part.

        Args:
            archive: its `asked` events say where generations begin.
            pool: task -> all search items.
            counts: task -> items per candidate, for the tasks that are asked in part.
            seed: of the draws.
        """
        self._archive, self._pool, self._counts, self._seed = archive, pool, counts, seed
        self._starts: list[int] = []  # first candidates of the generations
        self._known = 0  # candidates that `_starts` covers

    def items(self, number: int) -> dict[str, tuple[str, ...]]:
        """Return task -> items of a candidate of the search, for the tasks that are asked in part."""
        generation = self._generation(number)
        return {task: self._draw(task, generation) for task in self._counts}

    def _generation(self, number: int) -> int:
        if number < 0:
            return 0  # a parent
        if number >= self._known:
            self._starts, self._known = [], 0
            for event in self._archive.events("asked"):
                first, count = int(event.payload["first"]), int(event.payload["count"])
                begins = event.payload["size"] > 0  # otherwise these are the rest of the batch before
                if not self._starts or (begins and first - self._starts[-1] >= LEAST):
                    self._starts.append(first)
                self._known = first + count
        return max(0, bisect_right(self._starts, number) - 1)

    def _draw(self, task: str, generation: int) -> tuple[str, ...]:
        """Return a slice of a shuffled pool; all items are used once before the pool is shuffled anew."""
        items, count = self._pool[task], self._counts[task]
        passed, place = divmod(generation, max(1, len(items) // count))
        order = np.random.default_rng([self._seed, zlib.crc32(task.encode()), passed]).permutation(len(items))
        chosen = np.sort(order[place * count : (place + 1) * count])
        return tuple(items[index] for index in chosen)
