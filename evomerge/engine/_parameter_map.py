"""Parameter map: the memory inside a transformers model that each tensor of a checkpoint fills."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints import Layout
from evomerge.engine._conversion import ParameterSlice, slices_of
from evomerge.errors import WeightsError

if TYPE_CHECKING:
    import torch


class ParameterMap(Mapping[str, "torch.Tensor"]):
    """Views of a model's parameters by the checkpoint's tensor names, each of the checkpoint's shape.

    A view is contiguous. It is a whole parameter, or a stretch of one where transformers joins several tensors
    (stacked experts). Writing into a view changes the model.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], slices: Mapping[str, ParameterSlice], layout: Layout
    ) -> None:
        self._parameters = dict(parameters)
        self._slices = dict(slices)
        self._shapes = {name: layout.tensors[name].shape for name in slices}

    def __getitem__(self, name: str) -> torch.Tensor:
        part = self._slices[name]
        # taken anew each time: a parameter may have got other memory, or have been moved to another device
        data = self._parameters[part.parameter].data  # writing through `.data` bypasses autograd
        shape = self._shapes[name]
        if data.shape == shape:
            return data
        # a view: writing reaches the model
        return data.reshape(-1)[part.start : part.start + math.prod(shape)].view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def __len__(self) -> int:
        return len(self._slices)

    def memory(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor's view in a dtype; a parameter of another dtype gets new memory, its other parts kept.

        A tied head is the same parameter as the embedding and follows it.
        """
        parameter = self._parameters[self._slices[name].parameter]
        if parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)  # the parameter object stays, so modules keep pointing at it
        return self[name]


def map_parameters(model: Any, layout: Layout) -> ParameterMap:
    """Return the parameter map of a model for every tensor of the layout.

    transformers' own rules say where a tensor goes; without one, tensors are named as the model's modules are, save
    for the prefix of the model's body, which old checkpoints leave out. What cannot be placed is refused: writing half
    a model would score something that is no merge. A tied head shares the embedding's parameter.

    Args:
        model: a transformers model, on any device.
        layout: of the checkpoint that the model was configured from.

    Raises:
        WeightsError: a tensor without a parameter, a parameter without a tensor, or another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))  # duplicates: a tied head has two names
    slices = parameter_slices(model, layout)
    _check_complete(model, layout, parameters, slices)
    return ParameterMap(parameters, slices, layout)


def parameter_slices(model: Any, layout: Layout) -> dict[str, ParameterSlice]:
    """Return the slice of every tensor of the layout; the model may lie on torch's meta device.

    Raises:
        WeightsError: a tensor without a parameter, or of another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    shapes = {name: info.shape for name, info in layout.tensors.items()}
    slices = slices_of(model, shapes, parameters)
    prefix = f"{model.base_model_prefix}."  # "model." or "transformer."; the hub's GPT-2 lacks it
    for name, info in layout.tensors.items():
        if name not in slices:
            candidates = (name, prefix + name, name.removeprefix(prefix))
            found = next((candidate for candidate in candidates if candidate in parameters), None)
            if found is None:
                raise _unplaced(layout, model, name, "has no place in the model", parameters)
            slices[name] = ParameterSlice(found)
        _check_shape(name, info.shape, slices[name], parameters, layout)
    return {name: slices[name] for name in layout.tensors}


def _check_shape(
    name: str,
    shape: tuple[int, ...],
    part: ParameterSlice,
    parameters: Mapping[str, torch.nn.Parameter],
    layout: Layout,
) -> None:
    found = tuple(parameters[part.parameter].shape)
    if not part.joined and found != shape:
        raise WeightsError(f"tensor '{name}': '{layout.reference}' is {shape}, its config.json makes it {found}")


def _check_complete(
    model: Any, layout: Layout, parameters: dict[str, torch.nn.Parameter], slices: Mapping[str, ParameterSlice]
) -> None:
    """Refuse overlapping slices, and parameters that no tensor fills, or not completely."""
    parts: dict[int, list[tuple[int, int, str]]] = {}
    for name, part in slices.items():
        end = part.start + layout.tensors[name].elements
        # keyed by identity, so that tied parameters are one
        # keyed by identity, so that tied parameters are one
        parts.setdefault(id(parameters[part.parameter]), []).append((part.start, end, name))
    for stretches in parts.values():
        stretches.sort()
        for (_, end, name), (start, _, other) in pairwise(stretches):
            if start < end:  # two tensors claim the same elements
                raise WeightsError(
                    f"model '{layout.reference}': transformers ties '{other}' to '{name}', the checkpoint "
                    "stores both; say so with tie_word_embeddings in its config.json"
                )
    for name, parameter in parameters.items():
        # no overlaps here, so lengths may be added
        filled = sum(end - start for start, end, _ in parts.get(id(parameter), []))
        if filled != parameter.numel():
            what = "is not in the checkpoint" if not filled else "is in the checkpoint only in part"
            raise _unplaced(layout, model, name, what, layout.tensors)


def _unplaced(layout: Layout, model: Any, name: str, what: str, known: Iterable[str]) -> WeightsError:
    near = sorted(known, key=lambda other: -_common_tail(name, other))[:2]  # names differ mostly in their prefixes
    return WeightsError(
        f"tensor '{name}' {what} (model '{layout.reference}', {type(model).__name__}; nearest: {', '.join(near)}). "
        "Load it with transformers and save it again with save_pretrained; if the message stays, transformers stores "
        "this model in another form than it computes with, and it can be exported but not merged in place"
    )


def _common_tail(one: str, other: str) -> int:
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return sum(a == b for a, b in pairs)
