"""Routes over the models of a resident: their layers in memory, and the stack that is pointed at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from evomerge.checkpoints import Layout, text_config
from evomerge.engine._fingerprint import combine, describe
from evomerge.engine._parameter_map import ParameterMap
from evomerge.engine.route._activations import ActivationStore
from evomerge.engine.route._layer_calls import SourceLayer, layers_of_parent, resident_layers
from evomerge.engine.route._routes import MERGED, LayerCall, kind_of, per_layer, scale_name
from evomerge.engine.route._stack import BoundLayer, LayerEvaluations, RouteStack
from evomerge.errors import InfrastructureError

Hashes = Mapping[str, str]  # tensor name in layer 0 -> `describe` text


@dataclass(frozen=True)
class BaseStack:
    """The resident model, its layout and its parameter map."""

    model: Any
    layout: Layout  # the layout from which the model was built
    parameters: ParameterMap
    empty_model: Callable[[Layout], Any]  # builds a model of another depth


class Routes:
    """Points a resident model at routes; owns no weights but those that a network needs joined or in another dtype."""

    def __init__(
        self,
        base: BaseStack,
        layouts: Mapping[str, Layout],
        tensors: Mapping[str, dict[str, torch.Tensor]],
        share_bytes: int,
    ) -> None:
        """Set up without layers; a parent's layers are set up when a route first visits them.

        Args:
            base: the resident model.
            layouts: of every parent.
            tensors: of every parent, by name, on the device.
            share_bytes: most memory for activations that candidates share; 0 shares none.
        """
        self._base, self._layouts, self._tensors = base, layouts, tensors
        self.store = ActivationStore(share_bytes) if share_bytes else None
        self.stack = RouteStack(base.model, base.layout, self.store)
        self._merged = resident_layers(base.model, base.layout, base.parameters)
        self._parents: dict[tuple[str, torch.dtype], list[SourceLayer]] = {}
        self._loaded: dict[tuple[str, int, torch.dtype], Hashes] = {}  # hashes at first use
        self._hops: tuple[LayerCall, ...] = ()
        self._dtype: torch.dtype = base.model.dtype

    @property
    def work(self) -> LayerEvaluations:
        """Layer evaluations since the last `point`, computed and shared."""
        return self.stack.state.work

    @property
    def pointed(self) -> bool:
        """Whether the model runs through a route."""
        return self.stack.pointed

    def restore(self) -> None:
        """Make the model run through its own layers again."""
        self.stack.restore()

    def point(
        self,
        hops: Sequence[LayerCall],
        merged: Mapping[str, str],
        origins: Sequence[tuple[str, int]],
        dtype: torch.dtype,
    ) -> dict[str, str]:
        """Make the model run through a route, and return what the fingerprint of its weights is made of.

        The hash of every parent's layer that is visited is taken anew from memory, so the fingerprint is of what will
        run. Tensors are named as those of an exported model; scales other than 1 have entries of their own.

        Args:
            hops: checked.
            merged: hash of every tensor of the merge that the route needs, just taken.
            origins: (model, layer) per layer of the merge, see route.merged_origins.
            dtype: of the network.

        Raises:
            InfrastructureError: a parent's layer is no longer what was loaded.
        """
        for source in dict.fromkeys(hop.source for hop in hops if hop.source != MERGED):
            self._prepare(source, dtype)  # once per source and dtype
        self._hops, self._dtype = tuple(hops), dtype
        hashes = self._layer_hashes(merged)
        bound = []
        for hop in hops:
            # the model that gives the per-layer configuration
            model, layer = origins[hop.layer] if hop.source == MERGED else (hop.source, hop.layer)
            # the kind counts too: equal weights may have other masks
            facts = [*hashes[hop.source, hop.layer].items(), ("kind", kind_of(self._layouts[model], layer))]
            module = self._layers(hop.source)[hop.layer].module
            bound.append(BoundLayer(module, hop.scale, combine(facts), self._entries(model, layer)))
        self.stack.point(bound)
        return self._parts(merged, hashes)

    def parts(self, merged: Mapping[str, str]) -> dict[str, str]:
        """Return the parts of the fingerprint as `point` does, the parents' layers hashed anew."""
        return self._parts(merged, self._layer_hashes(merged))

    def _parts(self, merged: Mapping[str, str], hashes: Mapping[tuple[str, int], Hashes]) -> dict[str, str]:
        layout = self._base.layout
        parts = {name: text for name, text in merged.items() if layout.layer_of(name) is None}  # embeddings, norm, head
        for slot, hop in enumerate(self._hops):
            parts |= {layout.in_layer(name, slot): text for name, text in hashes[hop.source, hop.layer].items()}
            if hop.scale != 1.0:
                parts[scale_name(slot)] = repr(hop.scale)
        return parts

    def _layer_hashes(self, merged: Mapping[str, str]) -> dict[tuple[str, int], Hashes]:
        """Return the hashes of every layer that the route visits, each taken once."""
        layout = self._base.layout
        found: dict[tuple[str, int], Hashes] = {}
        for source, layer in dict.fromkeys((hop.source, hop.layer) for hop in self._hops):
            if source == MERGED:
                own = (name for name in layout.by_layer[layer] if name in merged)
                found[source, layer] = {layout.in_layer(name, 0): merged[name] for name in own}
            else:
                found[source, layer] = self._hashes(source, layer)
        return found

    def _prepare(self, source: str, dtype: torch.dtype) -> None:
        if (source, dtype) in self._parents:
            return
        self.restore()
        layout, home = self._layouts[source], self._base.layout
        kinds = [[kind_of(one, layer) for layer in range(one.layers)] for one in (layout, home)]
        alike = layout.layers == home.layers and kinds[0] == kinds[1]
        # only layers are used, so a parent with the model's own layer kinds can share its modules
        base = self._base.model if alike else self._base.empty_model(layout)
        shaped = replace(layout, tensors={**layout.tensors, **_outside(home)}) if alike else layout
        self._parents[source, dtype] = layers_of_parent(shaped, self._tensors[source], base, dtype)

    def _layers(self, source: str) -> list[SourceLayer]:
        return self._merged if source == MERGED else self._parents[source, self._dtype]

    def _hashes(self, source: str, layer: int) -> Hashes:
        found = {name: describe(tensor) for name, tensor in self._layers(source)[layer].tensors.items()}
        if self._loaded.setdefault((source, layer, self._dtype), found) != found:
            raise InfrastructureError(
                f"layer {layer} of '{source}' has changed in memory since it was loaded; a function that is given the "
                "model must leave its weights as they are"
            )
        return found

    def _entries(self, model: str, layer: int) -> dict[str, Any]:
        """Return a layer's entries of per-layer lists, (layers,); absent lists are the architecture's own."""
        layout = self._layouts[model]
        config = text_config(layout.config)
        written = {name: config[name][layer] for name in config if per_layer(name, config[name], layout.layers)}
        own = self.stack.entries(layer) if layer < len(self.stack.home) else {}
        return {**own, **written}  # the file's word comes before the architecture's default


def _outside(layout: Layout) -> dict[str, Any]:
    return {name: layout.tensors[name] for name in layout.by_layer.get(None, ()) if name in layout.tensors}
