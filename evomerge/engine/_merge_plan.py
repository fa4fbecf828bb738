"""Merge plan: for every tensor of the merged model, its input tensors, method and parameter values.

Parameters are resolved as mergekit does (precedence, filters, gradients over depth), so that a recipe gives the same
weights there and here. No weights are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evomerge.checkpoints import Layout, Role
from evomerge.errors import WeightsError, near
from evomerge.merge import Method, method
from evomerge.recipe import Parameters, Recipe, Slice, Source, evaluate_setting

DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Input:
    """One tensor of one parent, of any shape."""

    model: str  # as the recipe writes it
    tensor: str


@dataclass(frozen=True)
class Fold:
    """Affine map of a merged tensor, of any shape, before it is rounded: (tensor + offset) * scale - offset."""

    scale: float
    offset: float = 0.0  # 1 for norms that multiply by weight + 1 (Gemma)


@dataclass(frozen=True)
class TensorOp:
    """One tensor of the merged model: inputs, method, parameters, shape and dtype of the result."""

    name: str  # tensor name in the merged model
    shape: tuple[int, ...]
    dtype: str  # dtype of the result, torch's name
    method: str  # a method of the catalogue; "" copies a buffer
    inputs: tuple[Input, ...]  # ordered like per-model parameters; without the base where the method has one
    base: Input | None
    parameters: Mapping[str, Any]  # a tuple per per-model parameter, one value otherwise
    role: Role
    via: str | None = None  # dtype to which the result is rounded before `dtype`
    mask_seed: int = 0
    fold: Fold | None = None  # a route's entry scales, see route_fold

    @property
    def sources(self) -> tuple[Input, ...]:
        """Every tensor that is read, all of one shape, base first."""
        return self.inputs if self.base is None else (self.base, *self.inputs)


@dataclass(frozen=True)
class _Context:
    """Context of a tensor in the recipe: its slice, its inputs, and its relative depth in [0, 1]."""

    part: Slice
    output: str
    inputs: tuple[tuple[Source, str], ...]  # (source, name of the tensor in it)
    depth: float


def donor_of(recipe: Recipe) -> str:
    """Return the model whose configuration and tokenizer the merged model takes: the base, else the first one."""
    return recipe.references()[0]  # references list the base first


def merged_part(recipe: Recipe) -> Recipe:
    """Return what a recipe merges: the recipe without its route.

    Passthrough of several models makes no merge, only a route joins their layers. What is outside the layers is then
    that of the base, else of the first model.
    """
    if recipe.route is None:
        return recipe
    if not lends_only(recipe):
        return replace(recipe, route=None)
    donor = donor_of(recipe)
    listed = next((source for source in recipe.models if source.model == donor), Source(donor))
    return replace(recipe, route=None, models=(listed,), base=None)


def lends_only(recipe: Recipe) -> bool:
    """Return whether a recipe merges nothing: passthrough of several models, whose layers a route joins."""
    return recipe.method == "passthrough" and not recipe.slices and len(recipe.references()) > 1


def layer_sources(recipe: Recipe, layouts: Mapping[str, Layout]) -> list[tuple[str, int]]:
    """Return the first source (model, layer) of every layer of the merge, (layers,), without any route."""
    sources = [part.sources[0] for part in _parts(recipe, layouts)]
    return [(source.model, layer) for source in sources for layer in range(*_range(source, layouts))]


def sources_outside(recipe: Recipe, layouts: Mapping[str, Layout], tensor: str) -> list[str]:
    """Return the models that a tensor outside the layers is merged from, the base included, in the recipe's order."""
    parts = _parts(recipe, layouts)
    part = parts[0] if layouts[donor_of(recipe)].before_layers(tensor) else parts[-1]
    return [source.model for source in part.sources if tensor in layouts[source.model].tensors]


def steps_of(recipe: Recipe, layouts: Mapping[str, Layout]) -> list[TensorOp]:
    """Return the merge plan, (tensors,): one step per tensor, with shape and dtype; a route is left out.

    Args:
        recipe: what to merge.
        layouts: of every model that the recipe names, by the names it uses.

    Raises:
        WeightsError: models do not fit each other, or the recipe asks for what merging weights cannot do.
        MergeError: unknown method, or a parameter without a value.
    """
    recipe = merged_part(recipe)  # a route is added afterwards, over these steps
    entry = method(recipe.method)
    for name in (recipe.dtype, recipe.out_dtype):
        if name is not None and name not in DTYPES:
            raise WeightsError(f"unknown dtype {name!r} of the merged weights. {near(name, DTYPES)}")
    _check_heads(recipe, layouts)
    return [_step(context, recipe, entry, layouts) for context in _contexts(recipe, layouts)]


