"""Which genes are weights of which models, for controllers that optimise mixtures of models: plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evomerge.errors import InputError
from evomerge.space import Gene, SearchSpace, model_places, short_names

PARAMETER = "weight"  # mergekit's name for the coefficient of a model


@dataclass(frozen=True)
class ModelWeights:
    """Models and the genes that are their weights; n models, d genes."""

    names: tuple[str, ...]  # (n,) models that have a weight of their own
    member: tuple[int, ...]  # (d,) index of the model whose weight the gene is; -1: not a weight
    low: tuple[float, ...]  # (d,) weight at coordinate 0
    high: tuple[float, ...]  # (d,) weight at coordinate 1
    rest: tuple[float, ...]  # (d,) fixed coordinates of the genes that are not weights
    products: tuple[tuple[float, ...], ...] = ()  # (n, n) inner products of the task vectors; empty: not measured

    @property
    def count(self) -> int:
        """n, the number of models."""
        return len(self.names)

    @property
    def plain(self) -> bool:
        """Whether every gene is the single weight of a model, so that the genotype is a vector of coefficients."""
        return len(self.member) == self.count and sorted(self.member) == list(range(self.count))

    def point(self, weights: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the genotype (d,) that gives each model its weight (n,); weights outside a gene's range are cut."""
        wanted = np.asarray(weights, dtype=np.float64)
        member, low, high = np.array(self.member), np.array(self.low), np.array(self.high)
        given = np.clip((wanted[member] - low) / (high - low), 0.0, 1.0)  # (d,); entries of `rest` are unused
        return np.where(member >= 0, given, np.array(self.rest))

    def require(self, weights: Sequence[float] | np.ndarray, controller: str) -> None:
        """Raise InputError if a weight (n,) lies outside the range of one of its genes; `controller` is named in it."""
        for gene, model in enumerate(self.member):
            if model >= 0 and not self.low[gene] <= weights[model] <= self.high[gene]:
                raise InputError(
                    f"{controller} gives models weights of 0 and of up to 1, and {self.names[model]!r} can have "
                    f"{self.low[gene]:g} to {self.high[gene]:g}; search its {PARAMETER} in [0, 1]"
                )

    def kinship(self, left: np.ndarray, right: np.ndarray) -> float:
        """Return the kinship of two mixtures with weights (n,): the correlation of their task vectors, in [-1, 1].

        Exact where a mixture's task vector is the weighted sum of the models' own. 0 for a mixture of nothing.

        Source: Pearson's correlation as in 'Exploring Model Kinship for Merging LLMs', Hu et al. 2024.
        """
        products = np.array(self.products)  # (n, n) Gram matrix of the task vectors
        norms = np.sqrt(max(float(left @ products @ left), 0.0) * max(float(right @ products @ right), 0.0))
        return float(left @ products @ right) / norms if norms > 0 else 0.0

    def with_products(self, products: Sequence[Sequence[float]]) -> ModelWeights:
        """Return the same weights with the measured inner products (n, n) of the task vectors."""
        return replace(self, products=tuple(tuple(float(value) for value in row) for row in products))

    def similarity(self) -> np.ndarray:
        """Return the pairwise kinship of the models, (n, n)."""
        each = np.eye(self.count)
        return np.array([[self.kinship(a, b) for b in each] for a in each])


def model_weights_of(genes: Sequence[Gene], models: Mapping[str, str]) -> tuple[ModelWeights | None, tuple[str, ...]]:
    """Return the model weights of a space, and the models (as written) behind their names; None if there are none.

    Args:
        genes: of the space; a weight is a number on a linear scale named `weight.<model>...`.
        models: model as written -> its short name in the genes.
    """
    # try longer names first: 'add' is also a prefix of 'add.v2'
    known = sorted(models.values(), key=len, reverse=True)
    owner = [_owner(gene, known) for gene in genes]
    named = [name for name in models.values() if name in owner]
    if len(named) < 2:
        return None, ()
    position = {name: index for index, name in enumerate(named)}
    rest = [0.5 if gene.start is None else gene.coordinate(gene.start) for gene in genes]
    found = ModelWeights(
        names=tuple(named),
        member=tuple(-1 if name is None else position[name] for name in owner),
        low=tuple(float(gene.low) if name is not None else 0.0 for gene, name in zip(genes, owner, strict=True)),
        high=tuple(float(gene.high) if name is not None else 1.0 for gene, name in zip(genes, owner, strict=True)),
        rest=tuple(float(value) for value in rest),
    )
    return found, tuple(model for model, name in models.items() if name in position)


def models_with_weights(merge: Mapping[str, Any], space: SearchSpace) -> tuple[str, ...]:
    """Return the models (as written in the merge section) that have weights of their own to search, in order."""
    return _of_merge(merge, space)[1]


def model_weights_in(merge: Mapping[str, Any], space: SearchSpace) -> ModelWeights | None:
    """Return the model weights of a search over a merge section, or None if models have no weights to search."""
    return _of_merge(merge, space)[0]


def _of_merge(merge: Mapping[str, Any], space: SearchSpace) -> tuple[ModelWeights | None, tuple[str, ...]]:
    places = list(model_places(merge))
    listed = [model for path, model in places if path[0] in ("models", "slices") and path[-1] == "model"]
    return model_weights_of(space.genes, short_names(list(dict.fromkeys(listed))))


def _owner(gene: Gene, names: Sequence[str]) -> str | None:
    """Return the name of the model whose weight a gene is, or None."""
    if gene.kind != "float" or gene.log:  # mixtures are averages, which need a linear scale
        return None
    parameter, _, tail = re.sub(r"^slice\d+\.", "", gene.name).partition(".")
    if parameter != PARAMETER:
        return None
    return next((name for name in names if tail == name or tail.startswith(f"{name}.")), None)
