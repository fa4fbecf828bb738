"""The rounds of a race: which items are asked first, and how many more in each further round."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np

from evomerge.pool.desk import Items


def rounds(plan: Items, first: int, divisible: Collection[str], seed: int) -> list[Items]:
    """Return the plans of all rounds, each holding the one before; the last is `plan`.

    Every round doubles the items per task. The items of a round are a random sample of the pinned ones, the same for
    all candidates, so that any two can be compared item by item.

    Args:
        plan: task -> all pinned items.
        first: items per task in the first round.
        divisible: tasks that can be asked in part; the others are asked as a whole in the first round.
        seed: of the sample.
    """
    shuffled = {task: _shuffled(items, task, seed) for task, items in plan.items()}
    most = max((len(items) for task, items in plan.items() if task in divisible), default=0)
    counts = [first]
    while counts[-1] < most:
        counts.append(2 * counts[-1])
    return [
        {task: items[:count] if task in divisible else items for task, items in shuffled.items()} for count in counts
    ]


def _shuffled(items: tuple[str, ...], task: str, seed: int) -> tuple[str, ...]:
    generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
    return tuple(items[place] for place in generator.permutation(len(items)))