def _parts(recipe: Recipe, layouts: Mapping[str, Layout]) -> list[Slice]:
    """Return the merge's slices, (slices,); a list of models is one slice over all layers."""
    recipe = merged_part(recipe)
    if recipe.slices:
        return list(recipe.slices)
    models = [source.model for source in recipe.models]
    counts = {model: layouts[model].layers for model in ([recipe.base] if recipe.base else []) + models}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"'{model}' {count}" for model, count in counts.items())
        raise WeightsError(f"models of one merge must have the same number of layers, got {found}; use slices")
    sources = [replace(source, layers=(0, layouts[source.model].layers)) for source in recipe.models]
    if recipe.base is not None and recipe.base not in models:
        # mergekit counts an unlisted base as one of the models
        sources.append(Source(recipe.base, layers=(0, layouts[recipe.base].layers)))
    return [Slice(tuple(sources))]  # from here on there are only slices


def _range(source: Source, layouts: Mapping[str, Layout]) -> tuple[int, int]:
    layers = layouts[source.model].layers
    first, end = source.layers or (0, layers)
    if not 0 <= first < end <= layers:
        raise WeightsError(
            f"layer_range of '{source.model}': expected 0 <= first < end <= {layers}, got [{first}, {end}]"
        )
    return first, end


def _contexts(recipe: Recipe, layouts: Mapping[str, Layout]) -> Iterator[_Context]:
    parts = _parts(recipe, layouts)
    yield from _outside(parts[0], layouts, before=True)
    offset = 0
    for part in parts:
        ranges = [_range(source, layouts) for source in part.sources]
        lengths = {end - first for first, end in ranges}  # layers are paired by their order within the slice
        if len(lengths) != 1:
            found = ", ".join(f"'{s.model}' [{a}, {b}]" for s, (a, b) in zip(part.sources, ranges, strict=True))
            raise WeightsError(f"sources of one slice must have equally many layers, got {found}")
        length = lengths.pop()
        for index in range(length):
            # mergekit's rule: a slice of one layer stands at the end of its gradient
            depth = index / (length - 1) if length > 1 else 1.0
            yield from _layer(part, [first + index for first, _ in ranges], offset + index, depth, layouts)
        offset += length
    yield from _outside(parts[-1], layouts, before=False)


def _outside(part: Slice, layouts: Mapping[str, Layout], *, before: bool) -> Iterator[_Context]:
    """Yield the tensors before the first layer (rows, width), or after the last; their depth is 0, as in mergekit."""
    every = [layouts[source.model] for source in part.sources]
    # what any source has all must have: a tensor that the first one lacks must not vanish silently
    for name in dict.fromkeys(name for layout in every for name in layout.by_layer.get(None, ())):
        if every[0].before_layers(name) == before:
            yield _Context(part, name, tuple((source, name) for source in part.sources), 0.0)


def _layer(
    part: Slice, layers: Sequence[int], output: int, depth: float, layouts: Mapping[str, Layout]
) -> Iterator[_Context]:
    every = [layouts[source.model] for source in part.sources]
    names = (
        layout.in_layer(name, output)
        for layout, layer in zip(every, layers, strict=True)
        for name in layout.by_layer[layer]
    )
    for name in dict.fromkeys(names):  # the union, in the order of the first source that has it
        inputs = tuple(
            # names differ between sources in the layer's number only
            (source, every[0].in_layer(name, layer))
            for source, layer in zip(part.sources, layers, strict=True)
        )
        yield _Context(part, name, inputs, depth)


def _step(context: _Context, recipe: Recipe, entry: Method, layouts: Mapping[str, Layout]) -> TensorOp:
    _check_shapes(context, layouts)
    first_source, first_name = context.inputs[0]
    layout = layouts[first_source.model]
    base_model = context.part.base or recipe.base
    inputs, base = _split_base(context, entry, base_model, recipe)
    if first_name in layout.buffers:
        info = layout.buffers[first_name]
        every = tuple(Input(source.model, name) for source, name in context.inputs)
        return TensorOp(context.output, info.shape, info.dtype, "", every, None, {}, "vector")
    parameters = _parameters(context, recipe, entry, inputs)
    return TensorOp(
        context.output,
        layout.tensors[first_name].shape,
        recipe.out_dtype or recipe.dtype or layouts[donor_of(recipe)].dtype,
        entry.name,
        tuple(Input(source.model, name) for source, name in inputs),
        base,
        parameters,
        layout.role_of(first_name),  # the same for all sources: their shapes are equal
        recipe.dtype if recipe.out_dtype else None,
        recipe.mask_seed,
    )


