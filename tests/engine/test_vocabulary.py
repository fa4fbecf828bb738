"""Vocabularies that differ: brought to one as mergekit does, or to the base's where only rows were added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.engine import ResidentModel, export, find_parents
from evomerge.errors import WeightsError
from evomerge.recipe import passthrough, recipe_from_mapping
from tests.engine.test_against_mergekit import by_mergekit, weights_of
from tests.pico import make_model, make_tokenizer

EMBEDDING = "model.embed_tokens.weight"
VOCAB = (EMBEDDING, "lm_head.weight")


def model_of(folder: Path, tokens: str, seed: int, rows: int | None = None) -> Path:
    """Return a model with a token per character of `tokens`, and perhaps more rows than tokens."""
    made = make_model(folder, seed=seed, vocab_size=rows or len(tokens) + 2, layers=2)
    make_tokenizer(made, tokens)
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vocabularies")
    return {
        "base": model_of(folder / "base", "abcdef", 0),
        "padded": model_of(folder / "padded", "abcdef", 1, rows=12),
        "more": model_of(folder / "more", "abcdefgh", 2),
        "other": model_of(folder / "other", "fedcbaxyz", 3),
        "less": model_of(folder / "less", "abcd", 4),
    }


def document(world: dict[str, Path], *names: str, base: str | None = "base", **more: Any) -> dict[str, Any]:
    weights = [{"filter": "embed", "value": 0.3}, {"value": 0.6}]
    models = [{"model": str(world[name]), "parameters": {"weight": weights}} for name in names]
    method = "task_arithmetic" if base else "linear"
    found = {"merge_method": method, "models": models, "dtype": "float32", **more}
    return {**found, "base_model": str(world[base])} if base else found


def by_token(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the rows of the vocabulary's tensors by token: mergekit numbers new tokens in an order of chance."""
    tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
    weights = weights_of(folder)
    return {name: {token: weights[name][row] for token, row in tokens.items()} for name in VOCAB}


CHOICES: dict[str, tuple[tuple[str, ...], str | None, dict[str, Any]]] = {
    "base": (("more", "other"), "base", {"tokenizer_source": "base"}),
    "a union": (("more", "other"), "base", {"tokenizer_source": "union"}),
    "a union of models that lack tokens": (("less", "padded", "other"), "more", {"tokenizer_source": "union"}),
    "one model's": (("more", "other"), "base", {"tokenizer": {"source": "other"}}),
    "the base's, padded": (("padded", "more"), "base", {"tokenizer": {"source": "base", "pad_to_multiple_of": 16}}),
    "a union by default": (("more",), "base", {"tokenizer": {"pad_to_multiple_of": 4}}),
    "tokens from elsewhere": (
        ("more", "other"),
        "base",
        {
            "tokenizer": {
                "source": "union",
                "tokens": {
                    "a": {"source": "other", "force": True},
                    "g": {"source": {"kind": "zero"}},
                    "x": {"source": {"kind": "model_token", "model": "base", "token": "b"}},
                    "y": {"source": {"kind": "model_token", "model": "more", "token_id": 3}, "force": True},
                    "new": {"source": {"kind": "model_token", "model": "other", "token": "z"}},
                },
            }
        },
    ),
    "no base: the mean of those that have a token": (("more", "other", "less"), None, {"tokenizer_source": "other"}),
}


def with_folders(value: Any, world: dict[str, Path]) -> Any:
    """Return a tokenizer choice in which models are folders."""
    if isinstance(value, dict):
        return {
            key: str(world[entry])
            if key in ("source", "model", "tokenizer_source")
            and isinstance(entry, str)
            and entry in world
            and entry != "base"
            else str(world["base"])
            if key == "model" and entry == "base"
            else with_folders(entry, world)
            for key, entry in value.items()
        }
    return value


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
@pytest.mark.parametrize("name", CHOICES)
def test_as_mergekit(name: str, world: dict[str, Path], tmp_path: Path) -> None:
    models, base, choice = CHOICES[name]
    merge = document(world, *models, base=base, **with_folders(choice, world))
    export(recipe_from_mapping(merge), tmp_path / "ours")
    by_mergekit(merge, tmp_path / "theirs")
    ours, theirs = by_token(tmp_path / "ours"), by_token(tmp_path / "theirs")
    for tensor in VOCAB:
        assert ours[tensor].keys() == theirs[tensor].keys()
        for token in ours[tensor]:
            # without a base the sum of weights is float64 here and float32 there, see test_against_mergekit
            difference = float((ours[tensor][token] - theirs[tensor][token]).abs().max())
            assert difference <= (0 if base else 2.4e-7), (tensor, token)
    found, expected = weights_of(tmp_path / "ours"), weights_of(tmp_path / "theirs")
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in expected.items()}
    configs = [json.loads((tmp_path / tool / "config.json").read_text()) for tool in ("ours", "theirs")]
    assert configs[0]["vocab_size"] == configs[1]["vocab_size"]
    count = len(AutoTokenizer.from_pretrained(tmp_path / "ours").get_vocab())
    for tensor in VOCAB:  # rows beyond the tokens
        torch.testing.assert_close(found[tensor][count:], expected[tensor][count:], rtol=0, atol=1e-7)
    assert torch.equal(found["model.norm.weight"], expected["model.norm.weight"]) or base is None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert model.get_input_embeddings().num_embeddings == found[EMBEDDING].shape[0]


