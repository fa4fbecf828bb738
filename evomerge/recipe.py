"""A recipe: the frozen, hashable description of one merged model.

A recipe *is* a mergekit document in which every number is fixed, plus the few facts that mergekit leaves open: the
seed of random masks and the revision of every model. Keeping mergekit's own form, instead of a table of coefficients
per tensor, means that gradients and filters are evaluated by one rule here and there, so a recipe that mergekit can
express gives the same weights in both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from evomerge._model_reference import MODEL_KEYS, parse, plain_models
from evomerge._tokenizer import TokenizerChoice, choice_of

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Conditional:
    """A value, or a gradient over depth, for the tensors whose name contains `filter` (None or '*': all)."""

    value: Scalar | tuple[Scalar, ...]
    filter: str | None = None


_Setting = Scalar | tuple[Scalar, ...] | tuple[Conditional, ...]
Parameters = tuple[tuple[str, _Setting], ...]  # (name, setting), sorted by name


@dataclass(frozen=True)
class Source:
    """One model of a merge, with the parameters that belong to it alone."""

    model: str  # folder, hub id, id@revision, or model+adapter
    parameters: Parameters = ()
    layers: tuple[int, int] | None = None  # [first, end) of its own layers; None: all of them


@dataclass(frozen=True)
class Slice:
    """A run of consecutive output layers, merged from equally long runs of the sources' layers."""

    sources: tuple[Source, ...]
    base: str | None = None
    parameters: Parameters = ()


@dataclass(frozen=True)
class Recipe:
    """The full description of one merged model; the recipe alone determines the weights.

    Exactly one of `models` and `slices` is non-empty. Equal recipes have equal digests on any machine: where the
    revision of a model is known, the digest is taken over the revision and not over the path.
    """

    method: str  # merge method, by its name in `merge.catalogue`
    models: tuple[Source, ...] = ()  # the sources, where they are the same for all layers
    slices: tuple[Slice, ...] = ()  # alternatively runs of layers, each with its own sources
    base: str | None = None  # the common ancestor; None where the method has none
    parameters: Parameters = ()  # parameters of the whole merge: (name, number or a list over depth)
    dtype: str | None = None  # dtype of the merged tensors; None: the base tensor's own
    out_dtype: str | None = None  # dtype of the written weights; None: dtype
    tokenizer_source: str | None = None  # base, union, or the model that gives the tokenizer
    tokenizer: TokenizerChoice | None = None  # instead of tokenizer_source
    chat_template: str | None = None  # a template, or one of mergekit's words; None: the tokenizer's own
    mask_seed: int = 0  # keys the masks of random methods, with the source's and the tensor's names
    revisions: tuple[tuple[str, str], ...] = ()  # (model as written, content or commit id), sorted
    route: tuple[tuple[str, int, float], ...] | None = field(default=None)  # (source, layer, entry scale) per hop

    def references(self) -> tuple[str, ...]:
        """Return every model that the recipe names, base first, in order of appearance, once each."""
        sources = [source.model for part in (self.slices or [Slice(self.models)]) for source in part.sources]
        bases = [self.base, *(part.base for part in self.slices)]
        return tuple(dict.fromkeys(model for model in [*bases, *sources] if model is not None))

    @property
    def tokenizer_choice(self) -> TokenizerChoice | None:
        """The tokenizer chosen by `tokenizer` or `tokenizer_source`; None: the donor's, as it is."""
        return TokenizerChoice(self.tokenizer_source) if self.tokenizer_source is not None else self.tokenizer

    def with_revisions(self, revisions: Mapping[str, str]) -> Recipe:
        """Return this recipe with the revisions of the models that it names.

        Args:
            revisions: model as written -> content or commit id; those of models that the recipe does not name are left
                out.
        """
        named = dict.fromkeys((*self.references(), *(self.tokenizer_choice.models() if self.tokenizer_choice else ())))
        known = tuple(sorted((name, revisions[name]) for name in named if name in revisions))
        return replace(self, revisions=known)

    @cached_property
    def digest(self) -> str:
        """The recipe's name: 64 hexadecimal digits over everything that determines the weights."""
        revisions = dict(self.revisions)
        document = _rename_models(self.to_mapping(), revisions)
        document.pop("revisions", None)
        for hop in document.get("route", ()):
            hop[0] = revisions.get(hop[0], hop[0])  # a route names its sources outside MODEL_KEYS
        # canonical JSON: the digest must not depend on key order
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_mapping(self) -> dict[str, Any]:
        """Return the recipe as plain data, ready for JSON or YAML; `recipe_from_mapping` turns it back."""
        document: dict[str, Any] = {"merge_method": self.method}
        if self.base is not None:
            document["base_model"] = self.base
        if self.models:
            document["models"] = [_source_mapping(source) for source in self.models]
        if self.slices:
            document["slices"] = [_slice_mapping(part) for part in self.slices]
        if self.parameters:
            document["parameters"] = _parameters_mapping(self.parameters)
        for key in ("dtype", "out_dtype", "tokenizer_source", "chat_template"):
            if getattr(self, key) is not None:
                document[key] = getattr(self, key)
        if self.tokenizer is not None:
            document["tokenizer"] = self.tokenizer.to_mapping()
        if self.mask_seed:
            document["mask_seed"] = self.mask_seed
        if self.revisions:
            document["revisions"] = dict(self.revisions)
        if self.route is not None:
            document["route"] = [list(hop) for hop in self.route]
        return document

    def _repr_html_(self) -> str:
        from evomerge._markup import element, tree

        document = self.to_mapping()
        document.pop("revisions", None)  # long, and covered by the digest
        title = element("p", {}, f"{self.method} merge of {len(self.references())} models, digest {self.digest[:16]}")
        return element("div", {}, title, tree(document))

    def to_mergekit(self) -> dict[str, Any]:
        """Return the part that mergekit reads; what only evomerge knows (mask seed, revisions) is left out."""
        document = self.to_mapping()
        for key in ("mask_seed", "revisions", "route"):
            document.pop(key, None)
        return _map_models(document, _as_mergekit_reads_it)


