"""A `route` section as plain values, and everything that can be wrong with it.

A route is the order in which layers run: a sequence of hops (source, layer, entry scale). A preset defines the
routes of a search (see `route_paths`), `scales` the factors between two layers (see `route_scales`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from evomerge.errors import near
from evomerge.space._markers import is_marker, is_whole
from evomerge.space._mergekit_schema import short_names
from evomerge.space._problems import Place, Problem

MERGED = "merged"  # the source that is the result of the merge section
BASE = "base"  # an alias in search files for base_model
PRESETS: Mapping[str, tuple[str, ...]] = {  # preset -> options that mean something in it, beside those of every preset
    "indicators": ("repeats", "min_layers", "keep_first", "keep_last"),
    "select": ("min_layers", "keep_first", "keep_last"),
    "repeat_block": ("times", "keep_first", "keep_last"),
    "interleave": (),
    "swap": ("keep_first", "keep_last"),
}
SCALE_FORMS = ("slot", "table", "network", "jump")
_ONE_SOURCE = ("select", "repeat_block")  # presets that rearrange a single stack
_EQUALLY_DEEP = ("interleave", "swap")  # presets that exchange layers of the same depth
_EVERYWHERE = ("sources", "preset", "scales", "scale_by", "hidden", "max_layers", "start")


@dataclass(frozen=True)
class RouteRequest:
    """A route section, complete. `depths` holds the number of layers of every source."""

    sources: tuple[str, ...]  # 'merged', or a model as it stands in the merge section
    depths: Mapping[str, int]
    names: Mapping[str, str]  # source -> short name, for genes and messages
    preset: str = "indicators"
    repeats: int = 1  # how often every source's stack appears among the slots
    scales: tuple[float, float] | None = None  # smallest and largest entry scale
    scale_by: str = "slot"
    hidden: int = 4  # units of the network that makes scales
    min_layers: int = 1
    max_layers: int | None = None
    keep_first: int = 0  # layers of the first source that begin every route
    keep_last: int = 0  # layers of the first source that end every route
    times: int = 3  # most runs of a repeated block
    start: str = ""  # the source whose own stack is the start

    @property
    def stacks(self) -> list[tuple[str, int]]:
        """Every layer of every source, in order: the layers 0 ... M - 1 of the table of scales."""
        return [(source, layer) for source in self.sources for layer in range(self.depths[source])]


def sources_of(merge: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sources that a route may name: `merged` where the merge makes one model, the base, and the models."""
    listed = [entry["model"] for entry in merge.get("models") or ()]
    listed += [entry["model"] for part in merge.get("slices") or () for entry in part["sources"]]
    base = merge.get("base_model")
    models = tuple(dict.fromkeys([*([base] if base else []), *listed]))
    return models if only_lends(merge) else (MERGED, *models)


def only_lends(merge: Mapping[str, Any]) -> bool:
    """True where the merge section only lists models: `passthrough` of several makes no model without a route."""
    named = {entry["model"] for entry in merge.get("models") or ()}
    if merge.get("base_model"):
        named.add(merge["base_model"])
    return merge.get("merge_method") == "passthrough" and not merge.get("slices") and len(named) > 1


def plain_source(merge: Mapping[str, Any]) -> str:
    """Return the source whose own stack, with all scales 1, is the merge without a route.

    Of models that only lend their layers it is the base, else the first: embedding, final norm and head are its own.
    """
    return str(merge.get("base_model") or merge["models"][0]["model"]) if only_lends(merge) else MERGED


