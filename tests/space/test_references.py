"""Models whose folders have '+' and '@' in their names: resolved, merged, and written for mergekit."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evomerge._model_reference import ModelReference, parse, plain_models
from evomerge.config import load_recipe
from evomerge.recipe import recipe_from_mapping
from evomerge.space import resolve_model, short_names


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "run@3+v2"
    for name in ("base", "a+b", "x@1", "lora"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("base", ("base",)),
        ("a+b", ("a+b",)),
        ("x@1", ("x@1",)),
        ("a+b+lora", ("a+b", "lora")),
        ("base+x@1", ("base", "x@1")),
        ("../run@3+v2/base+../run@3+v2/lora", ("base", "lora")),
    ],
)
def test_relative_folders_are_found_whatever_their_names(text: str, parts: tuple[str, ...], odd: Path) -> None:
    resolved, wrong = resolve_model(text, str(odd))
    assert wrong is None
    assert resolved == "+".join(str(odd / part) for part in parts)
    assert parse(resolved) == ModelReference(str(odd / parts[0]), None, *(str(odd / part) for part in parts[1:]))


def test_hub_ids_stay_as_they_are(odd: Path) -> None:
    for text in ("org/base@4f2a", "org/base@4f2a+org/lora@v1"):
        assert resolve_model(text, str(odd)) == (text, None)
    resolved, _ = resolve_model("org/base@4f2a+x@1", str(odd))
    assert resolved == f"org/base@4f2a+{odd}/x@1"


def test_what_cannot_be_a_model_is_refused(odd: Path) -> None:
    for text in ("a+b+c+d", "base@1@2", "base@"):
        _, wrong = resolve_model(text, str(odd))
        assert wrong is not None


def test_a_recipe_of_such_folders_goes_to_mergekit_and_back(odd: Path, tmp_path: Path) -> None:
    document = {
        "merge_method": "task_arithmetic",
        "base_model": str(odd / "base"),
        "models": [{"model": str(odd / "a+b")}, {"model": f"{odd}/base+{odd}/lora"}],
        "parameters": {"weight": 0.5},
    }
    recipe = recipe_from_mapping(document)
    mergekit = recipe.to_mergekit()
    assert mergekit["models"][0]["model"] == {"model": {"path": str(odd / "a+b")}}
    assert mergekit["models"][1]["model"] == {"model": {"path": f"{odd}/base"}, "lora": {"path": f"{odd}/lora"}}
    assert recipe_from_mapping(mergekit) == recipe
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(mergekit))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    config = pytest.importorskip("mergekit.config").MergeConfiguration.model_validate(mergekit)
    assert {model.model.path for model in config.referenced_models()} == {str(odd / "base"), str(odd / "a+b")}


def test_names_of_genes_do_not_depend_on_what_is_on_this_machine() -> None:
    assert short_names(["/x/v@1/add", "/x/v@1/sort"]) == {"/x/v@1/add": "add", "/x/v@1/sort": "sort"}
    assert short_names(["org/base@feature/x", "org/math"]) == {"org/base@feature/x": "base", "org/math": "math"}


def test_only_models_in_the_mapping_form_are_changed() -> None:
    document = {"models": [{"model": "a"}], "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}
    assert plain_models(document) == document
    assert plain_models({"base_model": {"model": "org/a"}}) == {"base_model": "org/a"}
