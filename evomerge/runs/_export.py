"""Export of a candidate: as a model folder with its lineage, as a mergekit YAML, or as a recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge._yaml_text import yaml_text
from evomerge.candidate import Candidate
from evomerge.errors import InputError
from evomerge.recipe import Recipe
from evomerge.runs._candidate_selection import picked_candidate
from evomerge.runs._model_card import model_card
from evomerge.runs._run_data import RunData

if TYPE_CHECKING:
    from evomerge.engine import LoraReport

FORMS = ("hf", "lora", "mergekit", "recipe")


def export_candidate(run: RunData, to: str | Path, *, pick: str, form: str, rank: int | str | None = None) -> str:
    """Write the picked candidate of `run` and return a sentence that says what was written.

    Args:
        run: where the candidate is.
        to: folder (hf, lora) or file (mergekit, recipe; '-': stdout).
        pick: best, knee, a number, or a preference.
        form: one of FORMS.
        rank: of a lora: a number or 'auto'; None: 'auto'.

    Raises:
        InputError: an unknown form or pick, or the target exists.
        WeightsError: the folder cannot be written, or a model has changed since the search.
    """
    if form not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    if rank is not None and form != "lora":  # refused, not ignored: the user expects a smaller file
        raise InputError(f"a rank is for --as lora, got --as {form}")
    candidate = picked_candidate(run, pick)
    if form in ("mergekit", "recipe"):
        recipe = candidate.recipe
        document = _mergekit(recipe) if form == "mergekit" else recipe.to_mapping()
        write_text(yaml_text(document, _heading(run, candidate, form)), to)
        return f"wrote candidate {candidate.number} as a {form} file: {to}"
    from evomerge.engine import export

    _check_revisions(candidate.recipe)  # before hours of merging
    if form == "lora":
        text = write_lora(candidate.recipe, to, rank, lambda lora: model_card(run, candidate, lora))
        return f"wrote candidate {candidate.number} to {text}"
    report = export(candidate.recipe, to, card=model_card(run, candidate))
    stored = run.fingerprint(candidate.number)  # '' where the run scored no weights, as with synthetic objectives
    # resident: of the weights before they were cast to out_dtype
    scored = report.resident_fingerprint or report.fingerprint
    if stored and scored != stored:
        raise InputError(
            f"the exported weights (fingerprint {scored}) differ from the scored weights ({stored}); "
            "another version of torch or evomerge may round differently: compare with evomerge replay"
        )
    proof = ", equal to the scored weights" if stored else ""
    return (
        f"wrote candidate {candidate.number} to {report.folder} "
        f"({report.bytes / 1e6:.1f} MB, fingerprint {report.fingerprint}{proof})" + findings_text(report.findings)
    )


def _mergekit(recipe: Recipe) -> dict[str, Any]:
    if recipe.route is None:
        return recipe.to_mergekit()
    from evomerge.engine import find_parents, route_to_mergekit

    return route_to_mergekit(recipe, find_parents(recipe.references(), dict(recipe.revisions)).layouts)


def write_lora(recipe: Recipe, to: str | Path, rank: int | str | None, card: Callable[[LoraReport], str]) -> str:
    """Write a recipe's model as an adapter of its base and return the end of a sentence about it.

    Raises:
        WeightsError: the rank is no rank, the recipe makes no adapter, or the folder cannot be written.
    """
    from evomerge.engine import export_lora, rank_of

    report = export_lora(recipe, to, rank=rank_of(rank), card=card)
    left = f"; not in the adapter: {', '.join(report.left_out)}" if report.left_out else ""
    return (
        f"{report.folder} as an adapter ({report.bytes / 1e6:.1f} MB, reconstruction error "
        f"{100 * report.relative_error:.2g}% of the change{left})"
    )


def findings_text(findings: Sequence[str]) -> str:
    """Return the findings about an exported folder, a line each; '' without any."""
    return "".join(f"\n  note: {finding}" for finding in findings)


def write_text(text: str, to: str | Path) -> None:
    """Write a text file, or print it where the name is '-'; an existing file is not overwritten."""
    if str(to) == "-":
        sys.stdout.write(text)
        return
    try:
        with open(to, "x", encoding="utf-8") as file:  # 'x' refuses an existing file without a race
            file.write(text)
    except FileExistsError:
        raise InputError(f"{to} exists; choose another name, or remove it first") from None
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from error


def _heading(run: RunData, candidate: Candidate, form: str) -> str:
    lines = [f"candidate {candidate.number} of {run.folder.name}; recipe {candidate.recipe.digest[:16]}"]
    reader = "mergekit-yaml this.yaml out" if form == "mergekit" else "evomerge merge this.yaml --to out"
    lines.append(f"merge it: {reader}")
    if form == "mergekit" and candidate.recipe.method.startswith(("dare", "della")):  # mergekit seeds no generator
        lines.append("mergekit draws other random masks, so its weights differ from the scored ones")
    return "\n".join(lines)


def _check_revisions(recipe: Recipe) -> None:
    from evomerge.checkpoints import revision_of

    for name, revision in recipe.revisions:
        if (found := revision_of(name)) != revision:
            raise InputError(
                f"model {name!r} has changed since the search (revision {found[:12]}, was "
                f"{revision[:12]}), so the export would differ from the scored model; restore the old "
                "files"
            )
