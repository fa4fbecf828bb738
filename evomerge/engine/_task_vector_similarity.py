"""Similarity of models: the inner products of their task vectors, from one pass over the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from evomerge.checkpoints import CheckpointReader
from evomerge.errors import WeightsError

_ELEMENTS = 1 << 22  # elements per step: memory stays small however large the tensor is


def task_vector_products(models: Sequence[str], base: str | None) -> list[list[float]]:
    """Return the centred inner products of the models' task vectors, (n, n), divided by their mean diagonal.

    Each task vector is all of a model's tensors minus the base's, in float32, as one long vector less its mean; so
    product_ij / sqrt(product_ii product_jj) is Pearson's correlation, the kinship of two models. Without a base, the
    models' mean stands for it. Tensors that some model lacks, or has in another shape, are left out.

    Args:
        models: references.
        base: reference of their common ancestor, or None.

    Raises:
        WeightsError: a model is missing or damaged, no tensor is common to all, or the models are equal.

    Source: 'Exploring Model Kinship for Merging Large Language Models', Hu et al. 2024.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(CheckpointReader(name)) for name in models]
        root = stack.enter_context(CheckpointReader(base)) if base is not None else None
        every_reader = [*readers, *([root] if root is not None else [])]
        shapes = [{name: tuple(info.shape) for name, info in reader.layout.tensors.items()} for reader in every_reader]
        common = [name for name, shape in shapes[0].items() if all(other.get(name) == shape for other in shapes)]
        if not common:
            raise WeightsError(f"no tensor has one shape in all of {', '.join(models)}; the models are unrelated")
        products = torch.zeros(len(models), len(models), dtype=torch.float64)
        sums = torch.zeros(len(models), dtype=torch.float64)
        count = 0
        for name in common:
            flat = [reader.tensor(name).reshape(-1) for reader in every_reader]
            for start in range(0, flat[0].numel(), _ELEMENTS):
                # (models, elements), the base last
                part = torch.stack([tensor[start : start + _ELEMENTS].to(torch.float32) for tensor in flat])
                delta = part[: len(models)] - (part[-1] if root is not None else part.mean(dim=0))
                products += (delta @ delta.T).to(torch.float64)  # (models, models); steps are added in float64
                sums += delta.sum(dim=1, dtype=torch.float64)
                count += delta.shape[1]
    products -= torch.outer(sums, sums) / count  # centres: sum of (x - mean)(y - mean) without a second pass
    scale = float(products.diagonal().mean())  # one factor for all, which correlations cancel
    if scale <= 0:
        raise WeightsError(f"{', '.join(models)} hold the same weights; there is nothing to merge")
    rows: list[list[float]] = (products / scale).tolist()
    return rows
