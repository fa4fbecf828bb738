"""Stack of the resident model, pointed at the layers of a route.

A visit is a layer at another index of the stack: it shares the layer's parameters and has its own slot in the
cache. Pointing the stack at a route copies no weights; it fills a list with visits and adapts what the configuration
says about each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from evomerge.checkpoints import Layout, layer_count_key, text_config
from evomerge.engine.route._activations import ActivationStore, Digests, Kept, chained
from evomerge.engine.route._layer_calls import share_parameters, stack_of
from evomerge.engine.route._routes import per_layer


@dataclass(frozen=True)
class BoundLayer:
    """One hop bound to its layer."""

    module: Any  # the layer, nn.Module; visits share its parameters
    scale: float
    digest: str  # hash of the layer's weights and kind
    entries: Mapping[str, Any]  # what per-layer lists of the configuration say about it


@dataclass
class LayerEvaluations:
    """Layer evaluations (tokens times layers) computed, and taken from the store."""

    run: int = 0
    shared: int = 0


@dataclass
class PassState:
    """State shared by the layers of one stack: the store, and the current node of the trie."""

    store: ActivationStore | None
    work: LayerEvaluations = field(default_factory=LayerEvaluations)
    digests: Digests = field(default_factory=Digests)
    node: str | None = None  # key of the trie node before the next layer; None: not shared
    path: list[str] = field(default_factory=list)
    alone: Callable[[], bool] = lambda: False  # whether the pass under way is to be computed in any case

    def enter(self, hidden: torch.Tensor) -> None:
        """Begin a pass over hidden states (..., tokens, width)."""
        self.digests.begin_pass()
        self.path = []  # keys of this pass
        shared = self.store is not None and self.store.limit > 0 and not self.alone()
        self.node = self.digests.of(hidden) if shared and not hidden.requires_grad else None

    def leave(self) -> None:
        """End a pass. Deep nodes leave the store first: without the shallow ones they could not be reached."""
        if self.store is not None:
            self.store.touch(reversed(self.path))


class RoutedLayer:
    """Replaces the forward of a layer at one index of the stack."""

    def __init__(self, forward: Any, slot: int, last: bool, layer_call: BoundLayer, state: PassState) -> None:
        self._forward, self._slot, self._last, self._bound, self._state = forward, slot, last, layer_call, state

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the layer's output for the scaled hidden states (..., tokens, width), computed or from the store."""
        state = self._state
        if self._slot == 0:
            state.enter(hidden_states)
        tokens = hidden_states.numel() // hidden_states.shape[-1]
        cache = next((value for value in (*args, *kwargs.values()) if hasattr(value, "get_seq_length")), None)
        key = None if state.node is None else self._key(state.node, cache, args, kwargs)
        kept = None if key is None or state.store is None else state.store.find(key)
        layer = None if cache is None else _cache_layer(cache, self._slot, make=key is not None)
        written = None if cache is None or _is_transient(cache) else layer  # None: its input is not read
        if kept is None:
            output = self._computed(hidden_states, args, kwargs)
            state.work.run += tokens
            if key is not None and state.store is not None:
                state.store.keep(key, _kept(output, written, hidden_states.shape[-2]))
        else:
            output = kept.output
            state.work.shared += tokens
            _restore(layer, kept)
        if key is not None and written is not None:
            state.digests.name_cache(written, key)
        state.node = key
        if key is not None:
            state.path.append(key)
        if self._last:
            state.leave()
        return output

    def _computed(self, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # no multiplication: the bits of an ordinary stack
        entered = hidden if self._bound.scale == 1.0 else hidden * self._bound.scale
        return self._forward(entered, *args, **kwargs)

    def _key(self, before: str, cache: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        digests = self._state.digests
        given = digests.of([None if value is cache else value for value in args])
        named = digests.of({name: None if value is cache else value for name, value in kwargs.items()})
        kind = "none" if cache is None else "read only" if _is_transient(cache) else "kept"
        held = digests.of_cache(None if cache is None else _cache_layer(cache, self._slot))
        if given is None or named is None or held is None:
            return None
        return chained(before, self._bound.digest, repr(self._bound.scale), given, named, kind, held)


class RouteStack:
    """The layers of one model, which can be pointed at other layers and back; meant to be mutated.

    While it is pointed elsewhere, the model's own list of layers and its configuration are those of the route.
    """

    def __init__(self, model: Any, layout: Layout, store: ActivationStore | None) -> None:
        self._model = model
        self._stack, self.name = stack_of(model, layout)
        self.home = list(self._stack)
        self._config = getattr(model.config, "get_text_config", lambda: model.config)()
        self._key = layer_count_key(layout.config) or "num_hidden_layers"
        lists = text_config(layout.config)
        names = {name for name, value in self._config.to_dict().items() if per_layer(name, value, layout.layers)}
        names |= {name for name, value in lists.items() if per_layer(name, value, layout.layers)}
        self._lists = {name: list(getattr(self._config, name)) for name in sorted(names)}
        self._visits: dict[tuple[int, int], Any] = {}  # (layer, slot) -> module
        # a timed pass sets this attribute, see scoring.resident_cache.computed_alone
        self.state = PassState(store, alone=lambda: bool(getattr(model, "computed_alone", False)))
        self.pointed = False

    def entries(self, layer: int) -> dict[str, Any]:
        """Return the entries of per-layer lists, (layers,), of the configuration for one of the model's own layers."""
        return {name: values[layer] for name, values in self._lists.items()}

    def point(self, bound: Sequence[BoundLayer]) -> None:
        """Make the model run through these layers, (hops,), in this order."""
        self._forget_hooks()
        modules = []
        for slot, layer_call in enumerate(bound):
            module = self._visit(layer_call.module, slot)
            module.__dict__["forward"] = RoutedLayer(
                module.__dict__["_own_forward"], slot, slot == len(bound) - 1, layer_call, self.state
            )
            modules.append(module)
        self._fill(modules)
        setattr(self._config, self._key, len(bound))  # caches and masks are sized from the configuration
        for name in self._lists:
            setattr(self._config, name, [layer_call.entries[name] for layer_call in bound])
        if self.state.store is not None:
            self.state.store.begin()
        self.state.work = LayerEvaluations()
        self.pointed = True

    def restore(self) -> None:
        """Make the model run through its own layers."""
        if not self.pointed:
            return
        self._forget_hooks()
        self._fill(self.home)
        setattr(self._config, self._key, len(self.home))
        for name, values in self._lists.items():
            setattr(self._config, name, list(values))
        self.pointed = False

    def _visit(self, layer: Any, slot: int) -> Any:
        known = self._visits.get((id(layer), slot))
        if known is None:
            known = self._visits[id(layer), slot] = share_parameters(layer, slot)
            known.__dict__["_own_forward"] = known.forward
        return known

    def _fill(self, modules: Sequence[Any]) -> None:
        self._stack._modules = {str(slot): module for slot, module in enumerate(modules)}

    def _forget_hooks(self) -> None:
        """Let transformers hook the layers anew where it did so to hand out hidden states or attentions."""
        hooked = [part for part in self._model.modules() if part.__dict__.get("_output_capturing_hooks_installed")]
        for part in hooked:
            part._output_capturing_hooks_installed = False
        for layer in (*self.home, *self._visits.values()) if hooked else ():
            for part in layer.modules():
                part._forward_hooks.clear()


def _kept(output: Any, layer: Any, tokens: int) -> Kept:
    """Return a layer's output (..., tokens, width) and what it added to its layer of a cache, if any."""
    if layer is None:
        return Kept(output)
    if layer.keys.shape[-2] < tokens:  # a window shorter than the pass
        return Kept(output, state=dict(vars(layer)))
    keys, values = (held[..., -tokens:, :] for held in (layer.keys, layer.values))
    whole = layer.keys.shape[-2] == tokens  # a part is copied, so that the whole need not be held for it
    return Kept(output, (keys, values) if whole else (keys.clone(), values.clone()))


def _restore(layer: Any, kept: Kept) -> None:
    """Restore the keys and values, (batch, heads, tokens, head size), that were stored for a layer of a cache."""
    if kept.added is not None:
        layer.update(*kept.added)
    elif kept.state is not None:
        vars(layer).update(kept.state)


def _is_transient(cache: Any) -> bool:
    # the caller marks a cache that is not read after this pass, see scoring.resident_cache.fork
    return bool(getattr(cache, "transient", False))


def _cache_layer(cache: Any, slot: int, *, make: bool = False) -> Any:
    layers = cache.layers
    while make and len(layers) <= slot:
        layers.append(cache.layer_class_to_replicate())
    return layers[slot] if slot < len(layers) else None
