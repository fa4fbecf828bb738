"""The chat template of a merged model: the donor's by default; the recipe may set another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from evomerge.checkpoints import Layout, read_json
from evomerge.engine._parents import Parents
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe

TEMPLATE_FILE = "chat_template.jinja"


def chat_template_of(recipe: Recipe, parents: Parents) -> str | None:
    """Return the template that replaces the donor's own, or None to keep that.

    `auto` is the template that most of the recipe's models have, as in mergekit; anything else is the template itself.

    Raises:
        WeightsError: the text is no Jinja template.
    """
    if recipe.chat_template is None:
        return None
    if recipe.chat_template == "auto":
        templates = [stored_template(parents.layouts[model].folder) for model in recipe.references()]
        # templates that differ in outer white space count as one
        counted = Counter(template.strip() for template in templates if template)
        return counted.most_common(1)[0][0] if counted else None
    if "{" not in recipe.chat_template:  # a text without any Jinja expression would be a constant prompt
        raise WeightsError(
            f"chat_template: expected 'auto' or a Jinja template, got {recipe.chat_template!r}; "
            "write the template itself into the recipe (mergekit's names for templates are not known here)"
        )
    return recipe.chat_template


def template_problem(written: str | None, donor: Layout) -> str:
    """Return why prompts cannot be put into chat form for every model of a search; '' if they can.

    Args:
        written: the merge's own `chat_template`.
        donor: the model whose tokenizer encodes all prompts. `auto` does not help a parent without a template.
    """
    if (written is not None and written != "auto") or stored_template(donor.folder):
        return ""
    return (
        f"scoring.lm_eval.apply_chat_template is set, but the tokenizer has no chat template ('{donor.folder}'); unset "
        f"it, give that folder a {TEMPLATE_FILE}, or write the template itself under merge.chat_template"
    )


def stored_template(folder: Path) -> str | None:
    """Return the chat template in a model's folder, or None."""
    if (folder / TEMPLATE_FILE).is_file():  # transformers prefers this file to tokenizer_config.json
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None
    template = read_json(settings).get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
