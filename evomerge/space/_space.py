"""The search space: from a point of the unit cube to the recipe of one merged model, and back.

A space is a merge with markers, expanded once for a model of known depth (see `expansion`): a template with
placeholders, and the genes that fill them. Decoding fills the placeholders; encoding reads them off. Gene names are
`<parameter>[.<model>][.block<i>|.layer<i>|.knot<i>][.<module or filter>]`, as in `weight.add.block2`; within slices,
`slice<i>.` comes first. Where search over the order of layers is searched too, the genes of the route follow, as in
`route.keep.slot12`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evomerge.errors import InputError, SearchFileError
from evomerge.merge import CATALOGUE
from evomerge.recipe import Recipe, Scalar, recipe_from_mapping
from evomerge.space._expansion import expand
from evomerge.space._genes import Gene
from evomerge.space._mergekit_schema import check_form
from evomerge.space._problems import Place, Problem, dotted, located
from evomerge.space._template import Placeholder
from evomerge.space.routes._request import MERGED, depth_problems, merged_depth, plain_source, request_of
from evomerge.space.routes._route_genes import RouteSpace, route_space, without_route

__all__ = ["Gene", "SearchSpace", "build_space"]

SHOWN_GENES = 40  # rows of a notebook's table


@dataclass(frozen=True)
class SearchSpace:
    """The set of a search's recipes; decoding is total and deterministic, and encoding is its exact inverse."""

    genes: tuple[Gene, ...]  # those of the merge, then those of the route
    template: Mapping[str, Any] = field(repr=False)  # a mergekit document with a `Placeholder` per searched value
    mask_seed: int = 0  # seed of the random masks, unless the document has its own
    revisions: Mapping[str, str] = field(default_factory=dict, repr=False)  # model as written -> content or commit id
    route: RouteSpace | None = field(default=None, repr=False)  # None: the layers stay where they are

    @property
    def dimension(self) -> int:
        """The length of a genotype."""
        return len(self.genes)

    @property
    def names(self) -> tuple[str, ...]:
        """The genes' names, in the order of the genotype."""
        return tuple(gene.name for gene in self.genes)

    @property
    def choices(self) -> tuple[int, ...]:
        """Per gene: how many unordered values it chooses from, 0 for a range."""
        return tuple(len(gene.choices) for gene in self.genes)

    @property
    def switches(self) -> tuple[tuple[int, int], ...]:
        """(gene, layer) per slot of the route that a gene switches on and off, in the order in which slots run."""
        if self.route is None:
            return ()
        return tuple((self._cut + gene, layer) for gene, layer in self.route.switches)

    def decode(self, genotype: np.ndarray) -> Recipe:
        """Return the recipe of a genotype (d,) in [0, 1].

        Parameters that a chosen merge method does not know are left out of the recipe, and so is the base model where
        that method has none.

        Args:
            genotype: (d,), any floating dtype, each coordinate in [0, 1].

        Raises:
            InputError: wrong length, or a coordinate outside [0, 1] or not a number.
        """
        document = _filled(self.template, self._values(genotype))
        # the other methods' parameters are in the template too
        if isinstance(self.template["merge_method"], Placeholder):
            document = _for_method(document)
        document = {"mask_seed": self.mask_seed, **document}
        if self.route is None:
            return recipe_from_mapping(document).with_revisions(self.revisions)  # (d,) -> Recipe
        hops = self.route.hops(_route_point(genotype, self._cut))
        recipe = recipe_from_mapping(without_route(document) if hops is None else document)
        return replace(recipe, route=hops).with_revisions(self.revisions)

    def encode(self, recipe: Recipe) -> np.ndarray:
        """Return a genotype (d,) float64 that decodes to exactly this recipe; inactive genes are at their start.

        Args:
            recipe: one that this space can decode to.

        Raises:
            InputError: the recipe lies outside this space; the message names where.
        """
        found: dict[int, Scalar] = {}  # gene number -> value
        _read_placeholders(self.template, recipe.to_mapping(), (), found)
        # inactive genes keep these
        rest = [0.5 if gene.start is None else gene.coordinate(gene.start) for gene in self.genes]
        genotype = np.array(rest, dtype=np.float64)
        for index, value in found.items():
            genotype[index] = self.genes[index].coordinate(value)
        if self.route is not None:
            genotype[self._cut :] = self.route.point(recipe.route)
        # comparing whole recipes finds every difference, those outside placeholders too
        decoded = self.decode(genotype)
        if decoded != (recipe if recipe.revisions else recipe.with_revisions(self.revisions)):
            raise InputError(f"the recipe lies outside this search space: {_difference(decoded, recipe)}")
        return genotype

    def phenotype(self, genotype: np.ndarray) -> dict[str, Scalar | None]:
        """Return each gene's value in the user's units, by name; None for a gene that is inactive here.

        Args:
            genotype: (d,), each coordinate in [0, 1].
        """
        found: list[Scalar | None] = list(self._values(genotype))
        if self.route is not None:
            found[self._cut :] = self.route.values(_route_point(genotype, self._cut))
        values = dict(zip(self.names, found, strict=True))
        return {
            gene.name: values[gene.name] if gene.when is None or values[gene.when[0]] in gene.when[1] else None
            for gene in self.genes
        }

    def start(self) -> np.ndarray | None:
        """Return the genotype (d,) of the markers' starts, in the middle where they give none; None if none does.

        A route starts as one source's own stack.
        """
        if self.route is None and all(gene.start is None for gene in self.genes):
            return None
        # (d - route genes,)
        merge = [0.5 if gene.start is None else gene.coordinate(gene.start) for gene in self.genes[: self._cut]]
        return np.array([*merge, *(self.route.start() if self.route is not None else ())])

    @property
    def _cut(self) -> int:
        """The number of genes before those of the route."""
        return len(self.genes) - (0 if self.route is None else len(self.route.genes))

    def _repr_html_(self) -> str:
        from evomerge._markup import element, table

        rows = [
            (gene.name, gene.kind, gene.extent(), "" if gene.start is None else gene.start, _condition(gene))
            for gene in self.genes[:SHOWN_GENES]
        ]
        rest = self.dimension - len(rows)
        more = element("p", {}, f"and {rest} more: .names lists all") if rest else None
        shown = table(("gene", "kind", "values", "start", "active where"), rows, caption=f"{self.dimension} genes")
        return element("div", {}, shown, more)

    def _values(self, genotype: np.ndarray) -> list[Scalar]:
        coordinates = np.asarray(genotype, dtype=np.float64)
        if coordinates.shape != (self.dimension,):
            raise InputError(
                f"genotype must have shape ({self.dimension},), one number per gene, got {coordinates.shape}"
            )
        if not np.all((coordinates >= 0) & (coordinates <= 1)):  # also false for NaN
            worst = int(np.argmin((coordinates >= 0) & (coordinates <= 1)))
            raise InputError(f"genotype must lie in [0, 1], got {coordinates[worst]} for gene {self.names[worst]!r}")
        return [gene.value(float(x)) for gene, x in zip(self.genes, coordinates, strict=True)]


