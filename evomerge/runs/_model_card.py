"""The model card: what a merged model is made of, how it was found, and how good it is, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from evomerge._model_reference import MODEL_KEYS, parse
from evomerge._yaml_text import yaml_text
from evomerge.runs._holdout import finals_of
from evomerge.runs._run_data import RunData
from evomerge.runs._status import status_of
from evomerge.runs._summaries import verdict
from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.candidate import Candidate, Objective, Score
    from evomerge.engine import LoraReport
    from evomerge.recipe import Recipe


def model_card(run: RunData, candidate: Candidate, lora: LoraReport | None = None) -> str:
    """Return README.md of an exported candidate: lineage as the Hub reads it, scores, recipe, provenance.

    Args:
        run: where it comes from.
        candidate: what was exported.
        lora: how well the adapter gives it, where an adapter was written.
    """
    recipe = candidate.recipe
    versions = run.config.versions
    return "\n".join(
        [
            *_front(recipe, lora),
            f"# {run.folder.name}, candidate {candidate.number}",
            "",
            f"A `{recipe.method}` merge, found by evomerge among "
            f"{status_of(run)['done']} scored candidates (controller {run.config.controller.name}, "
            f"seed {run.config.seed}).",
            "",
            *_adapter(recipe, lora),
            "## Scores",
            "",
            *_score_table(run, candidate),
            "",
            *_verdict(run, candidate),
            *_recipe(recipe, run.fingerprint(candidate.number)),
            *_licences(recipe),
            *_provenance(recipe, versions),
            f"- search began {run.config.created}, seed {run.config.seed}",
            "",
        ]
    )


def recipe_card(recipe: Recipe, name: str, lora: LoraReport | None = None) -> str:
    """Return README.md of a merge that no search found: lineage, recipe, licences, provenance."""
    return "\n".join(
        [
            *_front(recipe, lora),
            f"# {name}",
            "",
            f"A `{recipe.method}` merge, made by evomerge.",
            "",
            *_adapter(recipe, lora),
            *_recipe(recipe, ""),
            *_licences(recipe),
            *_provenance(recipe, {"evomerge": __version__}),
            "",
        ]
    )


def licences_of(recipe: Recipe) -> dict[str, str | None]:
    """Return the licence of every model of a recipe by its public name, None where its folder does not tell."""
    # local import: this room is read without the weights' dependencies
    from evomerge.checkpoints import licence_of, locate

    revisions = dict(recipe.revisions)
    return {_public(name): licence_of(locate(name, revisions.get(name)).folder) for name in recipe.references()}


def _front(recipe: Recipe, lora: LoraReport | None) -> list[str]:
    """Return the front matter, from which the Hub draws the lineage."""
    models = [_public(name) for name in recipe.references()]
    front: dict[str, Any] = {
        "base_model": models if lora is None else models[:1],  # an adapter loads onto its base alone
        # the Hub draws its model tree from these two fields
        "base_model_relation": "merge" if lora is None else "adapter",
        "library_name": "transformers" if lora is None else "peft",
        "tags": ["merge", "evomerge", recipe.method, *(["lora"] if lora is not None else [])],
    }
    licences = set(licences_of(recipe).values())
    if len(licences) == 1 and None not in licences:  # several licences have no common one
        front["license"] = licences.pop()
    return [f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"]


def _adapter(recipe: Recipe, lora: LoraReport | None) -> list[str]:
    if lora is None:
        return []
    ranks = sorted({tensor.rank for tensor in lora.tensors if tensor.rank})  # 'auto' chooses a rank per tensor
    left = ", ".join(f"`{name}`" for name in lora.left_out)
    text = (
        f"A LoRA adapter of `{_public(recipe.references()[0])}`, rank {ranks[0]}"
        + (f" to {ranks[-1]}" if len(ranks) > 1 else "")
        + (
            f". It approximates the merged weights up to {100 * lora.relative_error:.2g}% of what the merge "
            "changed (norm of the difference over norm of the change; per tensor in `reconstruction.json`)."
        )
    )
    return [text + (f" Not in the adapter: {left}." if left else ""), ""]


def _recipe(recipe: Recipe, fingerprint: str) -> list[str]:
    proof = f", weights fingerprint `{fingerprint}`" if fingerprint else ""
    text = yaml_text(_with_public_names(recipe.to_mapping())).rstrip()
    return ["## Recipe", "", "```yaml", text, "```", "", f"Recipe digest `{recipe.digest}`{proof}.", ""]


def _licences(recipe: Recipe) -> list[str]:
    from evomerge.checkpoints import licence_warnings

    licences = licences_of(recipe)
    lines = [f"- `{name}`: {licence or 'not stated in its folder'}" for name, licence in licences.items()]
    warnings = [f"\n**Note:** {warning}." for warning in licence_warnings(licences)]
    return ["## Licences of the parents", "", *lines, *warnings, ""]


def _provenance(recipe: Recipe, versions: Mapping[str, str]) -> list[str]:
    return [
        "## Provenance",
        "",
        *(f"- {name} {version}" for name, version in versions.items()),
        *(f"- `{_public(name)}` at `{revision}`" for name, revision in recipe.revisions),
        *([f"- random masks drawn with seed {recipe.mask_seed}"] if recipe.mask_seed else []),
    ]


def _score_table(run: RunData, candidate: Candidate) -> list[str]:
    held = {final.number: final for final in finals_of(run)}.get(candidate.number)  # None unless it was a finalist
    searched = run.evaluations("parent" if candidate.number < 0 else "search").get(candidate.number)
    lines = ["| task | metric | search items | held-out items |", "|---|---|---|---|"]
    for objective in run.objectives:
        scores = (
            searched.scores.get(objective.name) if searched else None,
            held.scores.get(objective.name) if held else None,
        )
        cells = [_cell(score, objective) for score in scores]
        lines.append(f"| {objective.task} | {objective.metric} | {cells[0]} | {cells[1]} |")
    units = "Scores in percent" + ("" if all(o.kind == "task" for o in run.objectives) else " for tasks")
    lines += [
        "",
        (
            f"{units} ± one standard error, 95% intervals in brackets. Candidates were selected on the search "
            "items; the held-out items are unbiased."
        ),
    ]
    return lines


def _cell(score: Score | None, objective: Objective) -> str:
    if score is None:
        return ""
    low, high = score.interval()
    if objective.kind != "task":  # only fractions of items are shown in percent
        return f"{score.value:.4g} ± {score.stderr:.2g} [{low:.4g}, {high:.4g}] (n={score.items})"
    interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * score.value:.1f} ± {100 * score.stderr:.1f} {interval} (n={score.items})"


def _verdict(run: RunData, candidate: Candidate) -> list[str]:
    for final in finals_of(run):
        if final.number == candidate.number and final.gain is not None:
            return [f"On held-out items: {verdict(final)}.", ""]
    return []


def _public(name: str) -> str:
    """Return a model's name for the world: a local folder's own name, a hub id as it is."""
    reference = parse(name)  # None: no form that we know, so it is left as it is
    if reference is None:
        return name
    paths = [part for part in (reference.path, reference.adapter) if part is not None]
    short = [part.rstrip("/").rsplit("/", 1)[-1] if part.startswith(("/", ".", "~")) else part for part in paths]
    return str(replace(reference, path=short[0], adapter=short[1] if short[1:] else None))


def _with_public_names(node: Any) -> Any:
    if isinstance(node, dict):
        # `revisions` has paths as keys
        renamed = {_public(str(key)) if str(key).startswith("/") else key: value for key, value in node.items()}
        return {
            key: _public(value) if key in MODEL_KEYS and isinstance(value, str) else _with_public_names(value)
            for key, value in renamed.items()
        }
    return [_with_public_names(entry) for entry in node] if isinstance(node, list) else node
