"""The models of a search, found, checked against each other, and read: what resident and exporter share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from evomerge.errors import WeightsError
from evomerge.recipe import Recipe
from evomerge.weights.layout import Layout, config_difference, read_layout, vocabulary_difference
from evomerge.weights.merged_config import merged_config
from evomerge.weights.reference import locate, revision_of
from evomerge.weights.steps import Step, donor_of, layer_sources, steps_of


@dataclass(frozen=True)
class Parents:
    """Models by the names that recipes use for them, with their layouts and revisions. No weights."""

    layouts: Mapping[str, Layout]
    revisions: Mapping[str, str]

    def steps(self, recipe: Recipe) -> list[Step]:
        """Return the steps of a recipe, after checking that it means these models.

        Raises:
            WeightsError: the recipe names a model that is not here, or another revision of one that is.
        """
        for model in recipe.references():
            if model not in self.layouts:
                raise WeightsError(f"recipe names model '{model}', loaded are: {', '.join(self.layouts)}")
        for model, revision in recipe.revisions:
            if model in self.revisions and revision != self.revisions[model]:
                raise WeightsError(
                    f"model '{model}': the recipe was made with revision {revision}, here it is "
                    f"{self.revisions[model]}; restore that revision, or start again with this one"
                )
        if recipe.chat_template == "":
            raise WeightsError("chat_template: expected a Jinja template or 'auto', got an empty text")
        return steps_of(recipe, self.layouts)

    def donor(self, recipe: Recipe) -> Layout:
        """Return the layout of the model that lends configuration and tokenizer to a recipe's result."""
        return self.layouts[donor_of(recipe)]

    def check_vocabularies(self) -> None:
        """Refuse models whose tokenizers disagree: their embedding rows must not be mixed.

        Raises:
            WeightsError: naming two models and a token.
        """
        first, *others = self.layouts.values()
        for other in others:
            difference = vocabulary_difference(first, other)
            if difference is not None:
                raise WeightsError(difference)


def find_parents(references: Iterable[str], revisions: Mapping[str, str] | None = None) -> Parents:
    """Return the models of these names, read as far as their headers.

    Args:
        references: as recipes write them.
        revisions: what some of them must be; a hub id without a revision of its own is taken at this one.

    Raises:
        WeightsError: a model is missing, damaged, or not of the revision asked for.
    """
    asked = dict(revisions or {})
    layouts: dict[str, Layout] = {}
    found: dict[str, str] = {}
    for reference in dict.fromkeys(references):
        local = locate(reference, asked.get(reference))
        layouts[reference] = read_layout(reference, local)
        found[reference] = revision_of(reference, local)
        if asked.get(reference, found[reference]) != found[reference]:
            raise WeightsError(
                f"model '{reference}': expected revision {asked[reference]}, found {found[reference]} in "
                f"'{local.folder}'; its files differ from those that the search started with"
            )
    return Parents(layouts, found)


def structure_difference(recipe: Recipe, parents: Parents, base: str) -> str | None:
    """Return in which way a recipe's result is another network than `base`, else None.

    The weights of such a result do not belong into a model that was built from the base's configuration.
    """
    config = merged_config(recipe, parents.layouts)
    home = parents.layouts[base]
    layers = len(layer_sources(recipe, parents.layouts))
    if layers != home.layers:
        return f"layers: '{base}' has {home.layers}, the result has {layers}"
    return config_difference(home, replace(parents.donor(recipe), reference=f"the {recipe.method}", config=config))