def evaluate_setting(setting: _Setting, tensor: str, t: float) -> Scalar | None:
    """Return the value of a parameter for one tensor, or None where no filter matches.

    Numbers in a list are a piecewise-linear curve over depth; other scalars in a list are picked, not mixed. The
    order of the arithmetic is mergekit's, so that both tools round alike.

    Args:
        setting: scalar, gradient, or conditionals of which the first match counts.
        tensor: full name of the tensor, in which filters are looked for.
        t: depth in [0, 1]; 0 for tensors outside the layers.

    >>> evaluate_setting((0.0, 1.0, 0.0), "model.layers.1.mlp.up_proj.weight", 0.25)
    0.5
    """
    if not isinstance(setting, tuple):
        return setting
    if not setting:
        return None
    if isinstance(setting[0], Conditional):
        for condition in setting:
            assert isinstance(condition, Conditional)
            # a substring, as in mergekit; no pattern
            if condition.filter in (None, "*") or str(condition.filter) in tensor:
                return evaluate_setting(condition.value, tensor, t)
        return None
    scaled = t * (len(setting) - 1)  # index into the list, with a fraction between two entries
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in setting):
        return setting[int(scaled)]  # rounds down: mergekit's rule for names
    below = int(scaled)
    above = min(len(setting) - 1, below + 1)  # t = 1 is the last entry itself
    fraction = scaled - below
    return (1 - fraction) * setting[below] + fraction * setting[above]  # type: ignore[operator]


def _freeze_setting(value: Any) -> _Setting:
    """Return plain YAML data as a setting; the caller has checked its form. Whole floats stay floats."""
    if isinstance(value, Mapping):
        return (_freeze_conditional(value),)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(entry, Mapping) for entry in value):
            return tuple(_freeze_conditional(entry) for entry in value)
        return tuple(_number(entry) for entry in value)
    return _number(value)


def _freeze_parameters(parameters: Mapping[str, Any] | None) -> Parameters:
    """Return a mapping of parameters in frozen form, sorted by name."""
    return tuple(sorted((name, _freeze_setting(value)) for name, value in (parameters or {}).items()))


