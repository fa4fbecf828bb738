"""Which place inside a transformers model each tensor of a checkpoint has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from evomerge.errors import WeightsError
from evomerge.weights.layout import Layout

if TYPE_CHECKING:
    import torch


def place_tensors(model: Any, layout: Layout) -> dict[str, torch.nn.Parameter]:
    """Return the model's parameter for every tensor of the layout, by the checkpoint's names.

    Checkpoints name tensors as the model's modules do, save for the prefix of the model's body, which old ones leave
    out. Anything else (tensors that transformers splits, fuses or renames while loading) is refused here: writing
    half a model would score something that is no merge. A tied head shares the embedding's parameter.

    Args:
        model: a transformers model, on any device.
        layout: of the checkpoint that the model was configured from.

    Raises:
        WeightsError: a tensor without a place, a parameter without a tensor, or another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    prefix = f"{model.base_model_prefix}."
    places: dict[str, torch.nn.Parameter] = {}
    for name, info in layout.tensors.items():
        candidates = (name, prefix + name, name.removeprefix(prefix))
        found = next((candidate for candidate in candidates if candidate in parameters), None)
        if found is None:
            raise _unplaced(layout, model, name, "has no place in the model", parameters)
        if tuple(parameters[found].shape) != info.shape:
            shape = tuple(parameters[found].shape)
            raise WeightsError(
                f"tensor '{name}': '{layout.reference}' is {info.shape}, its config.json makes it {shape}"
            )
        places[name] = parameters[found]
    _check_complete(model, layout, parameters, places)
    return places


def _check_complete(
    model: Any,
    layout: Layout,
    parameters: dict[str, torch.nn.Parameter],
    places: dict[str, torch.nn.Parameter],
) -> None:
    filled: dict[int, str] = {}
    for name, parameter in places.items():
        if id(parameter) in filled:
            raise WeightsError(
                f"model '{layout.reference}': transformers ties '{name}' to '{filled[id(parameter)]}', the checkpoint "
                "stores both; say so with tie_word_embeddings in its config.json"
            )
        filled[id(parameter)] = name
    for name, parameter in parameters.items():
        if id(parameter) not in filled:
            raise _unplaced(layout, model, name, "is not in the checkpoint", layout.tensors)


def _unplaced(layout: Layout, model: Any, name: str, what: str, known: Iterable[str]) -> WeightsError:
    near = sorted(known, key=lambda other: -_common_tail(name, other))[:2]
    return WeightsError(
        f"tensor '{name}' {what} (model '{layout.reference}', {type(model).__name__}; nearest: {', '.join(near)}). "
        "Load it with transformers and save it again with save_pretrained; where transformers renames or fuses tensors "
        "itself, such a model can be exported but not merged in place"
    )


def _common_tail(one: str, other: str) -> int:
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return sum(a == b for a, b in pairs)