def default_sources(merge: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the listed models for passthrough, else the merged model and the models."""
    if merge.get("merge_method") == "passthrough" and merge.get("models"):
        return tuple(entry["model"] for entry in merge["models"])
    return (MERGED, *(source for source in sources_of(merge) if source not in (MERGED, merge.get("base_model"))))


def named_sources(
    route: Mapping[str, Any], merge: Mapping[str, Any], written: Mapping[str, str], place: Place
) -> tuple[dict[str, Any], list[Problem]]:
    """Return a route section with its sources named as in the merge section, and the problems of their names.

    Args:
        route: the section's values, as far as they were given.
        merge: the merge section, with folders made absolute.
        written: model as the user wrote it in the merge section -> as it stands there now.
        place: where the route section stands.
    """
    problems: list[Problem] = []
    known = sources_of(merge)
    models = [source for source in known if source != MERGED]
    words = {name: model for model, name in short_names(models).items()}  # a source may be given by any of its names
    words |= {model: model for model in models} | dict(written)
    if merge.get("base_model"):
        words[BASE] = merge["base_model"]
    if MERGED in known:
        words[MERGED] = MERGED

    def resolve(name: str, at: Place) -> str:
        if name in words:
            return words[name]
        if name == MERGED:
            text = "passthrough of several models has no merged model; name the models, or set a merge method"
        else:
            shown = [*([MERGED] if MERGED in known else []), *([BASE] if BASE in words else [])]
            text = f"unknown source {name!r}. {near(name, dict.fromkeys([*shown, *short_names(models).values()]))}"
        problems.append(Problem(at, text))
        return name

    sources = [
        resolve(name, (*place, "sources", index)) for index, name in enumerate(route.get("sources") or ())
    ] or list(default_sources(merge))
    for index, source in enumerate(sources):
        if source in sources[:index]:
            text = f"{source!r} is listed already; name a source once (repeats: N gives further copies)"
            problems.append(Problem((*place, "sources", index), text))
    result = {**route, "sources": sources}
    if route.get("start") is not None:
        result["start"] = resolve(route["start"], (*place, "start"))
        if not problems and result["start"] not in sources:  # an unknown source is already reported
            text = (
                f"must be one of route.sources ({', '.join(route.get('sources') or sources)}), got {route['start']!r}"
            )
            problems.append(Problem((*place, "start"), text))
    return result, problems


def form_problems(route: Mapping[str, Any], merge: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    """Yield what is wrong with a section whatever the depth of the models; its sources have been resolved."""
    preset, sources = route.get("preset", "indicators"), route["sources"]
    if preset not in PRESETS:
        return
    for key in route:
        if key not in (*_EVERYWHERE, *PRESETS[preset]):
            yield Problem((*place, key), f"has no meaning in preset {preset}; remove it")
    if preset in _ONE_SOURCE and len(sources) > 1:
        text = f"preset {preset} rearranges one stack, got {len(sources)} sources; keep one, or use preset indicators"
        yield Problem((*place, "sources"), text)
    if preset in _EQUALLY_DEEP and len(sources) < 2:
        yield Problem((*place, "sources"), f"preset {preset} needs at least two sources, got {len(sources)}")
    if route.get("max_layers", 2**31) < route.get("min_layers", 1):
        text = f"min_layers {route['min_layers']} is above max_layers {route['max_layers']}"
        yield Problem((*place, "max_layers"), text)
    yield from _scale_problems(route, preset, place)
    if only_lends(merge) and any("parameters" in part for part in (merge, *merge["models"])):
        text = "passthrough of several models takes no parameters; remove them"
        yield Problem((*place[:-1], "merge"), text)
    if any(is_marker(b) for p in merge.get("slices") or () for s in p["sources"] for b in s["layer_range"]):
        yield Problem(place, "a route needs a merge of fixed depth; write numbers in layer_range, or use slices alone")


def depth_problems(request: RouteRequest, place: Place) -> Iterator[Problem]:
    """Yield what is wrong with a section for sources of this depth."""
    depths = {request.names[source]: request.depths[source] for source in request.sources}
    kept = request.keep_first + request.keep_last
    shallow = next((source for source in request.sources if kept >= request.depths[source]), None)
    if shallow is not None:
        text = f"keep_first and keep_last keep {kept} layers, and {request.names[shallow]!r} has "
        text += f"{request.depths[shallow]}; keep fewer, or there is nothing to search"
        yield Problem(place, text)
    if request.preset in _EQUALLY_DEEP and len(set(depths.values())) > 1:
        listed = ", ".join(f"{name} {depth}" for name, depth in depths.items())
        text = f"preset {request.preset} needs equally deep sources, got {listed} layers; use preset indicators"
        yield Problem((*place, "sources"), text)
    if request.max_layers is None:
        return
    least = request.depths[request.sources[0]] if request.preset not in ("indicators", "select") else kept
    if request.max_layers < max(1, least):  # otherwise no genotype could satisfy the limit
        what = (
            "keep_first and keep_last alone make" if least == kept else f"every route of {request.preset} has at least"
        )
        text = f"must be at least {max(1, least)}, got {request.max_layers}: {what} {least} layers"
        yield Problem((*place, "max_layers"), text)


def request_of(route: Mapping[str, Any], merge: Mapping[str, Any], depths: Mapping[str, int]) -> RouteRequest:
    """Return a section as values; it has no problems of form.

    Args:
        route: values of the section, as `named_sources` gave them.
        merge: the merge section.
        depths: layers of each of the section's sources.
    """
    models = [source for source in sources_of(merge) if source != MERGED]
    names = {**short_names(models), MERGED: MERGED}
    known = {field.name for field in fields(RouteRequest)} - {"sources", "depths", "names", "scales", "start"}
    given = {key: value for key, value in route.items() if key in known}
    preset = str(route.get("preset", "indicators"))
    # these presets have no slots to key scales by
    given.setdefault("scale_by", "jump" if preset in ("repeat_block", "interleave") else "slot")
    sources = tuple(route["sources"])
    scales = route.get("scales")
    return RouteRequest(
        sources,
        {source: depths[source] for source in sources},
        {source: names[source] for source in sources},
        scales=None if scales is None else (float(scales[0]), float(scales[1])),
        start=route.get("start") or sources[0],
        **given,
    )


def merged_depth(merge: Mapping[str, Any], layers: int) -> int:
    """Return the layers of the merge's result, whose base has `layers`."""
    if not merge.get("slices"):
        return layers
    ranges = [part["sources"][0]["layer_range"] for part in merge["slices"]]  # all sources of a slice are equally long
    return sum(int(end) - int(first) for first, end in ranges)


def _scale_problems(route: Mapping[str, Any], preset: str, place: Place) -> Iterator[Problem]:
    scales = route.get("scales")
    if scales is None:
        for key in ("scale_by", "hidden"):
            if key in route:
                yield Problem((*place, key), "says how scales are searched; give scales: [low, high] too, or remove it")
        return
    if len(scales) != 2 or None in scales:
        yield Problem((*place, "scales"), f"must be [low, high], as in [0.5, 1.5], got {list(scales)}")
        return
    low, high = scales
    if not low < high or not low <= 1 <= high:  # the plain stack, where the search starts, has scale 1
        text = f"must be a range around 1, the scale of a plain stack, as in [0.5, 1.5], got {list(scales)}"
        yield Problem((*place, "scales"), text)
    form = route.get("scale_by")
    if form == "network" and low <= 0:
        yield Problem((*place, "scales"), f"scale_by network makes positive scales; low must be above 0, got {low:g}")
    if form == "slot" and preset in ("repeat_block", "interleave"):
        text = f"preset {preset} has no slots; use jump (one gene), network, or table"
        yield Problem((*place, "scale_by"), text)
    if "hidden" in route and form != "network":
        yield Problem((*place, "hidden"), "belongs to scale_by: network; remove it")


def route_problems(route: Any, models: tuple[str, ...], place: Place) -> Iterator[Problem]:
    """Yield what is wrong with the route of a recipe: hops [source, layer, entry scale]."""
    if not isinstance(route, list) or not route:
        text = f"must be a list of at least one hop [source, layer, scale], got {route!r}; an empty route runs no layer"
        yield Problem(place, text)
        return
    for index, hop in enumerate(route):
        at = (*place, index)
        if not isinstance(hop, list) or len(hop) != 3:
            yield Problem(at, f"must be [source, layer, scale], as in [{MERGED}, 0, 1.0], got {hop!r}")
            continue
        source, layer, scale = hop
        if source not in (MERGED, *models):
            yield Problem((*at, 0), f"unknown source {source!r}. {near(str(source), [MERGED, *models])}")
        if not is_whole(layer) or layer < 0:
            yield Problem((*at, 1), f"must be a layer's number, 0 for the first, got {layer!r}")
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) < float("inf"):
            yield Problem((*at, 2), f"must be a finite number, got {scale!r}")
