"""Scale genes: the factor by which the hidden state is multiplied on entering a layer, in several forms.

A route's first layer has no predecessor and the scale 1. Every form can make all scales 1, and that is where it starts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from evomerge.errors import InputError
from evomerge.recipe import Scalar
from evomerge.space._genes import SIGNIFICANT_DIGITS, Gene
from evomerge.space.routes._paths import Layer, Paths, PathStep
from evomerge.space.routes._request import RouteRequest


class Scales(Protocol):
    """The scales of one form."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Genes that make the scales."""
        ...

    def scales(self, path: Sequence[PathStep], x: Sequence[float]) -> list[float]:
        """Return the entry scale of every step of a path, the first one 1."""
        ...

    def values(self, path: Sequence[PathStep], x: Sequence[float]) -> list[Scalar | None]:
        """Return each gene's value; None for a gene that this path does not need."""
        ...

    def point(self, path: Sequence[PathStep], scales: Sequence[float]) -> list[float]:
        """Return the point (d,) that gives these scales on this path; genes that it does not need stand for 1.

        Raises:
            InputError: no point does.
        """
        ...

    def start(self) -> list[float]:
        """Return the point of scales that are 1 everywhere."""
        ...


def scales_of(request: RouteRequest, paths: Paths) -> Scales:
    """Return the scales of a request's form."""
    if request.scales is None:
        return Keyed({}, _by_nothing)  # no scale genes: every hop has scale 1
    low, high = request.scales
    form = Gene("", "float", low, high, log=low > 0, start=1.0)  # factors: log scale makes 1/2 and 2 equally far from 1

    def gene(name: str) -> Gene:
        return Gene(f"route.scale.{name}", "float", low, high, log=form.log, start=1.0)

    if request.scale_by == "network":
        return Network(request, low, high)
    if request.scale_by == "jump":
        return Keyed({"jump": gene("jump")}, _by_jump)
    if request.scale_by == "slot":
        # slot 0 can only be entered first, with scale 1
        return Keyed({str(slot): gene(name) for slot, name in enumerate(paths.slots) if slot}, _by_slot)
    numbers = {layer: number for number, layer in enumerate(request.stacks)}  # (source, layer) -> row of the table
    pairs = paths.transitions()
    names = {f"{a}{b}": f"from{numbers[a]}.to{numbers[b]}" for a, b in pairs}
    return Keyed({key: gene(name) for key, name in names.items()}, _by_pair)


class Keyed:
    """Scales that are genes themselves: one for each key that a transition between two steps can have.

    Per slot the key is the slot that is entered; in the table W[i, j] it is the pair of layers, numbered over all
    sources (Sakana's matrix); `jump` has one gene for every entry that is not into the next layer of the same source.
    """

    def __init__(self, genes: dict[str, Gene], key: _Key) -> None:
        self._index = {name: index for index, name in enumerate(genes)}
        self._key = key
        self.genes = tuple(genes.values())

    def scales(self, path: Sequence[PathStep], x: Sequence[float]) -> list[float]:
        """Return the value of each transition's gene, 1 where it has none."""
        found = [self._index.get(self._key(a, b)) for a, b in pairwise(path)]  # (hops - 1,)
        return [1.0, *(1.0 if i is None else float(self.genes[i].value(x[i])) for i in found)]

    def values(self, path: Sequence[PathStep], x: Sequence[float]) -> list[Scalar | None]:
        """Return the values of the genes that some transition of the path needs."""
        needed = {self._index.get(self._key(a, b)) for a, b in pairwise(path)}
        return [gene.value(x[i]) if i in needed else None for i, gene in enumerate(self.genes)]

    def point(self, path: Sequence[PathStep], scales: Sequence[float]) -> list[float]:
        """Return each gene at the scale of its transitions, which must agree."""
        x, seen = self.start(), dict[int, float]()
        for (a, b), scale in zip(pairwise(path), scales[1:], strict=True):
            index = self._index.get(self._key(a, b))
            if index is None:
                if scale != 1.0:
                    raise InputError(f"the scale of {_named(b)} must be 1 in this search space, got {scale:g}")
                continue
            if seen.setdefault(index, scale) != scale:  # one gene cannot give two scales
                text = f"{self.genes[index].name} is one value for several hops, got {seen[index]:g} and {scale:g}"
                raise InputError(text)
            x[index] = self.genes[index].coordinate(scale)
        return x

    def start(self) -> list[float]:
        """Return every gene at 1."""
        return [gene.coordinate(1.0) for gene in self.genes]


