"""Token sequences packed into rows so that a prefix shared by several of them is there once.

Sequences in lexicographic order form a tree in which neighbours share beginnings. A row holds the tokens of one part
of that tree in pre-order; each token sees its ancestors and nothing else. What all sequences share, the root, is in
no row: it is computed once and every row attends to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORTEST_ROOT = 16  # tokens; below this a cache costs more than it saves


@dataclass(frozen=True)
class Likelihood:
    """One question to a model: how likely are `targets` after the rest of `inputs`?

    The logits at the last len(targets) places of `inputs` predict `targets`, one token each.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def first(self) -> int:
        """Place in `inputs` whose logits predict the first target."""
        return len(self.inputs) - len(self.targets)


@dataclass(frozen=True)
class Row:
    """A part of the tree, q tokens in pre-order, with where to read off the answers of its sequences."""

    tokens: np.ndarray  # (q,) int64
    depths: np.ndarray  # (q,) int64, distance below the root: the position is the root's length plus this
    ends: np.ndarray  # (q,) int64: tokens i with j <= i < ends[j] are those that see token j
    members: tuple[int, ...]  # the s sequences that end in this row, as numbers in the order given
    places: np.ndarray  # (s, t) int64: token whose logits predict a target; 0 where padded
    targets: np.ndarray  # (s, t) int64: the target; -1 where padded


@dataclass(frozen=True)
class PrefixBatches:
    """Packed sequences: the root that all share, and the rows below it."""

    root: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        """Tokens that a model computes in all."""
        return len(self.root) + sum(len(row.tokens) for row in self.rows)


def pack_sequences(sequences: Sequence[Likelihood], budget: int, ceiling: int) -> PrefixBatches:
    """Pack sequences into rows that share prefixes.

    Args:
        sequences: at least one; equal ones share all their tokens.
        budget: tokens per row that are aimed at. A row grows beyond for sequences that would repeat most of it.
        ceiling: tokens per row at most, unless one sequence alone is longer.
    """
    order = sorted(range(len(sequences)), key=lambda number: sequences[number].inputs)
    root = _root(sequences, order)
    rows: list[Row] = []
    pending: list[int] = []
    size = 0
    previous: tuple[int, ...] = ()
    for number in order:
        inputs = sequences[number].inputs[len(root) :]
        fresh = len(inputs) - (_common(previous, inputs) if pending else 0)
        # Three quarters: a little above the budget, attending to unrelated tokens costs less than repeating a prefix.
        repeats = 4 * fresh <= len(inputs)
        if pending and size + fresh > (ceiling if repeats else budget):
            rows.append(_row(sequences, pending, len(root)))
            pending, size, fresh = [], 0, len(inputs)
        pending.append(number)
        size += fresh
        previous = inputs
    rows.append(_row(sequences, pending, len(root)))
    return PrefixBatches(root, tuple(rows))


def _root(sequences: Sequence[Likelihood], order: Sequence[int]) -> tuple[int, ...]:
    """Return what all sequences begin with, ending before the first logits that are needed."""
    first, last = sequences[order[0]], sequences[order[-1]]
    # In lexicographic order, what the ends share everything between them shares.
    length = min(_common(first.inputs, last.inputs), min(sequence.first for sequence in sequences))
    return first.inputs[:length] if length >= SHORTEST_ROOT and len(sequences) > 1 else ()


def _row(sequences: Sequence[Likelihood], members: Sequence[int], root: int) -> Row:
    tokens: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    path: list[int] = []  # numbers, within the row, of the tokens of the sequence before
    read: list[list[int]] = []
    previous: tuple[int, ...] = ()
    for number in members:
        inputs = sequences[number].inputs[root:]
        shared = _common(previous, inputs)
        for token in path[shared:]:
            ends[token] = len(tokens)
        path = [*path[:shared], *range(len(tokens), len(tokens) + len(inputs) - shared)]
        tokens += inputs[shared:]
        depths += range(shared, len(inputs))
        ends += [0] * (len(inputs) - shared)
        read.append(path[sequences[number].first - root :])
        previous = inputs
    for token in path:
        ends[token] = len(tokens)
    places, targets = _read_off(read, [sequences[number].targets for number in members])
    return Row(np.array(tokens), np.array(depths), np.array(ends), tuple(members), places, targets)


def _read_off(read: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    longest = max(len(part) for part in targets)
    places = np.zeros((len(read), longest), dtype=np.int64)
    padded = np.full((len(read), longest), -1, dtype=np.int64)
    for number, (nodes, wanted) in enumerate(zip(read, targets, strict=True)):
        places[number, : len(nodes)] = nodes
        padded[number, : len(wanted)] = wanted
    return places, padded


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common beginning."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    low, high = 0, length  # a[:low] and b[:low] are equal, a[:high] and b[:high] are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle)
    return low
