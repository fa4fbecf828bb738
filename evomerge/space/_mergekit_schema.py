"""The schema of a mergekit document: its keys, models and slices. `expansion` checks the parameters' meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from evomerge._model_reference import HUB_ID, absolute, is_folder, parse
from evomerge._tokenizer import BASE, UNION, problems_of
from evomerge.errors import near
from evomerge.merge import CATALOGUE
from evomerge.space._markers import is_marker, is_whole
from evomerge.space._problems import Place, Problem

DTYPES = ("float32", "bfloat16", "float16")
MERGE_KEYS = {
    "merge_method": "merge method: " + ", ".join(CATALOGUE),
    "base_model": "the common ancestor; folder, hub id, hub id@revision, or model+adapter",
    "models": "the models to merge, each {model: ..., parameters: {...}}",
    "slices": "instead of models: runs of layers, each {sources: [{model: ..., layer_range: [first, end]}]}",
    "parameters": "parameters of the method; a model or slice overrides them",
    "dtype": "dtype of the merge arithmetic: " + ", ".join(DTYPES),
    "out_dtype": "dtype of the written weights; default: dtype",
    "tokenizer_source": "tokenizer of the result: base, union, or a model",
    "tokenizer": "instead of tokenizer_source: {source: ..., tokens: {...}, pad_to_multiple_of: ...}",
    "chat_template": "chat template of the written tokenizer",
    "mask_seed": "seed of the random masks (DARE, DELLA); evomerge's own key",
}
RECIPE_KEYS = {
    **MERGE_KEYS,
    "revisions": "content or commit id per model; evomerge's own key",
    "route": "layers in order, each [source, layer, input scale]; evomerge's own key",
}
MODEL_KEYS = ("model", "parameters")
SOURCE_KEYS = ("model", "layer_range", "parameters")
SLICE_KEYS = ("sources", "base_model", "parameters")
REFUSED = {
    "modules": "parts of multi-modal models are not merged separately in this version; write models or slices",
    "residual_weight": "mergekit reads this key and ignores it; remove it",
    "route": "route is a separate section of a search file; move it beside merge",
}
_PATHLIKE = re.compile(r"[./~]")  # a hub id cannot begin with these


def check_form(document: Mapping[str, Any], place: Place = (), *, recipe: bool = False) -> list[Problem]:
    """Return what is wrong with the form of a mergekit document, which may hold markers unless it is a recipe."""
    problems: list[Problem] = []
    problems += _unknown(document, tuple(RECIPE_KEYS if recipe else MERGE_KEYS), place)
    problems += _method(document.get("merge_method"), (*place, "merge_method"))
    given = [key for key in ("models", "slices") if document.get(key) is not None]
    if len(given) != 1:
        if not set(document) & {"modules"}:  # `_unknown` refuses modules with a better message
            problems.append(
                Problem(place, f"exactly one of models and slices is needed, got {' and '.join(given) or 'neither'}")
            )
    elif given == ["models"]:
        problems += _entries(document["models"], MODEL_KEYS, (*place, "models"))
    else:
        problems += _slices(document["slices"], (*place, "slices"))
    for key in ("base_model", "tokenizer_source", "chat_template"):
        problems += _text(document, key, place)
    for key in ("dtype", "out_dtype"):
        problems += _dtype(document.get(key), (*place, key))
    if document.get("tokenizer") is not None:
        problems += [Problem((*place, "tokenizer", *at), text) for at, text in problems_of(document["tokenizer"])]
        if document.get("tokenizer_source") is not None:
            problems.append(Problem((*place, "tokenizer"), "give tokenizer or tokenizer_source, not both"))
    seed = document.get("mask_seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:  # YAML's `true` is an int in Python
        problems.append(Problem((*place, "mask_seed"), f"must be a whole number of at least 0, got {seed!r}"))
    revisions = document.get("revisions") or {}
    if not isinstance(revisions, Mapping) or not all(isinstance(entry, str) for entry in revisions.values()):
        text = f"must map model names to content or commit ids, got {revisions!r}"
        problems.append(Problem((*place, "revisions"), text))
    problems += _parameters(document, place)
    return problems


def model_places(document: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield every place below `document` that names a model, with the name; the form has been checked."""
    if isinstance(document.get("base_model"), str):
        yield ("base_model",), document["base_model"]
    # two words are no model
    if isinstance(document.get("tokenizer_source"), str) and document["tokenizer_source"] not in (BASE, UNION):
        yield ("tokenizer_source",), document["tokenizer_source"]
    yield from _tokenizer_places(document.get("tokenizer") or {})
    for index, entry in enumerate(document.get("models") or ()):
        yield ("models", index, "model"), entry["model"]
    for index, part in enumerate(document.get("slices") or ()):
        if isinstance(part.get("base_model"), str):
            yield ("slices", index, "base_model"), part["base_model"]
        for source, entry in enumerate(part["sources"]):
            yield ("slices", index, "sources", source, "model"), entry["model"]


