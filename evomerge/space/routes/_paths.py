"""Paths, the layers that run in order: each preset is a total map from the unit cube to paths, and back.

A path is a sequence of steps (source, layer, slot); `slot` numbers the places at which a preset can let a layer run,
and is -1 where it has none. Whatever the genes are, the path has at least one layer and at most `max_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from evomerge.recipe import Scalar
from evomerge.space._genes import Gene
from evomerge.space.routes._request import RouteRequest

Layer = tuple[str, int]  # (source, layer)
PathStep = tuple[str, int, int]  # (source, layer, slot)
ON, OFF = 0.75, 0.25  # coordinates of a slot that runs and of one that does not: the middles of their halves


class Paths(Protocol):
    """The paths of one preset."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Genes that select the layers that run."""
        ...

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots' names, as in 'slot12'; () where the preset has none."""
        ...

    def path(self, x: Sequence[float]) -> tuple[PathStep, ...]:
        """Return the path of a point (d,) in [0, 1]; total."""
        ...

    def values(self, x: Sequence[float]) -> list[Scalar | None]:
        """Return each gene's value as it takes effect; None where it has none."""
        ...

    def point(self, layers: Sequence[Layer]) -> list[float] | None:
        """Return a point (d,) whose path runs exactly these layers, or None where there is none."""
        ...

    def start(self, source: str) -> list[float]:
        """Return the point whose path is a source's own stack, or the nearest that is allowed."""
        ...

    def transitions(self) -> list[tuple[Layer, Layer]]:
        """Return every pair of layers that can follow each other, sorted by their indices among the stacks."""
        ...

    def switches(self) -> tuple[tuple[int, int], ...]:
        """Return (gene, layer among the stacks) per slot that a gene switches on and off, in the order of slots."""
        ...


def paths_of(request: RouteRequest) -> Paths:
    """Return the paths of a request's preset."""
    if request.preset in ("indicators", "select"):
        return slotted(request)  # `select` is `indicators` with one copy of one source
    presets: dict[str, Callable[[RouteRequest], Paths]] = {
        "repeat_block": RepeatedBlock,
        "interleave": Interleaved,
        "swap": Swapped,
    }
    return presets[request.preset](request)