def recipe_from_mapping(document: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `to_mapping` gave as `document`; the form has been checked (see `config`).

    >>> recipe = recipe_from_mapping({
    ...     "merge_method": "linear",
    ...     "models": [{"model": "org/math", "parameters": {"weight": 0.5}}, {"model": "org/code"}],
    ...     "parameters": {"weight": 1.0},
    ... })
    >>> recipe.references()
    ('org/math', 'org/code')
    """
    document = plain_models(document)
    base = document.get("base_model")
    return Recipe(
        method=document["merge_method"],
        base=base,
        models=tuple(_freeze_source(entry) for entry in document.get("models") or ()),
        slices=tuple(
            Slice(
                tuple(_freeze_source(entry) for entry in part["sources"]),
                part.get("base_model"),
                _freeze_parameters(part.get("parameters")),
            )
            for part in document.get("slices") or ()
        ),
        parameters=_freeze_parameters(document.get("parameters")),
        dtype=document.get("dtype"),
        out_dtype=document.get("out_dtype"),
        tokenizer_source=document.get("tokenizer_source"),
        tokenizer=choice_of(document.get("tokenizer")),
        chat_template=document.get("chat_template"),
        mask_seed=int(document.get("mask_seed") or 0),
        revisions=tuple(sorted((document.get("revisions") or {}).items())),
        route=_freeze_route(document.get("route")),
    )


def passthrough(model: str, dtype: str | None = None) -> Recipe:
    """Return the recipe of one model as it is: how parents are scored beside their merges.

    Args:
        model: folder, hub id, hub id@revision, or model+adapter.
        dtype: of the weights, as in 'bfloat16'; None: the model's own.
    """
    return Recipe(method="passthrough", models=(Source(model),), dtype=dtype)


def _freeze_source(entry: Mapping[str, Any]) -> Source:
    layers = entry.get("layer_range")
    return Source(
        entry["model"],
        _freeze_parameters(entry.get("parameters")),
        (int(layers[0]), int(layers[1])) if layers else None,
    )


def _freeze_conditional(entry: Mapping[str, Any]) -> Conditional:
    value = entry["value"]
    frozen = tuple(_number(part) for part in value) if isinstance(value, (list, tuple)) else _number(value)
    return Conditional(frozen, entry.get("filter"))


def _freeze_route(route: Any) -> tuple[tuple[str, int, float], ...] | None:
    if route is None:
        return None
    return tuple((str(source), int(layer), float(scale)) for source, layer, scale in route)


def _number(value: Any) -> Scalar:
    # 1 and 1.0 are one weight and must give one digest; booleans are ints in Python and must stay what they are
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Conditional):
        plain = {"filter": value.filter} if value.filter is not None else {}
        return {**plain, "value": _plain(value.value)}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _parameters_mapping(parameters: Parameters) -> dict[str, Any]:
    return {name: _plain(setting) for name, setting in parameters}


def _source_mapping(source: Source) -> dict[str, Any]:
    mapping: dict[str, Any] = {"model": source.model}
    if source.layers is not None:
        mapping["layer_range"] = list(source.layers)
    if source.parameters:
        mapping["parameters"] = _parameters_mapping(source.parameters)
    return mapping


def _slice_mapping(part: Slice) -> dict[str, Any]:
    mapping: dict[str, Any] = {"sources": [_source_mapping(source) for source in part.sources]}
    if part.base is not None:
        mapping["base_model"] = part.base
    if part.parameters:
        mapping["parameters"] = _parameters_mapping(part.parameters)
    return mapping


def _rename_models(document: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return `document` with every model replaced by its revision where that is known."""
    return _map_models(document, lambda model: names.get(model, model))


def _map_models(document: dict[str, Any], change: Callable[[str], Any]) -> dict[str, Any]:
    """Return `document` with every model changed."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: change(value) if key in MODEL_KEYS and isinstance(value, str) else walk(value)
                for key, value in node.items()
            }
        return [walk(entry) for entry in node] if isinstance(node, list) else node

    changed: dict[str, Any] = walk(document)
    return changed


def _as_mergekit_reads_it(model: str) -> Any:
    reference = parse(model)
    return model if reference is None else reference.to_mergekit()