def build_space(
    merge: Mapping[str, Any],
    *,
    layers: int,
    modules: Mapping[str, tuple[str, ...]],
    mask_seed: int = 0,
    revisions: Mapping[str, str] | None = None,
    route: Mapping[str, Any] | None = None,
    depths: Mapping[str, int] | None = None,
    place: Place = (),
    lines: Mapping[Place, int] | None = None,
    path: str = "merge",
) -> SearchSpace:
    """Return the search space of a mergekit document with markers.

    Args:
        merge: the document, as plain data.
        layers: number of hidden layers of the base.
        modules: for attention and mlp, the parts of tensor names that find them in this architecture.
        mask_seed: keys the random masks of every recipe.
        revisions: content or commit ids of models, by their names in `merge`; they go into every recipe.
        route: values of the route section, whose sources stand as in `merge`; None: no route.
        depths: layers of each model; those that are not listed have `layers`.
        place: where `merge` stands in its file, for errors.
        lines: place -> line of that file, likewise.
        path: of that file, likewise.

    Raises:
        SearchFileError: the document has mistakes; all of them are listed.
    """
    problems = check_form(merge, place)  # expansion relies on the form, so that it comes second
    if not problems:
        expansion = expand(merge, layers, modules, place, routed=route is not None)
        problems = [*expansion.problems, *_route_depth_problems(route, merge, layers, depths)]
    if problems:
        raise SearchFileError(path, located(problems, lines or {}))
    routes = None if route is None else _routes(route, merge, layers, depths)
    genes = (*expansion.genes, *(routes.genes if routes is not None else ()))
    if routes is not None and merge["merge_method"] == "passthrough":
        mask_seed = 0  # nothing is masked, and the plain stack's recipe should be the parent's
    return SearchSpace(genes, expansion.template, mask_seed, dict(revisions or {}), routes)


