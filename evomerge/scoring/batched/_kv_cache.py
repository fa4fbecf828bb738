"""A key/value cache that several passes start from without changing it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

# Layers of caches that replace their tensors and never write into them.
_GROWING = ("DynamicLayer", "DynamicSlidingWindowLayer")


def compute_root(model: Any, tokens: tuple[int, ...], device: torch.device) -> Any:
    """Return the model's key/value cache after `tokens`, for one sequence."""
    ids = torch.tensor([tokens], device=device)
    arguments: dict[str, Any] = {"logits_to_keep": 1} if keeps_logits(model) else {}
    return model(input_ids=ids, use_cache=True, **arguments).past_key_values


def fork(cache: Any, *, transient: bool = False) -> Any:
    """Return a cache that can be extended while `cache` stays as it is.

    A layer of a growing cache never writes into its tensors, it replaces them; so the layers are copied and the
    tensors are shared. Caches of any other make are copied whole.

    Args:
        cache: to start from.
        transient: what is written into the fork is never read; a model that shares work between candidates need
            not keep it for them.
    """
    layers = getattr(cache, "layers", None)
    if layers is None or any(type(layer).__name__ not in _GROWING for layer in layers):
        forked = copy.deepcopy(cache)
    else:
        forked = copy.copy(cache)
        forked.layers = [copy.copy(layer) for layer in layers]
    forked.transient = transient
    return forked


def layer_kinds(model: Any) -> frozenset[str]:
    """Return which kinds of layers a model has at the moment; they differ between the routes of one search."""
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    return frozenset(getattr(config, "layer_types", None) or ())


@contextlib.contextmanager
def computed_alone(model: Any) -> Iterator[None]:
    """Make a model compute every layer inside, whatever it knows from other candidates: for passes that are timed."""
    model.computed_alone = True
    try:
        yield
    finally:
        model.computed_alone = False


def keeps_logits(model: Any) -> bool:
    """Return whether the model computes logits for chosen positions only."""
    import inspect

    return "logits_to_keep" in inspect.signature(model.forward).parameters
