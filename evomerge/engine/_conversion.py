"""Map from a checkpoint's tensors to model parameters, as transformers renames, stacks or joins them on loading.

The checkpoint of a Mixtral holds three matrices per expert; the model that transformers 5 builds holds two stacks per
layer. A merge works on the checkpoint's tensors, each under its own name (as mergekit does), so every one of them must
be found again inside the model. Nothing about families is written down here: transformers' own rules are applied to
tensors of markers, element for element, and the markers are looked up in what comes out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ParameterSlice:
    """The stretch of a parameter that one tensor of a checkpoint fills: consecutive elements, in the same order."""

    parameter: str  # name in the model
    start: int = 0  # first element, in the flattened parameter
    joined: bool = False  # whether the parameter holds several tensors


def slices_of(
    model: Any, shapes: Mapping[str, tuple[int, ...]], parameters: dict[str, Any]
) -> dict[str, ParameterSlice]:
    """Return the slice of every tensor that transformers would load; tensors that it would leave out are left out here.

    Args:
        model: a transformers model.
        shapes: of the checkpoint's tensors, by the checkpoint's names.
        parameters: of the model, by the model's names.

    Raises:
        WeightsError: transformers takes a tensor apart or reorders it, so that it has no one stretch to be written to.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, dot_natural_key, rename_source_key
    except ImportError:  # before transformers 5 models had their checkpoints' names
        return {}
    rules: list[Any] = list(get_model_conversion_mapping(model))
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    renamings = [rule for rule in rules if not isinstance(rule, WeightConverter)]
    slices: dict[str, ParameterSlice] = {}
    joined: dict[str, list[tuple[str, str]]] = {}  # first target -> [(pattern, name)], in the order of loading
    for name in sorted(shapes, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
        if target not in parameters and name in parameters:  # a renaming for old checkpoints may catch a new name
            target, pattern = name, None
        if target in parameters and pattern is None:
            slices[name] = ParameterSlice(target)
        elif target in parameters:
            joined.setdefault(target, []).append((str(pattern), name))
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    for target, sources in joined.items():
        rule = copy.deepcopy(by_pattern[sources[0][0]])  # a rule collects tensors, so each target needs a fresh one
        slices |= _joined_slices(model, target, sources, rule, shapes, parameters)
    return slices


def _joined_slices(
    model: Any,
    target: str,
    sources: Iterable[tuple[str, str]],
    rule: Any,
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Any],
) -> dict[str, ParameterSlice]:
    """Return the slices of tensors that one rule makes parameters of, found by converting numbered elements."""
    import torch

    first: dict[str, int] = {}  # tensor -> number of its first element
    total = 0
    for pattern, name in sources:
        size = int(torch.Size(shapes[name]).numel())
        rule.add_tensor(target, name, pattern, torch.arange(total, total + size).view(shapes[name]))
        first[name] = total
        total += size
    made = {name: _only(values) for name, values in rule.convert(target, model=model, config=model.config).items()}
    for name, values in made.items():
        if name not in parameters or parameters[name].shape != values.shape:
            made_it = tuple(parameters[name].shape) if name in parameters else "nothing of this name"
            raise WeightsError(
                f"the checkpoint's tensors make '{name}' {tuple(values.shape)}, its config.json makes it {made_it}"
            )
    slices: dict[str, ParameterSlice] = {}
    for name, number in first.items():
        size = int(torch.Size(shapes[name]).numel())
        part = next(
            (part for part in (_find(values.reshape(-1), number, size, key) for key, values in made.items()) if part),
            None,
        )
        if part is None:
            raise WeightsError(
                f"tensor '{name}': {type(model).__name__} splits or reorders it while loading, so it "
                "cannot be written in place; merge to a folder (evomerge merge) and score the folder"
            )
        slices[name] = part
    return slices


def _find(values: Tensor, number: int, size: int, parameter: str) -> ParameterSlice | None:
    """Return where the elements `number`, `number` + 1, ... stand in that order, or None where they do not."""
    import torch

    found = (values == number).nonzero()
    if len(found) != 1:
        return None
    start = int(found[0, 0])
    expected = torch.arange(number, number + size)  # consecutive numbers prove that the order was kept
    return (
        ParameterSlice(parameter, start, joined=True) if torch.equal(values[start : start + size], expected) else None
    )


def _only(value: Any) -> Tensor:
    # transformers' rules give a tensor, or a list of one
    tensor: Tensor = value[0] if isinstance(value, list) else value
    return tensor
