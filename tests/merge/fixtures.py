"""Fixture F of the reference: a base and three task vectors of shape (2, 4), no two magnitudes of one vector equal."""

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor

from evomerge.merge import CATALOGUE, merge

BASE = torch.tensor([[1, -1, 0.5, 2], [0, 1, -2, 0.25]], dtype=torch.float64)
DELTAS = [
    torch.tensor([[0.8, -0.6, 0.1, 0.4], [-0.2, 0.3, 0.05, -0.7]], dtype=torch.float64),
    torch.tensor([[-0.5, -0.9, 0.2, 0.05], [0.6, -0.1, 0.35, -0.3]], dtype=torch.float64),
    torch.tensor([[0.3, 0.45, -0.7, 0.15], [0.25, -0.55, 0.65, 0.1]], dtype=torch.float64),
]
# A mask for the random methods' golden values, which were written down for this mask and not for a generator.
MASK = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)


# Property tests repeat themselves exactly, and a busy machine does not fail them.
relaxed = settings(deadline=None, derandomize=True)


def spread(name: str, values: dict[str, Any], models: int) -> dict[str, Any]:
    """Repeat single values of per-model parameters once per model."""
    per_model = {parameter.name for parameter in CATALOGUE[name].parameters if parameter.per_model}
    return {
        key: [value] * models if key in per_model and not isinstance(value, Sequence) else value
        for key, value in values.items()
    }


def run(
    name: str,
    base: Tensor | None,
    models: Sequence[Tensor],
    keys: Sequence[int] = (),
    role: str = "matrix",
    **values: Any,
) -> Tensor:
    """Merge from weights, whatever the method wants: task vectors are made here; single values are repeated."""
    inputs = [model - base for model in models] if CATALOGUE[name].inputs == "deltas" and base is not None else models
    keys = keys or (range(1, len(models) + 1) if CATALOGUE[name].random else ())
    return merge(name, base, list(inputs), spread(name, values, len(models)), keys=list(keys), role=role)
