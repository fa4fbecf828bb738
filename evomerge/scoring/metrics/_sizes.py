"""How large and how fast a model is: objectives beside its answers, so that a front shows quality against depth."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import CandidateError
from evomerge.scoring.metrics._metric import Measure, ModelInterface

TIMINGS = 8  # forward passes that are timed, each an item, so that the mean has a standard error
TOKENS = 128  # length of the timed text, or the model's context where that is shorter
TEXTS = 4  # sequences that are timed together


def ask(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], interface: ModelInterface
) -> list[Response]:
    """Return the resident model's size: exact numbers, but for seconds, which are measured once per item.

    Raises:
        CandidateError: the model's layers are not to be found.
    """
    if measure.kind == "seconds":
        values = forward_seconds(interface.model, len(items))
    else:
        size = depth(interface.model) if measure.kind == "layers" else parameters(interface.model)
        values = [float(size)] * len(items)
    return [Response(measure.name, item, measure.kind, value) for item, value in zip(items, values, strict=True)]


def depth(model: Any) -> int:
    """Return how many layers a forward pass runs through; a layer that runs twice counts twice."""
    return int(model.config.get_text_config().num_hidden_layers)


def parameters(model: Any) -> int:
    """Return the parameters of the model as it would be exported: a layer that runs twice counts twice.

    Tied parameters outside the layers count once.
    """
    stack = _stack(model)
    inside = {id(parameter) for layer in stack for parameter in layer.parameters()}
    outside = {id(parameter): parameter.numel() for parameter in model.parameters() if id(parameter) not in inside}
    return sum(outside.values()) + sum(parameter.numel() for layer in stack for parameter in layer.parameters())


def forward_seconds(model: Any, count: int) -> list[float]:
    """Return the seconds of `count` forward passes over random tokens, after one that is not timed.

    The tokens differ from pass to pass, and every layer is computed even where a route's first layers are shared.
    """
    import torch

    from evomerge.scoring.batched._kv_cache import computed_alone

    rows = int(model.get_input_embeddings().weight.shape[0])
    device = model.get_input_embeddings().weight.device
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or TOKENS
    draw = random.Random()  # not seeded: a time is no function of the recipe, and must not come from a cache
    seconds = []
    for number in range(count + 1):
        tokens = [[draw.randrange(rows) for _ in range(min(TOKENS, context))] for _ in range(TEXTS)]
        batch = torch.tensor(tokens, device=device)
        begun = _now(device)
        with torch.no_grad(), computed_alone(model):
            model(batch, use_cache=False)
        if number:
            seconds.append(_now(device) - begun)
    return seconds


def _stack(model: Any) -> list[Any]:
    """Return the model's layers, in the order in which they run."""
    count = depth(model)
    lists = [module for module in model.modules() if type(module).__name__ == "ModuleList" and len(module) == count]
    if not lists:
        raise CandidateError(f"no list of {count} layers was found in {type(model).__name__}, so none can be counted")
    return max((list(found) for found in lists), key=lambda layers: sum(p.numel() for p in layers[0].parameters()))


def _now(device: Any) -> float:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()