def _tokenizer_places(tokenizer: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    if tokenizer.get("source", UNION) not in (BASE, UNION):
        yield ("tokenizer", "source"), tokenizer["source"]
    for token, entry in (tokenizer.get("tokens") or {}).items():
        source = entry["source"]
        if isinstance(source, str):
            yield ("tokenizer", "tokens", token, "source"), source
        elif "model" in source:
            yield ("tokenizer", "tokens", token, "source", "model"), source["model"]


def resolve_model(text: str, folder: str) -> tuple[str, str | None]:
    """Return a model's name with folders made absolute, and what is wrong with it or None.

    Args:
        text: folder, hub id, either with @revision, and a second one after '+' for an adapter.
        folder: relative folders are resolved against it. Hub ids are kept as they are: no network access.
    """
    reference = parse(text, folder)
    if reference is None:
        return text, f"must be a model, model@revision or model+adapter, got {text!r}"
    resolved: list[str] = []
    for path in (reference.path, *([] if reference.adapter is None else [reference.adapter])):
        if is_folder(path, folder):
            resolved.append(absolute(path, folder))
        # refused here: the hub would answer with a puzzling 404
        elif _PATHLIKE.match(path) or not HUB_ID.fullmatch(path):
            where = absolute(path, folder)
            return text, f"no such folder: {where}; relative paths are relative to the file, hub ids are org/name"
        else:
            resolved.append(path)
    return str(replace(reference, path=resolved[0], adapter=resolved[1] if resolved[1:] else None)), None


def short_names(models: list[str]) -> dict[str, str]:
    """Return a short name per model, after its folder, repository or adapter; equal ones get their parent in front.

    >>> short_names(["/x/add", "org/base-math@91c0", "org/base+/x/lora"])
    {'/x/add': 'add', 'org/base-math@91c0': 'base-math', 'org/base+/x/lora': 'lora'}
    >>> short_names(["v1/add", "v2/add"])
    {'v1/add': 'v1-add', 'v2/add': 'v2-add'}
    """
    paths = {model: _steps(model) for model in models}
    names: dict[str, str] = {}
    for model, path in paths.items():
        # a suffix must tell the model from all others
        rivals = [other for name, other in paths.items() if name != model]
        size = 1
        while size < len(path) and any(other[-size:] == path[-size:] for other in rivals):
            size += 1
        names[model] = "-".join(path[-size:]) or model
    for index, (model, name) in enumerate(list(names.items())):  # two revisions, or two bases of one adapter
        if list(names.values()).count(name) > 1:
            names[model] = f"{name}-{index}"
    return names


def _steps(model: str) -> list[str]:
    """Return the folders of a model's name, or its adapter's, from the name alone: it may be of another machine."""
    last = model.split("+")[-1]
    # a folder keeps an '@' above its last step; behind a hub id everything is the revision
    head, slash, tail = last.rpartition("/") if last.startswith("/") else ("", "", last)
    return [step for step in (head + slash + (tail.partition("@")[0] or tail)).split("/") if step]


def _unknown(entry: Mapping[str, Any], known: tuple[str, ...], place: Place) -> list[Problem]:
    return [
        Problem((*place, key), REFUSED[key] if key in REFUSED else f"unknown key. {near(key, known)}")
        for key in entry
        if key not in known
    ]


def _method(value: Any, place: Place) -> list[Problem]:
    if value is None:
        return [Problem(place, f"merge_method is missing. Known: {', '.join(CATALOGUE)}.")]
    if is_marker(value):
        return []  # its choices are checked where the marker is read
    if not isinstance(value, str) or value not in CATALOGUE:
        return [Problem(place, f"unknown merge method {value!r}. {near(str(value), CATALOGUE)}")]
    return []


def _dtype(value: Any, place: Place) -> list[Problem]:
    if value is None or is_marker(value) or value in DTYPES:
        return []
    return [Problem(place, f"unknown dtype {value!r}. {near(str(value), DTYPES)}")]


def _text(entry: Mapping[str, Any], key: str, place: Place) -> list[Problem]:
    value = entry.get(key)
    if value is None or (isinstance(value, str) and value):
        return []
    if is_marker(value):
        return [Problem((*place, key), f"{key} cannot be searched; name one")]
    return [Problem((*place, key), f"must be a name, got {value!r}")]


def _parameters(entry: Mapping[str, Any], place: Place) -> list[Problem]:
    value = entry.get("parameters")
    if value is None or isinstance(value, Mapping):
        return []
    return [Problem((*place, "parameters"), f"must map parameters to values, got {value!r}")]


def strange_parameters(node: Any, place: Place) -> list[Problem]:
    """Return problems for parameters, anywhere below `node`, that no method has; needs no known method."""
    if isinstance(node, list):
        return [problem for index, entry in enumerate(node) for problem in strange_parameters(entry, (*place, index))]
    if not isinstance(node, Mapping):
        return []
    # merge_method may be searched or misspelt
    known = {p.name for method in CATALOGUE.values() for p in method.parameters}
    known |= {name for method in CATALOGUE.values() for name in method.ignored}
    names = node.get("parameters")
    found = [
        Problem((*place, "parameters", name), f"no merge method has this parameter. {near(str(name), sorted(known))}")
        for name in (names if isinstance(names, Mapping) else ())
        if name not in known
    ]
    for key in ("models", "slices", "sources"):
        found += strange_parameters(node.get(key), (*place, key))
    return found


def _entries(entries: Any, keys: tuple[str, ...], place: Place) -> list[Problem]:
    if not isinstance(entries, list) or not entries:
        return [Problem(place, f"must be a list of at least one {{model: ...}}, got {entries!r}")]
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        at = (*place, index)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str) or not entry["model"]:
            problems.append(Problem(at, f"must be {{model: folder or hub id}}, got {entry!r}"))
            continue
        if "layer_range" in entry and "layer_range" not in keys:
            problems.append(
                Problem((*at, "layer_range"), "layer_range belongs to sources of slices; mergekit ignores it here")
            )
        problems += [p for p in _unknown(entry, keys, at) if p.place[-1] != "layer_range"]
        problems += _parameters(entry, at)
        if entry["model"] in seen:  # mergekit would give both entries the parameters of one of them
            text = f"{entry['model']!r} is listed already, as entry {seen[entry['model']]}; list each model once"
            problems.append(Problem((*at, "model"), text))
        seen.setdefault(entry["model"], index)
    return problems