class Network:
    """Scales made by a network of (i, j, t): the layer left, the layer entered, and the step, each from -1 to 1.

    log scale = bias + sum over the units of weight * tanh(a * i + b * j + c * t + d). The weights and the bias are the
    genes, so their number does not grow with the models; the units' own a, b, c, d are fixed numbers, which lets the
    weights be found again from the scales (a linear program). The paper evolves the weights of a network without saying
    more about it. Scales are cut to the section's range and kept to six digits.
    """

    def __init__(self, request: RouteRequest, low: float, high: float) -> None:
        self._low, self._high = low, high
        # weights in [-reach, reach]: the bias alone reaches both ends
        self._reach = max(-math.log(low), math.log(high))
        stacks = request.stacks
        self._numbers = {layer: number for number, layer in enumerate(stacks)}
        self._span = max(len(stacks) - 1, 1)  # 1 for a single layer avoids dividing by zero
        self._units = np.array([[_fixed(unit, part) for part in range(4)] for unit in range(request.hidden)])  # (h, 4)
        names = ["bias", *(f"unit{unit}" for unit in range(request.hidden))]
        self.genes = tuple(
            Gene(f"route.network.{name}", "float", -self._reach, self._reach, start=0.0) for name in names
        )

    def scales(self, path: Sequence[PathStep], x: Sequence[float]) -> list[float]:
        """Return the network's output at every transition."""
        # not Gene.value: its six digits are for numbers that stand in recipes, and weights do not
        weights = self._reach * (2 * np.asarray(x, dtype=float) - 1)  # (1 + h,)
        return [1.0, *(self._scale(float(row @ weights)) for row in self._features(path))]

    def values(self, path: Sequence[PathStep], x: Sequence[float]) -> list[Scalar | None]:
        """Return all weights."""
        return [gene.value(y) for gene, y in zip(self.genes, x, strict=True)]

    def point(self, path: Sequence[PathStep], scales: Sequence[float]) -> list[float]:
        """Return weights that give these scales, as far from any rounding edge as they can be.

        Each scale stands for an interval of numbers that round to it, and the logarithm of the output is linear in the
        weights: a linear program finds weights inside all intervals, and keeps the largest distance to their ends.
        """
        if all(scale == 1.0 for scale in scales):
            return self.start()
        from scipy.optimize import linprog

        features = self._features(path)  # (hops - 1, 1 + h)
        rows, bounds = list[np.ndarray](), list[float]()
        for row, scale in zip(features, scales[1:], strict=True):
            below, above = self._interval(scale)
            width = min(above - below, 1.0)  # a cut scale's interval has one end only
            for sign, end in ((1.0, above), (-1.0, -below)):
                if math.isfinite(end):
                    rows.append(np.append(sign * row / width, 1.0))
                    bounds.append(end / width)
        reach = [(-self._reach, self._reach)] * len(self.genes)
        goal = np.append(np.zeros(len(self.genes)), -1.0)  # the distance, as large as possible
        found = linprog(goal, np.array(rows), np.array(bounds), bounds=[*reach, (0.0, 0.5)], method="highs")
        if found.status != 0:
            raise InputError("no weights of the network make the scales of this recipe")
        x = np.clip(
            (found.x[:-1] / self._reach + 1) / 2, 0.0, 1.0
        ).tolist()  # the solver keeps bounds up to a tolerance
        if self.scales(path, x) != list(scales):  # encoding is exact or refused, never nearly right
            raise InputError("no weights of the network make the scales of this recipe to their last digit")
        return [float(y) for y in x]

    def start(self) -> list[float]:
        """Return every weight at 0."""
        return [0.5] * len(self.genes)

    def _features(self, path: Sequence[PathStep]) -> np.ndarray:
        """Return the hidden units' outputs per transition, the bias's 1 before them: (transitions, 1 + h)."""
        steps = max(len(path) - 1, 1)
        inputs = [
            [
                2 * self._numbers[a[0], a[1]] / self._span - 1,
                2 * self._numbers[b[0], b[1]] / self._span - 1,
                2 * t / steps - 1,
                1.0,
            ]
            for t, (a, b) in enumerate(pairwise(path), start=1)
        ]
        # (hops - 1, h); reshape keeps a path of one layer
        hidden = np.tanh(np.array(inputs).reshape(-1, 4) @ self._units.T)
        return np.hstack([np.ones((len(hidden), 1)), hidden])

    def _scale(self, exponent: float) -> float:
        exact = math.exp(min(max(exponent, math.log(self._low)), math.log(self._high)))
        return min(max(float(f"{exact:.{SIGNIFICANT_DIGITS}g}"), self._low), self._high)

    def _interval(self, scale: float) -> tuple[float, float]:
        """Return the logarithms between which an output becomes this scale."""
        if not self._low <= scale <= self._high:
            raise InputError(f"a scale must be in [{self._low:g}, {self._high:g}], got {scale:g}")
        half = 0.5 * 10.0 ** (math.floor(math.log10(scale)) - SIGNIFICANT_DIGITS + 1)
        below = -math.inf if scale == self._low else math.log(scale - half)  # everything lower is cut to this end
        above = math.inf if scale == self._high else math.log(scale + half)
        return below, above


class _Key(Protocol):
    def __call__(self, a: PathStep, b: PathStep) -> str: ...


def _by_nothing(a: PathStep, b: PathStep) -> str:
    return ""


def _by_slot(a: PathStep, b: PathStep) -> str:
    return str(b[2])


def _by_pair(a: PathStep, b: PathStep) -> str:
    return f"{(a[0], a[1])}{(b[0], b[1])}"


def _by_jump(a: PathStep, b: PathStep) -> str:
    return "" if (b[0], b[1]) == (a[0], a[1] + 1) else "jump"


def _named(step: PathStep) -> str:
    layer: Layer = (step[0], step[1])
    return f"layer {layer[1]} of {layer[0]!r}"


def _fixed(unit: int, part: int) -> float:
    """Return one of a unit's own numbers, in [-2, 2], from a hash: the same on every machine, for ever."""
    digest = hashlib.blake2b(f"route network {unit} {part}".encode(), digest_size=8).digest()
    return 4 * int.from_bytes(digest, "big") / 2**64 - 2
