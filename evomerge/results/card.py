"""The model card: what a merged model is made of, how it was found, and how good it is, with intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from evomerge.references import parse
from evomerge.results.summaries import verdict

if TYPE_CHECKING:
    from evomerge.candidate import Candidate, Objective, Score
    from evomerge.results import Run


def model_card(run: Run, candidate: Candidate) -> str:
    """Return README.md of an exported candidate: lineage as the Hub reads it, scores, recipe, provenance."""
    from evomerge.results.exporting import yaml_text

    recipe = candidate.recipe
    front = {
        "base_model": [_public(name) for name in recipe.references()],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "evomerge", recipe.method],
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {run.folder.name}, candidate {candidate.number}",
        "",
        f"A `{recipe.method}` merge, found by [evomerge](https://pypi.org/project/evomerge/) among "
        f"{run.status()['done']} scored candidates (controller {run.facts['controller']['name']}, "
        f"seed {run.facts['seed']}).",
        "",
        "## Scores",
        "",
        *_score_table(run, candidate),
        "",
        *_verdict(run, candidate),
        "## Recipe",
        "",
        "```yaml",
        yaml_text(_with_public_names(recipe.to_mapping())).rstrip(),
        "```",
        "",
        f"Recipe digest `{recipe.digest}`, weights fingerprint `{run.fingerprint(candidate.number)}`.",
        "",
        "## Provenance",
        "",
        *(
            f"- {name} {version}"
            for name, version in {"evomerge": run.facts["evomerge"], **run.facts["versions"]}.items()
        ),
        *(f"- `{_public(name)}` at `{revision}`" for name, revision in recipe.revisions),
        f"- search began {run.facts['created']}",
        "",
    ]
    return "\n".join(lines)


def _score_table(run: Run, candidate: Candidate) -> list[str]:
    held = {final.number: final for final in run.finals()}.get(candidate.number)
    searched = run.evaluations("parent" if candidate.number < 0 else "search").get(candidate.number)
    lines = ["| task | metric | search items | held-out items |", "|---|---|---|---|"]
    for objective in run.objectives:
        cells = [
            _cell(score, objective) if score else ""
            for score in (
                searched.scores.get(objective.name) if searched else None,
                held.scores.get(objective.name) if held else None,
            )
        ]
        lines.append(f"| {objective.task} | {objective.metric} | {cells[0]} | {cells[1]} |")
    units = "Scores in percent" + ("" if all(o.kind == "task" for o in run.objectives) else " for tasks")
    lines += [
        "",
        f"{units} ± one standard error. The search chose by the search items; the held-out items are fair.",
    ]
    return lines


def _cell(score: Score, objective: Objective) -> str:
    if objective.kind == "task":
        return f"{100 * score.value:.1f} ± {100 * score.stderr:.1f} (n={score.items})"
    return f"{score.value:.4g} ± {score.stderr:.2g} (n={score.items})"


def _verdict(run: Run, candidate: Candidate) -> list[str]:
    for final in run.finals():
        if final.number == candidate.number and final.gain is not None:
            return [f"On held-out items: {verdict(final)}.", ""]
    return []


def _public(name: str) -> str:
    """Return a model's name for the world: a local folder's own name, a hub id as it is."""
    reference = parse(name)
    if reference is None:
        return name
    paths = [part for part in (reference.path, reference.adapter) if part is not None]
    short = [part.rstrip("/").rsplit("/", 1)[-1] if part.startswith(("/", ".", "~")) else part for part in paths]
    return str(replace(reference, path=short[0], adapter=short[1] if short[1:] else None))


def _with_public_names(node: Any) -> Any:
    if isinstance(node, dict):
        renamed = {_public(str(key)) if str(key).startswith("/") else key: value for key, value in node.items()}
        return {
            key: _public(value)
            if key in ("model", "base_model") and isinstance(value, str)
            else _with_public_names(value)
            for key, value in renamed.items()
        }
    return [_with_public_names(entry) for entry in node] if isinstance(node, list) else node