def _slices(slices: Any, place: Place) -> list[Problem]:
    if not isinstance(slices, list) or not slices:
        return [Problem(place, f"must be a list of at least one {{sources: [...]}}, got {slices!r}")]
    problems: list[Problem] = []
    for index, part in enumerate(slices):
        at = (*place, index)
        if not isinstance(part, Mapping) or "sources" not in part:
            problems.append(Problem(at, f"must be {{sources: [...]}}, got {part!r}"))
            continue
        problems += _unknown(part, SLICE_KEYS, at)
        problems += _text(part, "base_model", at)
        problems += _parameters(part, at)
        problems += _entries(part["sources"], SOURCE_KEYS, (*at, "sources"))
        if isinstance(part["sources"], list) and all(isinstance(source, Mapping) for source in part["sources"]):
            problems += _layer_ranges(part["sources"], (*at, "sources"))
    return problems


def _layer_ranges(sources: list[Mapping[str, Any]], place: Place) -> list[Problem]:
    problems: list[Problem] = []
    lengths: set[int] = set()
    for index, source in enumerate(sources):
        at, bounds = (*place, index, "layer_range"), source.get("layer_range")
        if not isinstance(bounds, list) or len(bounds) != 2:
            problems.append(Problem(at, f"must be [first, end], got {bounds!r}; end is not included"))
        elif any(is_marker(bound) for bound in bounds):  # their range is checked in `expansion`, which knows the genes
            if len(sources) > 1:
                problems.append(
                    Problem(at, "searched bounds need a slice of one source, as all sources must be equally long")
                )
        elif not all(is_whole(bound) for bound in bounds) or not 0 <= bounds[0] < bounds[1]:
            problems.append(Problem(at, f"must be whole numbers with 0 <= first < end, got {bounds!r}"))
        else:
            lengths.add(int(bounds[1] - bounds[0]))  # layers are merged pairwise, the first with the first
    if len(lengths) > 1:
        text = f"all sources of a slice must be equally long, got {sorted(lengths)} layers"
        problems.append(Problem(place, text))
    return problems
