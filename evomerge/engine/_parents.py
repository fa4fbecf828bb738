"""The parent models of a search, found, checked against each other, and read; shared by resident and exporter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from evomerge.checkpoints import CheckpointReader, Layout, config_difference, locate, read_layout, revision_of
from evomerge.engine._merge_plan import TensorOp, donor_of, sources_outside, steps_of
from evomerge.engine._merged_config import merged_config
from evomerge.engine._vocabulary import Alignment, aligned_layouts, alignment_of, vocabulary_tensors
from evomerge.engine.route._route_plan import route_steps
from evomerge.engine.route._routes import layer_origins
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Parents:
    """Models by the names that recipes use for them, with their layouts and revisions. No weights."""

    layouts: Mapping[str, Layout]
    revisions: Mapping[str, str]
    _aligned: dict[object, tuple[Alignment | None, Mapping[str, Layout]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def alignment(self, recipe: Recipe) -> Alignment | None:
        """Return the alignment of a recipe's vocabularies, or None where they are equal already."""
        return self._vocabulary(recipe)[0]

    def layouts_for(self, recipe: Recipe) -> Mapping[str, Layout]:
        """Return the models' layouts with embeddings of shape (rows of the recipe's result, width)."""
        return self._vocabulary(recipe)[1]

    def readers(self, recipe: Recipe) -> dict[str, CheckpointReader]:
        """Return readers whose embeddings have the shape (rows of the recipe's result, width); close them after use."""
        # readers open their files on first use
        alignment, plain = self.alignment(recipe), {m: CheckpointReader(layout) for m, layout in self.layouts.items()}
        if alignment is None:
            return plain
        return {
            model: AlignedReader(model, plain, recipe, alignment, self.layouts) if model in alignment.maps else reader
            for model, reader in plain.items()
        }

    def check_alignment(self, recipe: Recipe, home: Recipe) -> None:
        """Refuse a recipe that needs another order of embedding rows, (rows,), than `home`, for which they were loaded.

        Raises:
            WeightsError: says so.
        """
        wanted, loaded = self.alignment(recipe), self.alignment(home)
        # models that `home` has loaded in other rows
        changed = [model for model in recipe.references() if loaded is not None and loaded.touches(model)]
        if wanted is None and not changed:  # every model has its own rows on both sides
            return
        if wanted is None or loaded is None or not wanted.same_as(loaded):
            raise WeightsError(
                "this recipe aligns vocabularies differently from the resident model (other models, "
                "base_model or tokenizer); export it (evomerge merge) and score the folder"
            )

    def _vocabulary(self, recipe: Recipe) -> tuple[Alignment | None, Mapping[str, Layout]]:
        key = (recipe.tokenizer_choice, recipe.base, recipe.references())  # all that an alignment depends on
        if key not in self._aligned:
            alignment = alignment_of(recipe, self.layouts)  # seconds for large vocabularies, so it is remembered
            self._aligned[key] = (alignment, aligned_layouts(alignment, self.layouts))
        return self._aligned[key]

    def steps(self, recipe: Recipe) -> list[TensorOp]:
        """Return the merge plan of a recipe, (tensors,), after checking that it means these models.

        Raises:
            WeightsError: see `merged_steps`; or layers of its route do not fit each other.
        """
        merged = self.merged_steps(recipe)
        return merged if recipe.route is None else route_steps(recipe, self.layouts_for(recipe), merged)

    def merged_steps(self, recipe: Recipe) -> list[TensorOp]:
        """Return the merge plan of a recipe, (tensors,), without its route, after checking that it means these models.

        Raises:
            WeightsError: the recipe names a model that is not here, or another revision of one that is.
        """
        for model in recipe.references():
            if model not in self.layouts:
                raise WeightsError(f"recipe names model '{model}', loaded are: {', '.join(self.layouts)}")
        for model, revision in recipe.revisions:
            if model in self.revisions and revision != self.revisions[model]:  # a recipe means exact weights
                raise WeightsError(
                    f"model '{model}': the recipe was made with revision {revision}, here it is "
                    f"{self.revisions[model]}; restore that revision, or start again with this one"
                )
        if recipe.chat_template == "":
            raise WeightsError("chat_template: expected a Jinja template or 'auto', got an empty text")
        return steps_of(recipe, self.layouts_for(recipe))

    def donor(self, recipe: Recipe) -> Layout:
        """Return the layout of the model that lends configuration and tokenizer to a recipe's result."""
        return self.layouts_for(recipe)[donor_of(recipe)]