def test_a_padded_model_is_aligned_to_its_base(world: dict[str, Path], tmp_path: Path) -> None:
    """Rows without a token beyond the base's are left out; the result has the base's vocabulary."""
    recipe = recipe_from_mapping(document(world, "padded"))
    export(recipe, tmp_path / "out")
    base, other, out = (weights_of(folder) for folder in (world["base"], world["padded"], tmp_path / "out"))
    for name, weight in ((EMBEDDING, 0.3), ("lm_head.weight", 0.6)):
        assert torch.equal(out[name], base[name] + (other[name][:8] - base[name]) * weight)
    parents = find_parents(recipe.references())
    alignment = parents.alignment(recipe)
    assert alignment is not None
    assert alignment.notes == (f"vocabulary of '{world['padded']}': 4 rows that '{world['base']}' lacks are left out",)


def test_rows_that_a_model_lacks_are_the_bases(world: dict[str, Path], tmp_path: Path) -> None:
    merge = document(world, "less", base="more")
    recipe = recipe_from_mapping(merge)
    export(recipe, tmp_path / "out")
    base, other, out = (weights_of(folder) for folder in (world["more"], world["less"], tmp_path / "out"))
    assert torch.equal(out[EMBEDDING][:6], base[EMBEDDING][:6] + (other[EMBEDDING] - base[EMBEDDING][:6]) * 0.3)
    assert torch.equal(out[EMBEDDING][6:], base[EMBEDDING][6:])
    resident = ResidentModel([str(world["more"]), str(world["less"])])
    assert resident.write(recipe) == export(recipe, tmp_path / "again").fingerprint


def test_two_names_for_one_row_are_two_tokens(tmp_path: Path) -> None:
    """Both fine-tunes added one token in the same row: the base's comes from the base alone."""
    one, two = model_of(tmp_path / "one", "abcX", 0), model_of(tmp_path / "two", "abcY", 1)
    merge = {
        "merge_method": "linear",
        "models": [{"model": str(one)}, {"model": str(two)}],
        "parameters": {"weight": 0.5},
        "dtype": "float32",
    }
    export(recipe_from_mapping(merge), tmp_path / "out")
    first, second, out = (weights_of(folder)[EMBEDDING] for folder in (one, two, tmp_path / "out"))
    assert torch.equal(out[5], first[5])
    assert torch.equal(out[4], (first[4] + second[4]) * 0.5)


def test_other_vocabularies_without_a_choice_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gives 6 tokens other ids.*tokenizer_source: base \(or union, or a model"):
        export(recipe_from_mapping(document(world, "other")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"g": {"source": {"kind": "model_token", "model": "more", "token": "q"}}}, r"has no token 'q'"),
        ({"g": {"source": "less", "force": True}}, r"is none of the models merged there"),
        ({"y": {"source": "more", "force": True}}, r"'.*more' has no token 'y'"),
    ],
)
def test_tokens_that_do_not_exist(tokens: dict[str, Any], message: str, world: dict[str, Path], tmp_path: Path) -> None:
    merge = document(world, "more", **with_folders({"tokenizer": {"source": "base", "tokens": tokens}}, world))
    with pytest.raises(WeightsError, match=message):
        export(recipe_from_mapping(merge), tmp_path / "out")


def test_a_parent_with_spare_rows_is_written_as_its_base_reads_it(world: dict[str, Path], tmp_path: Path) -> None:
    parent = recipe_from_mapping({**passthrough(str(world["padded"])).to_mapping(), "base_model": str(world["base"])})
    resident = ResidentModel([str(world["base"]), str(world["padded"])])
    assert resident.write(parent) == export(parent, tmp_path / "out").fingerprint
    with pytest.raises(WeightsError, match=r"rows of the embedding: .* has 8, the result has 12"):
        resident.write(passthrough(str(world["padded"])))