@dataclass(frozen=True)
class Slotted:
    """Slots, of which some run, in their order: Sakana's indicator array, and the selection of layers of one stack.

    A slot runs where its gene is in the upper half. Where more than `most` would run, those with the highest genes do
    (the earlier one of equals); where fewer than `fewest`, the highest of the others join them. Where the number of
    layers is fixed, the genes therefore rank the slots: every point is a valid choice of so many layers.

    Source: Akiba et al. 2024, arXiv:2403.13187; the search there is not published.
    """

    layers: tuple[Layer, ...]  # per slot
    labels: tuple[str, ...]  # per slot: 'slot3', or 'layer3' where slots and layers are the same
    fixed: frozenset[int]  # slots that always run
    fewest: int
    most: int
    ids: tuple[int, ...]  # per slot: its layer among the stacks

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots' names."""
        return self.labels

    @property
    def free(self) -> list[int]:
        """The slots that have a gene."""
        return [slot for slot in range(len(self.layers)) if slot not in self.fixed]

    @property
    def genes(self) -> tuple[Gene, ...]:
        """One gene per free slot: a choice, or a number where the genes only rank."""
        names = [f"route.keep.{self.labels[slot]}" for slot in self.free]
        if self.fewest == self.most:
            return tuple(Gene(name, "float") for name in names)
        return tuple(Gene(name, "choice", choices=(0, 1)) for name in names)

    def running(self, x: Sequence[float]) -> list[int]:
        """Return the slots that run, in order."""
        scores = dict(zip(self.free, x, strict=True))
        wanted = len(self.fixed) + sum(score >= 0.5 for score in scores.values())
        wanted = min(max(wanted, self.fewest), self.most)  # total: no genotype is refused for its number of layers
        # ties go to the earlier slot, so that decoding is stable
        best = sorted(scores, key=lambda slot: (-scores[slot], slot))[: wanted - len(self.fixed)]
        return sorted([*self.fixed, *best])

    def path(self, x: Sequence[float]) -> tuple[PathStep, ...]:
        """Return the layers of the slots that run."""
        return tuple((*self.layers[slot], slot) for slot in self.running(x))

    def values(self, x: Sequence[float]) -> list[Scalar | None]:
        """Return 1 per slot that runs and 0 for the others, which may differ from the slot's own gene."""
        running = set(self.running(x))
        return [int(slot in running) for slot in self.free]

    def point(self, layers: Sequence[Layer]) -> list[float] | None:
        """Return the point with the earliest slots that run these layers."""
        running, slot = set(self.fixed), 0
        for layer in layers:
            while slot < len(self.layers) and self.layers[slot] != layer:
                slot += 1
            running.add(slot)  # a slot past the end fails in `_checked`
            slot += 1
        # fixed slots always run
        return self._checked(self._switched(running), layers) if len(running) == len(layers) else None

    def start(self, source: str) -> list[float]:
        """Return the first copy of the source's stack; spread evenly where not all of its layers are allowed."""
        own: list[int] = []  # slots of the source's first copy
        for slot in self.free:
            if self.layers[slot][0] == source and self.layers[slot] not in [self.layers[known] for known in own]:
                own.append(slot)
        room = min(len(own), self.most - len(self.fixed))
        # evenly spaced, first and last layer included
        chosen = [own[index * (len(own) - 1) // max(room - 1, 1)] for index in range(room)]
        return self._switched({*self.fixed, *chosen})

    def transitions(self) -> list[tuple[Layer, Layer]]:
        """Return the pairs (earlier slot's layer, later slot's layer), but for those that fixed slots forbid."""
        pairs: dict[tuple[int, int], tuple[Layer, Layer]] = {}
        for first in range(len(self.layers)):
            for second in range(first + 1, len(self.layers)):
                pairs[self.ids[first], self.ids[second]] = (self.layers[first], self.layers[second])
                if second in self.fixed:  # no path can jump over a slot that always runs
                    break
        return [pairs[key] for key in sorted(pairs)]

    def switches(self) -> tuple[tuple[int, int], ...]:
        """Return every free slot's gene and layer."""
        return tuple((index, self.ids[slot]) for index, slot in enumerate(self.free))

    def _switched(self, running: set[int]) -> list[float]:
        return [ON if slot in running else OFF for slot in self.free]  # (free slots,)

    def _checked(self, x: list[float], layers: Sequence[Layer]) -> list[float] | None:
        return x if [(source, layer) for source, layer, _ in self.path(x)] == list(layers) else None


def slotted(request: RouteRequest) -> Slotted:
    """Return the slots of a request: the kept first layers, `repeats` times what is between, the kept last layers."""
    first, last, home = request.keep_first, request.keep_last, request.sources[0]
    indices = {layer: number for number, layer in enumerate(request.stacks)}
    # the middle layers of every source, in the order of the stacks
    inner = [layer for layer in indices if first <= layer[1] < request.depths[layer[0]] - last]
    depth = request.depths[home]
    head = [(home, layer) for layer in range(first)]
    tail = [(home, layer) for layer in range(depth - last, depth)]
    layers = (*head, *(inner * request.repeats), *tail)  # (slots,)
    fixed = frozenset([*range(first), *range(len(layers) - last, len(layers))])
    most = min(request.max_layers or len(layers), len(layers))
    fewest = min(max(request.min_layers, len(fixed), 1), most)  # a route has at least one layer
    word = "layer" if request.preset == "select" else "slot"
    labels = tuple(f"{word}{slot}" for slot in range(len(layers)))
    return Slotted(layers, labels, fixed, fewest, most, tuple(indices[layer] for layer in layers))


class RepeatedBlock:
    """One stack in which a block of layers runs several times: genes start, end (not included) and times.

    Start and end in the wrong order mean the same block. Where `times` runs would make the route longer than
    `max_layers`, there are as many runs as fit; with one run the route is the plain stack.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, request: RouteRequest) -> None:
        self._source = request.sources[0]
        self._depth = request.depths[self._source]
        # without a limit any block can run `times` times
        self._most = request.max_layers or self._depth * request.times
        first, end = request.keep_first, self._depth - request.keep_last
        self._start = Gene("route.repeat.start", "int", first, end - 1)
        self._end = Gene("route.repeat.end", "int", first + 1, end)
        self._times = Gene("route.repeat.times", "int", 1, request.times)
        self.genes: tuple[Gene, ...] = (self._start, self._end, self._times)

    def path(self, x: Sequence[float]) -> tuple[PathStep, ...]:
        """Return the stack with its block repeated."""
        first, end, times = self._block(x)
        order = [*range(end), *(list(range(first, end)) * (times - 1)), *range(end, self._depth)]
        return tuple((self._source, layer, -1) for layer in order)

    def values(self, x: Sequence[float]) -> list[Scalar | None]:
        """Return the block that runs and how often; no block where nothing is repeated."""
        first, end, times = self._block(x)
        return [None, None, 1] if times == 1 else [first, end, times]

    def point(self, layers: Sequence[Layer]) -> list[float] | None:
        """Return the point of a stack with one repeated block."""
        x = self.start(self._source)
        # the first jump back ends a block
        back = next((i for i, (a, b) in enumerate(pairwise(layers)) if b[1] != a[1] + 1), None)
        if back is not None:
            first, end = layers[back + 1][1], layers[back][1] + 1
            times = 1 + (len(layers) - self._depth) // max(end - first, 1)  # each further run adds the block's length
            pairs = ((self._start, first), (self._end, end), (self._times, times))
            if any(not gene.low <= value <= gene.high for gene, value in pairs):
                return None
            x = [gene.coordinate(value) for gene, value in pairs]
        return x if [(source, layer) for source, layer, _ in self.path(x)] == list(layers) else None

    def start(self, source: str) -> list[float]:
        """Return the plain stack, with the middle half of it as the block that would be repeated next."""
        low, high = int(self._start.low), int(self._end.high)
        quarter = (high - low) // 4
        block = (low + quarter, max(high - quarter, low + quarter + 1))
        return [self._start.coordinate(block[0]), self._end.coordinate(block[1]), self._times.coordinate(1)]

    def transitions(self) -> list[tuple[Layer, Layer]]:
        """Return a layer and the next one, and every last layer of a block with its first."""
        low, high = int(self._start.low), int(self._end.high)
        pairs = {(layer, layer + 1) for layer in range(self._depth - 1)}
        pairs |= {(last, first) for last in range(low, high) for first in range(low, last + 1)}
        return [((self._source, a), (self._source, b)) for a, b in sorted(pairs)]

    def switches(self) -> tuple[tuple[int, int], ...]:
        """Return (): no gene switches one layer."""
        return ()

    def _block(self, x: Sequence[float]) -> tuple[int, int, int]:
        start, last = int(self._start.value(x[0])), int(self._end.value(x[1])) - 1  # either order is the same block
        first, end = min(start, last), max(start, last) + 1
        fits = 1 + (self._most - self._depth) // (end - first)  # runs that `max_layers` has room for
        return first, end, min(int(self._times.value(x[2])), max(fits, 1))


class Interleaved:
    """Blocks of the sources in turn; genes: size, overlap (layers in common with the previous block), first source.

    A size of the whole depth is the first source's own stack. Where an overlap would make the route longer than
    `max_layers` (default: twice the depth), the largest overlap that fits counts.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, request: RouteRequest) -> None:
        self._sources = request.sources
        self._depth = request.depths[request.sources[0]]
        self._most = request.max_layers or 2 * self._depth
        self._names = [request.names[source] for source in request.sources]
        self._size = Gene("route.interleave.size", "int", 1, self._depth)
        self._overlap = Gene("route.interleave.overlap", "int", 0, max(self._depth - 2, 0))
        self._first = Gene("route.interleave.first", "choice", choices=tuple(self._names))
        self.genes: tuple[Gene, ...] = (self._size, self._overlap, self._first)

    def path(self, x: Sequence[float]) -> tuple[PathStep, ...]:
        """Return the blocks' layers."""
        return tuple((source, layer, -1) for source, layer in self._layers(*self._values(x)))

    def values(self, x: Sequence[float]) -> list[Scalar | None]:
        """Return size, overlap as it takes effect, and the source that begins."""
        size, overlap, first = self._values(x)
        return [size, None if size == self._depth else overlap, self._names[first]]

    def point(self, layers: Sequence[Layer]) -> list[float] | None:
        """Return the point of blocks in turn."""
        if not layers or layers[0][0] not in self._sources:
            return None
        # the first change of source
        turn = next((i for i, (a, b) in enumerate(pairwise(layers)) if a[0] != b[0]), None)
        size, overlap = (len(layers), 0) if turn is None else (turn + 1, layers[turn][1] + 1 - layers[turn + 1][1])
        if not 1 <= size <= self._depth or not 0 <= overlap <= self._overlap.high:
            return None
        first = self._names[self._sources.index(layers[0][0])]
        x = [self._size.coordinate(size), self._overlap.coordinate(overlap), self._first.coordinate(first)]
        return x if [(source, layer) for source, layer, _ in self.path(x)] == list(layers) else None

    def start(self, source: str) -> list[float]:
        """Return one block of a source, which is its own stack."""
        name = self._names[self._sources.index(source)]
        return [self._size.coordinate(self._depth), self._overlap.coordinate(0), self._first.coordinate(name)]

    def transitions(self) -> list[tuple[Layer, Layer]]:
        """Return a layer and the next one of its source, and a block's last layer with any first one of the next."""
        count = len(self._sources)
        pairs = set()  # (source, layer, source, layer), as numbers: sorting is then the order of the stacks
        for source in range(count):
            following = (source + 1) % count
            for layer in range(self._depth - 1):
                pairs.add((source, layer, source, layer + 1))
                pairs |= {(source, layer, following, other) for other in range(1, layer + 2)}
        return [((self._sources[a], i), (self._sources[b], j)) for a, i, b, j in sorted(pairs)]

    def switches(self) -> tuple[tuple[int, int], ...]:
        """Return (): no gene switches one layer."""
        return ()

    def _values(self, x: Sequence[float]) -> tuple[int, int, int]:
        size = int(self._size.value(x[0]))
        overlap = min(int(self._overlap.value(x[1])), size - 1)  # overlap == size: no block would advance
        while overlap and self._length(size, overlap) > self._most:  # shorten rather than refuse: decoding is total
            overlap -= 1
        return size, overlap, self._names.index(str(self._first.value(x[2])))

    def _length(self, size: int, overlap: int) -> int:
        blocks = 1 + max(0, -(-(self._depth - size) // (size - overlap)))  # ceiling division
        return self._depth + (blocks - 1) * overlap

    def _layers(self, size: int, overlap: int, first: int) -> list[Layer]:
        begin, turn, layers = 0, first, list[Layer]()
        while True:
            end = min(begin + size, self._depth)
            layers += [(self._sources[turn], layer) for layer in range(begin, end)]
            if end == self._depth:
                return layers
            begin, turn = end - overlap, (turn + 1) % len(self._sources)  # sources alternate cyclically


class Swapped:
    """One stack in which each layer may be another source's layer of the same depth: one choice gene per layer."""

    def __init__(self, request: RouteRequest) -> None:
        self._sources = request.sources
        self._depth = request.depths[request.sources[0]]
        self._names = tuple(request.names[source] for source in request.sources)
        self._free = range(request.keep_first, self._depth - request.keep_last)
        self.genes = tuple(Gene(f"route.swap.layer{d}", "choice", choices=self._names) for d in self._free)
        self.slots: tuple[str, ...] = tuple(f"layer{d}" for d in range(self._depth))

    def path(self, x: Sequence[float]) -> tuple[PathStep, ...]:
        """Return, for each depth, the chosen source's layer."""
        turns = dict.fromkeys(range(self._depth), 0)  # kept layers are the first source's
        turns |= {
            depth: self._names.index(str(gene.value(y)))
            for depth, gene, y in zip(self._free, self.genes, x, strict=True)
        }
        return tuple((self._sources[turn], depth, depth) for depth, turn in turns.items())

    def values(self, x: Sequence[float]) -> list[Scalar | None]:
        """Return the source of each layer that may be swapped."""
        return [gene.value(y) for gene, y in zip(self.genes, x, strict=True)]

    def point(self, layers: Sequence[Layer]) -> list[float] | None:
        """Return the point of one layer per depth."""
        if [layer for _, layer in layers] != list(range(self._depth)):  # a swap never changes the depth
            return None
        if any(source not in self._sources for source, _ in layers):
            return None
        names = [self._names[self._sources.index(layers[depth][0])] for depth in self._free]
        x = [gene.coordinate(name) for gene, name in zip(self.genes, names, strict=True)]
        return x if [(source, layer) for source, layer, _ in self.path(x)] == list(layers) else None

    def start(self, source: str) -> list[float]:
        """Return a source's own stack."""
        return [gene.coordinate(self._names[self._sources.index(source)]) for gene in self.genes]

    def transitions(self) -> list[tuple[Layer, Layer]]:
        """Return every two layers at neighbouring depths."""
        allowed = [self._sources if depth in self._free else self._sources[:1] for depth in range(self._depth)]
        pairs = [
            (self._sources.index(a), depth, self._sources.index(b), depth + 1)
            for depth in range(self._depth - 1)
            for a in allowed[depth]
            for b in allowed[depth + 1]
        ]
        return [((self._sources[a], i), (self._sources[b], j)) for a, i, b, j in sorted(pairs)]

    def switches(self) -> tuple[tuple[int, int], ...]:
        """Return (): every layer runs; its gene selects the source."""
        return ()
