"""Reads the models of a search from their headers, and tells whether they fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge._tokenizer import UNION, TokenizerChoice, choice_of
from evomerge.checkpoints import Layout, compare_layouts, facts_of, problems_between, read_layout, short_name
from evomerge.commands._problem_list import Problems
from evomerge.config import SearchFile
from evomerge.engine import Alignment, aligned_layouts, alignment_of, merge_of, template_problem
from evomerge.errors import WeightsError
from evomerge.space import model_places, only_lends


@dataclass(frozen=True)
class Models:
    """The models of a search, from their headers."""

    layouts: Mapping[str, Layout]  # the base first
    alignment: Alignment | None  # how their vocabularies become one; None where they are one

    @property
    def base(self) -> Layout:
        """The base's layout."""
        return next(iter(self.layouts.values()))

    @property
    def depths(self) -> dict[str, int]:
        """Layers per model."""
        return {name: layout.layers for name, layout in self.layouts.items()}


def inspect_models(search_file: SearchFile, problems: Problems) -> Models | None:
    """Return the models of the merge section, from headers only; None where one cannot be read.

    A model that cannot be read or does not fit the others is added to `problems`. Models of a route that only lend
    their layers need not be equally deep.
    """
    merge, route = search_file.merge, search_file.route
    names = models_of(merge)
    layouts: dict[str, Layout] = {}
    for name in names:
        try:
            layouts[name] = read_layout(name)
        except WeightsError as error:
            problems.add(*str(error).splitlines())
    if len(layouts) < len(names):
        return None
    alignment = _alignment(merge, names, layouts, problems)
    aligned = aligned_layouts(alignment, layouts)
    if route is not None:
        problems.add(*_misfits(aligned, equally_deep=not merge.get("slices") and not only_lends(merge)))
        return Models(layouts, alignment)
    base, *others = (aligned[name] for name in names)
    problems.add(*compare_layouts(base, others, depth=not merge.get("slices"), vocabulary=False))
    problems.add(*problems_between({name: facts_of(layout) for name, layout in layouts.items()}))
    return Models(layouts, alignment)


def models_of(merge: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every model that a merge section names, the base (or else the first) first, once each."""
    listed = [model for _, model in model_places(merge)]
    base = merge.get("base_model")
    return tuple(dict.fromkeys([*([base] if base else []), *listed]))


def chat_template_problem(search_file: SearchFile, models: Models) -> str | None:
    """Return why prompts cannot be written in chat form, where the search file asks for that."""
    if not search_file.scoring.lm_eval.get("apply_chat_template"):
        return None
    donor = models.base if models.alignment is None else models.layouts[models.alignment.donor]
    return template_problem(search_file.merge.get("chat_template"), donor)


def tokenizer_of(merge: Mapping[str, Any]) -> TokenizerChoice | None:
    """Return the tokenizer that a merge section chooses, None where it leaves that open."""
    source = merge.get("tokenizer_source")
    return TokenizerChoice(source) if source is not None else choice_of(merge.get("tokenizer"))


def _alignment(
    merge: Mapping[str, Any], names: tuple[str, ...], layouts: Mapping[str, Layout], problems: Problems
) -> Alignment | None:
    tokenizer = tokenizer_of(merge)
    if tokenizer is not None and tokenizer.source == UNION:
        problems.add(
            "a union of vocabularies cannot be searched: a parent alone has no such vocabulary to be scored with. Name "
            "base or one model as tokenizer_source; evomerge merge makes models with the union of vocabularies"
        )
        return None
    try:
        return alignment_of(merge_of(names, names[0], tokenizer), layouts)
    except WeightsError as error:
        problems.add(str(error))
        return None


def _misfits(layouts: Mapping[str, Layout], *, equally_deep: bool) -> list[str]:
    """Return, per model whose layers cannot run in a route beside the first model's, why, and what would do instead.

    Args:
        layouts: the first is the base, in whose network the layers run.
        equally_deep: whether the models are merged tensor by tensor too.
    """
    base_name, base = next(iter(layouts.items()))
    found: dict[str, str] = {}
    for name, other in list(layouts.items())[1:]:
        reason = _difference(base_name, base, name, other, equally_deep)
        if reason is not None:
            found[name] = reason
    fitting = [short_name(name) for name in layouts if name not in found]
    advice = f"leave it out; these go together: {', '.join(fitting)}"
    return [
        f"route: layers of '{name}' cannot run beside those of '{base_name}': {why}; {advice}"
        for name, why in found.items()
    ]


def _difference(base_name: str, base: Layout, name: str, other: Layout, equally_deep: bool) -> str | None:
    ours, theirs = facts_of(base), facts_of(other)
    for label, here, there in (
        ("architecture", ours.architecture, theirs.architecture),
        ("width of the hidden state", ours.width, theirs.width),
    ):
        if here is not None and there is not None and here != there:
            return f"{label}: {here} and {there}"
    problems = compare_layouts(base, [other], depth=equally_deep, vocabulary=False)
    problems += problems_between({base_name: ours, name: theirs})
    return None if not problems else problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