def _split_base(
    context: _Context, entry: Method, base_model: str | None, recipe: Recipe
) -> tuple[list[tuple[Source, str]], Input | None]:
    """Return the inputs, (models,), without the base, and the base; a method without a base keeps it as an input."""
    found = [name for source, name in context.inputs if source.model == base_model]
    if entry.base == "none":
        return [pair for pair in context.inputs if not _added(pair[0], context, recipe, entry)], None
    if not found:
        if entry.base == "required":
            what = f"slice sources name no '{base_model}'" if base_model else "no base_model"
            raise WeightsError(f"merge method {entry.name} needs the base model in every slice, found {what}")
        return list(context.inputs), None
    return [pair for pair in context.inputs if pair[0].model != base_model], Input(str(base_model), found[0])


def _added(source: Source, context: _Context, recipe: Recipe, entry: Method) -> bool:
    """True for a base that is not listed and is given no weight: it lends configuration and tokenizer only.

    mergekit takes an unlisted base as one more model under the global weight, and refuses the file if there is none.
    """
    if recipe.slices or source.model != recipe.base or any(listed.model == recipe.base for listed in recipe.models):
        return False
    names = [parameter.name for parameter in entry.parameters if parameter.per_model]
    return not names or any(_lookup([recipe.parameters], name, context.output, context.depth) is None for name in names)


def _parameters(
    context: _Context, recipe: Recipe, entry: Method, inputs: Sequence[tuple[Source, str]]
) -> dict[str, Any]:
    shared: list[Parameters] = [context.part.parameters, recipe.parameters]
    # passthrough has one source, so what stands under the source is as good as what stands above it
    above = [inputs[0][0].parameters, *shared] if entry.models == (1, 1) and entry.base == "none" else shared
    values: dict[str, Any] = {}
    for parameter in entry.parameters:
        if not parameter.per_model:
            value = _lookup(above, parameter.name, context.output, context.depth)
            if value is not None:
                values[parameter.name] = value
            continue
        found = []
        for source, name in inputs:
            value = _lookup([source.parameters, *shared], parameter.name, name, context.depth)
            value = parameter.default if value is None else value  # per model, so that one may leave it out
            if value is None:
                raise WeightsError(
                    f"merge method {entry.name}: parameter {parameter.name} has no value for tensor '{name}' of model "
                    f"'{source.model}'; set it under the model or under parameters, without a filter or with '*'"
                )
            found.append(value)
        values[parameter.name] = tuple(found)
    return values


def _lookup(scopes: Sequence[Parameters], parameter: str, tensor: str, depth: float) -> Any:
    """Return the first scope's value that applies to a tensor, or None."""
    for scope in scopes:
        settings = dict(scope)  # scopes go from the narrowest to the widest
        if parameter in settings:
            value = evaluate_setting(settings[parameter], tensor, depth)
            if value is not None:
                return value
    return None


def _check_shapes(context: _Context, layouts: Mapping[str, Layout]) -> None:
    shapes = [(source.model, name, _shape(layouts[source.model], name)) for source, name in context.inputs]
    owner, _, expected = next(entry for entry in shapes if entry[2] is not None)  # the first source that has the tensor
    for model, name, shape in shapes:
        if shape is None:
            raise WeightsError(f"tensor '{name}': '{owner}' has it, '{model}' lacks it")
        if shape != expected:
            raise WeightsError(f"tensor '{name}': '{owner}' is {expected}, '{model}' is {shape}")


def _shape(layout: Layout, name: str) -> tuple[int, ...] | None:
    info = layout.tensors.get(name) or layout.buffers.get(name)
    return None if info is None else info.shape


def _check_heads(recipe: Recipe, layouts: Mapping[str, Layout]) -> None:
    donor, *others = recipe.references()
    for other in others:
        if layouts[other].tied != layouts[donor].tied:
            words = {True: "ties its output head to the embedding", False: "has an output head of its own"}
            raise WeightsError(
                f"'{donor}' {words[layouts[donor].tied]}, '{other}' {words[layouts[other].tied]}; only models that "
                "agree can be merged (tie_word_embeddings in config.json)"
            )
