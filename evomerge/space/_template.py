"""A template's placeholders, the genes that fill them, and the sites at which parameters take effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evomerge.merge import CATALOGUE, Method, Parameter
from evomerge.space._genes import Gene
from evomerge.space._markers import Marker
from evomerge.space._problems import Place


@dataclass(frozen=True)
class Placeholder:
    """Stands in a template for the value of gene number `gene`."""

    gene: int


@dataclass(frozen=True)
class ParameterSite:
    """Where a parameter takes effect, and what is known there."""

    place: Place
    parameter: str
    methods: tuple[str, ...]  # the possible methods in which the parameter has an effect
    prefix: str = ""  # 'slice0' within slices
    model: str = ""  # short name where the setting is for one model
    layers: int | None = None  # depth of the slice or model; None where not known

    @property
    def definitions(self) -> list[tuple[Method, Parameter]]:
        """What the parameter is in each of the methods."""
        return [(CATALOGUE[name], definition(name, self.parameter)) for name in self.methods]

    def name(self, depth: str, group: str) -> str:
        """Return the name of a gene at this site; empty parts are left out."""
        return ".".join(part for part in (self.prefix, self.parameter, self.model, depth, group) if part)


class GeneTable:
    """The genes of one expansion, in order of first mention; a marker read for several models may share them."""

    def __init__(self) -> None:
        self._genes: list[Gene] = []
        self._methods: list[set[str]] = []  # per gene: the methods in which it has an effect
        self._index: dict[tuple[Place, str], int] = {}  # (where the marker stands, gene name) -> gene number

    def placeholder(self, name: str, marker: Marker, place: Place, methods: Sequence[str]) -> Placeholder:
        """Return the placeholder of the gene `name` of the marker at `place`, added at its first mention."""
        # markers without `per: model` are read once per model, and share their genes
        if (place, name) not in self._index:
            taken = {gene.name for gene in self._genes}
            unique, number = name, 2
            while unique in taken:  # two entries of one list can carry the same filter
                unique, number = f"{name}_{number}", number + 1
            self._index[place, name] = len(self._genes)
            self._genes.append(replace(marker.gene, name=unique))
            self._methods.append(set())
        index = self._index[place, name]
        self._methods[index].update(methods)  # a gene shared by several models is active if any of them uses it
        return Placeholder(index)

    def genes(self, methods: Sequence[str]) -> tuple[Gene, ...]:
        """Return all genes; those without effect in some of the possible methods say in which they are active."""
        return tuple(
            replace(gene, when=("merge_method", tuple(name for name in methods if name in active)))
            # without a searched merge method, or used by all methods: always active
            if active and active != set(methods)
            else gene
            for gene, active in zip(self._genes, self._methods, strict=True)
        )


def definition(method: str, parameter: str) -> Parameter:
    """Return the catalogue's entry of a parameter that the method is known to have."""
    return next(entry for entry in CATALOGUE[method].parameters if entry.name == parameter)
