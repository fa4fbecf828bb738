"""The route's part of a search space: from genes to hops (source, layer, entry scale), and back.

Equal routes have one spelling, so that their recipes have one digest: the first hop has scale 1; a layer that is
the merge's own is written as the merge's; and a route that is the merge as it stands is no route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import InputError
from evomerge.recipe import Scalar
from evomerge.space._genes import Gene
from evomerge.space.routes._paths import Paths, paths_of
from evomerge.space.routes._request import MERGED, RouteRequest, only_lends, plain_source
from evomerge.space.routes._scales import Scales, scales_of

Hop = tuple[str, int, float]  # (source, layer, entry scale)


@dataclass(frozen=True)
class RouteSpace:
    """All the routes that a search may try; total and deterministic, and `point` is the inverse of `hops`."""

    request: RouteRequest
    paths: Paths
    scales: Scales
    plain: str  # the source whose own stack is the merge without a route
    plain_depth: int
    same: str | None  # a source that is the merge itself: the model of a passthrough of one

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Which layers run, then their scales."""
        return (*self.paths.genes, *self.scales.genes)

    @property
    def switches(self) -> tuple[tuple[int, int], ...]:
        """(gene, layer) per slot that a gene switches, in the order in which slots run; a layer is a number."""
        return self.paths.switches()

    def hops(self, x: Sequence[float]) -> tuple[Hop, ...] | None:
        """Return the route of a point (d,) in [0, 1]; None where it is the merge as it stands."""
        path = self.paths.path(x[: self._cut])
        scales = self.scales.scales(path, x[self._cut :])
        hops = tuple(
            # the slot is not written: equal layers, equal digest
            (self._written(source), layer, scale)
            for (source, layer, _), scale in zip(path, scales, strict=True)
        )
        # the parent's own recipe, so that its scores are reused
        return None if hops == self._stack(self.plain) else hops

    def values(self, x: Sequence[float]) -> list[Scalar | None]:
        """Return each gene's value as it takes effect, None where it has none."""
        path = self.paths.path(x[: self._cut])
        return [*self.paths.values(x[: self._cut]), *self.scales.values(path, x[self._cut :])]

    def point(self, hops: Sequence[Hop] | None) -> list[float]:
        """Return a point (d,) whose route is this one.

        Raises:
            InputError: there is none; the message names where the route leaves this space.
        """
        wanted = self._stack(self.plain) if hops is None else tuple(hops)  # (hops,)
        layers = [(self._read(source), layer) for source, layer, _ in wanted]
        unknown = next((source for source, _ in layers if source not in self.request.sources), None)
        if unknown is not None:
            raise InputError(f"the route lies outside this search space: unknown source {unknown!r}")
        if not wanted or next(iter(wanted))[2] != 1.0:  # nothing precedes the first hop, so that no gene scales it
            raise InputError("the route lies outside this search space: it must begin with a hop of scale 1")
        found = self.paths.point(layers)
        if found is None:
            raise InputError(
                f"the route lies outside this search space: preset {self.request.preset} cannot run these "
                f"{len(layers)} layers in this order"
            )
        return [*found, *self.scales.point(self.paths.path(found), [scale for _, _, scale in wanted])]

    def start(self) -> list[float]:
        """Return the point of the start: one source's own stack, all scales 1."""
        return [*self.paths.start(self.request.start), *self.scales.start()]

    def describe(self) -> str:
        """Return a description of the values of the genes."""
        request = self.request
        names = [f"{request.names[source]} ({request.depths[source]})" for source in request.sources]
        most = f", at most {request.max_layers}" if request.max_layers is not None else ""
        slots = f", {len(self.paths.slots)} slots" if self.paths.slots else ""
        scaled = "no scales" if request.scales is None else f"scales {list(request.scales)} by {request.scale_by}"
        return f"{request.preset} over the layers of {', '.join(names)}{slots}{most}; {scaled}"

    @property
    def _cut(self) -> int:
        return len(self.paths.genes)

    def _stack(self, source: str) -> tuple[Hop, ...]:
        return tuple((self._written(source), layer, 1.0) for layer in range(self.plain_depth))

    def _written(self, source: str) -> str:
        return MERGED if source == self.same else source  # one spelling per layer: equal routes get equal digests

    def _read(self, source: str) -> str:
        """Return the name that a hop's source has among the request's sources."""
        if source == MERGED and self.same is not None and MERGED not in self.request.sources:
            return self.same
        return source


def route_space(request: RouteRequest, merge: Mapping[str, Any], depth: int) -> RouteSpace:
    """Return the space of a request over a merge section (with or without markers).

    Args:
        request: has no problems.
        merge: the merge section.
        depth: layers of the merge's result, or of the first model where there is none.
    """
    paths = paths_of(request)
    return RouteSpace(request, paths, scales_of(request, paths), plain_source(merge), depth, _same(merge))


def without_route(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a recipe that has no route: of several models of a passthrough, base or first."""
    if not only_lends(document):
        return document
    rest = {key: value for key, value in document.items() if key != "base_model"}
    return {**rest, "models": [{"model": plain_source(document)}]}


def _same(merge: Mapping[str, Any]) -> str | None:
    models: list[Mapping[str, Any]] = list(merge.get("models") or ())
    # parameters would scale its tensors
    plain = merge.get("merge_method") == "passthrough" and len(models) == 1 and not merge.get("parameters")
    return str(models[0]["model"]) if plain and not models[0].get("parameters") else None


__all__ = ["Hop", "RouteSpace", "route_space", "without_route"]