class AlignedReader(CheckpointReader):
    """The tensors of one model of a recipe; those of the vocabulary have the result's rows, (rows, width)."""

    def __init__(
        self,
        model: str,
        readers: Mapping[str, CheckpointReader],
        recipe: Recipe,
        alignment: Alignment,
        layouts: Mapping[str, Layout],
    ) -> None:
        super().__init__(layouts[model])  # the unaligned layout: names and rows as in the files
        self._model, self._readers, self._alignment = model, readers, alignment
        # other tensors are read as they are
        names = vocabulary_tensors(layouts[model]) if alignment.touches(model) else ()
        self._sources = {name: sources_outside(recipe, layouts, name) for name in names}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in its stored dtype, on the CPU; see `CheckpointReader.tensor`."""
        if name not in self._sources:
            return super().tensor(name)
        sources = list(dict.fromkeys((*self._sources[name], self._model)))  # a missing row may come from any of them
        return self._alignment.aligned(self._model, sources, lambda model: self._readers[model].tensor(name))

    def close(self) -> None:
        """Close the files, those of the other models too."""
        super().close()
        for reader in self._readers.values():  # reading one model's rows has opened the others' files
            reader.close()

    def changed(self, name: str) -> bool:
        """Return whether a tensor differs, in bits or shape, from the one in the model's files."""
        return name in self._sources or super().changed(name)


def find_parents(references: Iterable[str], revisions: Mapping[str, str] | None = None) -> Parents:
    """Return the models of these names, read as far as their headers.

    Args:
        references: as recipes write them.
        revisions: what some of them must be; a hub id without a revision of its own is taken at this one.

    Raises:
        WeightsError: a model is missing, damaged, or not of the expected revision.
    """
    expected = dict(revisions or {})
    layouts: dict[str, Layout] = {}
    found: dict[str, str] = {}
    for reference in dict.fromkeys(references):
        local = locate(reference, expected.get(reference))  # downloads only what the hub's cache lacks
        layouts[reference] = read_layout(reference, local)
        found[reference] = revision_of(reference, local)  # hashes a folder's files, once per state of the files
        if expected.get(reference, found[reference]) != found[reference]:
            raise WeightsError(
                f"model '{reference}': expected revision {expected[reference]}, found {found[reference]} in "
                f"'{local.folder}'; its files differ from those that the search started with"
            )
    return Parents(layouts, found)


def structure_difference(recipe: Recipe, parents: Parents, base: str, home: Layout | None = None) -> str | None:
    """Return how a recipe's result differs in architecture from `base`, else None; `home` is the base's layout.

    The weights of such a result do not belong into a model that was built from the base's configuration.
    """
    config = merged_config(recipe, parents.layouts_for(recipe))
    home = parents.layouts[base] if home is None else home
    layers = len(layer_origins(recipe, parents.layouts))  # checked before the configurations, for a clearer message
    if layers != home.layers:
        return f"layers: '{base}' has {home.layers}, the result has {layers}"
    donor = parents.donor(recipe)
    if donor.embedding is not None and home.embedding is not None and donor.embedding_rows() != home.embedding_rows():
        return f"rows of the embedding: '{base}' has {home.embedding_rows()}, the result has {donor.embedding_rows()}"
    return config_difference(home, replace(parents.donor(recipe), reference=f"the {recipe.method}", config=config))