def _route_depth_problems(
    route: Mapping[str, Any] | None,
    merge: Mapping[str, Any],
    layers: int,
    depths: Mapping[str, int] | None = None,
) -> list[Problem]:
    """Return what is wrong with a route section for models of this depth; see `build_space`."""
    if route is None:
        return []
    return list(depth_problems(request_of(route, merge, _depths(route, merge, layers, depths)), ("route",)))


def _routes(
    route: Mapping[str, Any], merge: Mapping[str, Any], layers: int, depths: Mapping[str, int] | None
) -> RouteSpace:
    known = _depths({**route, "sources": [*route["sources"], plain_source(merge)]}, merge, layers, depths)
    return route_space(request_of(route, merge, known), merge, known[plain_source(merge)])


def _depths(
    route: Mapping[str, Any], merge: Mapping[str, Any], layers: int, depths: Mapping[str, int] | None
) -> dict[str, int]:
    known = {**(depths or {}), MERGED: merged_depth(merge, layers)}
    return {source: known.get(source, layers) for source in route["sources"]}


def _route_point(genotype: np.ndarray, cut: int) -> list[float]:
    return [float(x) for x in np.asarray(genotype, dtype=np.float64)[cut:]]


def _condition(gene: Gene) -> str:
    return "" if gene.when is None else f"{gene.when[0]} is {' or '.join(gene.when[1])}"


def _filled(node: Any, values: list[Scalar]) -> Any:
    if isinstance(node, Placeholder):
        return values[node.gene]
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    return [_filled(entry, values) for entry in node] if isinstance(node, list) else node


def _for_method(document: dict[str, Any]) -> dict[str, Any]:
    """Return a filled document without what its merge method does not know."""
    method = CATALOGUE[document["merge_method"]]
    known = {parameter.name for parameter in method.parameters} | set(method.ignored)

    def pruned(entry: dict[str, Any], is_base: bool = False) -> dict[str, Any]:
        parameters = {name: value for name, value in entry.get("parameters", {}).items() if name in known}
        rest = {key: value for key, value in entry.items() if key != "parameters"}
        return {**rest, "parameters": parameters} if parameters and not is_base else rest

    base = document.get("base_model")
    result = pruned(document)
    if "models" in result:
        result["models"] = [
            pruned(entry, method.base != "none" and entry["model"] == base) for entry in document["models"]
        ]
        # mergekit would average an unlisted base in as one more model, without a weight
        if method.base == "none" and base not in [entry["model"] for entry in document["models"]]:
            result.pop("base_model", None)
    if "slices" in result:
        result["slices"] = [_slice_for_method(part, base, method.base != "none", pruned) for part in document["slices"]]
    return result


def _slice_for_method(part: dict[str, Any], base: str | None, has_base: bool, pruned: Any) -> dict[str, Any]:
    own = part.get("base_model", base)
    return {**pruned(part), "sources": [pruned(entry, has_base and entry["model"] == own) for entry in part["sources"]]}


def _read_placeholders(template: Any, actual: Any, place: tuple[str | int, ...], found: dict[int, Scalar]) -> None:
    """Gather a recipe's values at the template's placeholders; `encode` finds other differences by decoding again."""
    if isinstance(template, Placeholder):
        # a gene that fills several placeholders has one value
        if isinstance(actual, (dict, list)) or found.setdefault(template.gene, actual) != actual:
            expected = f"the value {found[template.gene]!r}, as elsewhere" if template.gene in found else "one value"
            raise InputError(
                f"the recipe lies outside this search space: {dotted(place)} must be {expected}, got {actual!r}"
            )
    elif isinstance(template, dict) and isinstance(actual, dict):
        for key in template.keys() & actual.keys():
            _read_placeholders(template[key], actual[key], (*place, key), found)
    elif isinstance(template, list) and isinstance(actual, list):
        # other lengths fail in the comparison
        for index, (inner, value) in enumerate(zip(template, actual, strict=False)):
            _read_placeholders(inner, value, (*place, index), found)


def _difference(ours: Recipe, theirs: Recipe) -> str:
    """Return a sentence on the first difference of two recipes."""
    left, right = ours.to_mapping(), theirs.to_mapping()
    if ours.revisions != theirs.revisions and replace(ours, revisions=()) == replace(theirs, revisions=()):
        return f"its models have other revisions: {dict(theirs.revisions)}, here {dict(ours.revisions)}"
    for key in dict.fromkeys([*left, *right]):
        if left.get(key) != right.get(key):
            return f"{key} must be like {left.get(key)!r}, got {right.get(key)!r}"
    return "it differs from every recipe here"
