"""Layers of a route: modules that share the parameters of a model in memory, one per layer call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints import Layout
from evomerge.engine._parameter_map import ParameterMap, parameter_slices
from evomerge.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

_NUMBERED = re.compile(r"^(.+?)\.(\d+)\.(.+)$")  # stack, layer, name within the layer
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")


@dataclass(frozen=True)
class SourceLayer:
    """One layer of one model in memory: the module, and its tensors in the checkpoint's shapes."""

    module: Any  # nn.Module
    tensors: Mapping[str, torch.Tensor]  # the checkpoint's, under the names that they have in layer 0


def share_parameters(module: nn.Module, slot: int | None = None) -> Any:
    """Return a new module with the very parameters of `module`; nothing is copied.

    Args:
        module: a layer or a part of one.
        slot: index in the stack, under which the new module uses the cache; None: as in `module`.
    """
    from torch import nn

    shared: Any = nn.Module.__new__(type(module))
    shared.__dict__.update(module.__dict__)  # parameters and buffers are shared by reference
    shared.__dict__.pop("forward", None)  # the original may stand in a route with a replaced forward
    for hooks in _HOOKS:
        if hooks in shared.__dict__:
            shared.__dict__[hooks] = type(shared.__dict__[hooks])()  # hooks of the original must not fire here
    shared._modules = {
        name: None if child is None else share_parameters(child, slot) for name, child in module._modules.items()
    }
    if slot is not None and isinstance(shared.__dict__.get("layer_idx"), int):
        shared.__dict__["layer_idx"] = slot  # attention finds its cache by this number
    return shared


def stack_of(model: Any, layout: Layout) -> tuple[Any, str]:
    """Return the module that holds the layers of a model, and its name.

    Raises:
        WeightsError: the model has no list of layers, one after the other.
    """
    from torch import nn

    slices = parameter_slices(model, layout)  # from transformers' own rules, so that no family is named here
    first = next(name for name in layout.by_layer[0] if name in slices)
    match = _NUMBERED.match(slices[first].parameter)
    name = match.group(1) if match else ""
    found = model.get_submodule(name) if name else None
    if not isinstance(found, nn.ModuleList) or len(found) != layout.layers:
        raise WeightsError(
            f"route: {type(model).__name__} ('{layout.reference}') keeps its layers in no plain list, so they cannot "
            "be put in another order"
        )
    return found, name


def resident_layers(model: Any, layout: Layout, parameters: ParameterMap) -> list[SourceLayer]:
    """Return the layers of the resident model itself."""
    stack, _ = stack_of(model, layout)
    return [SourceLayer(module, _Renamed(layout, layer, parameters)) for layer, module in enumerate(stack)]


class _Renamed(Mapping[str, "torch.Tensor"]):
    """The tensors of one layer, in the checkpoint's shapes, by their names in layer 0; looked up on each access."""

    def __init__(self, layout: Layout, layer: int, tensors: Mapping[str, torch.Tensor]) -> None:
        # name in layer 0 -> own name
        self._names = {layout.in_layer(name, 0): name for name in layout.by_layer[layer] if name in layout.tensors}
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def layers_of_parent(
    layout: Layout, tensors: dict[str, torch.Tensor], network: Any, dtype: torch.dtype
) -> list[SourceLayer]:
    """Return a parent's layers as modules whose parameters are the parent's own tensors.

    Where the network computes with several tensors in one (stacked experts), or in another dtype than theirs, the
    joined memory is made here, once; if the dtype is the same it takes the place of the tensors in `tensors`.

    Args:
        layout: of the parent.
        tensors: of the parent, by name.
        network: a model of the parent's configuration, whose modules are shared and whose parameters are not used.
        dtype: of the network that the layers run in.
    """
    stack, name = stack_of(network, layout)
    placed = _parameters_of(network, layout, tensors, dtype, f"{name}.")
    made = []
    for number, module in enumerate(stack):
        shared = _unshared(module)
        for path, (parameter, _) in placed[number].items():
            owner, _, leaf = path.rpartition(".")
            shared.get_submodule(owner)._parameters[leaf] = parameter
        own = {name: view for _, views in placed[number].values() for name, view in views.items()}
        made.append(SourceLayer(shared, {layout.in_layer(name, 0): view for name, view in own.items()}))
    return made


_Placed = dict[str, tuple[Any, dict[str, "torch.Tensor"]]]  # path in the layer -> (parameter, its tensors by name)


def _parameters_of(
    network: Any, layout: Layout, tensors: dict[str, torch.Tensor], dtype: torch.dtype, stack: str
) -> dict[int, _Placed]:
    """Return the parameters of each layer, in the network's shapes and dtype, made of the parent's tensors."""
    import torch

    shapes = {name: parameter.shape for name, parameter in network.named_parameters(remove_duplicate=False)}
    parts: dict[str, list[tuple[int, str]]] = {}
    for name, part in parameter_slices(network, layout).items():
        if part.parameter.startswith(stack):
            parts.setdefault(part.parameter, []).append((part.start, name))
    made: dict[int, _Placed] = {layer: {} for layer in range(layout.layers)}
    for target, members in parts.items():
        first = tensors[members[0][1]]
        if len(members) == 1 and first.shape == shapes[target] and first.dtype == dtype:  # used as it lies
            data, views = first, {members[0][1]: first}
        else:
            data = torch.empty(shapes[target], dtype=dtype, device=first.device)
            views = {}
            for start, name in members:
                views[name] = data.view(-1)[start : start + tensors[name].numel()].view(tensors[name].shape)
                views[name].copy_(tensors[name])
                if tensors[name].dtype == dtype:
                    tensors[name] = views[name]  # frees the parent's own copy
        layer, path = target.removeprefix(stack).split(".", 1)
        made[int(layer)][path] = (torch.nn.Parameter(data, requires_grad=False), views)
    return made


def _unshared(module: nn.Module) -> Any:
    """Return a shared copy with parameter dictionaries of its own, to be filled."""
    shared = share_parameters(module)
    _each(shared, lambda part: part.__dict__.update(_parameters=dict(part._parameters)))
    return shared


def _each(module: nn.Module, change: Callable[[Any], None]) -> None:
    for part in module.modules():
        change(part)
