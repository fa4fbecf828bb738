"""`evomerge merge`: a recipe in, a folder with lineage out; shards that both tools read; a recipe from the wild."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from evomerge.checkpoints import revision_of
from evomerge.cli import main
from evomerge.commands import merge_recipe
from evomerge.config import load_recipe
from evomerge.engine import export
from evomerge.errors import InputError
from tests.engine.test_against_mergekit import by_mergekit, largest_difference, weights_of
from tests.pico import fingerprint_of, make_model, make_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = make_model(folder / "base", layers=6)
    for seed, name in enumerate(("math", "code"), start=1):
        make_model(folder / name, seed=seed, noise_from=base, layers=6)
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "math" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return folder


def recipe_file(folder: Path, **changes: Any) -> Path:
    document = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "math"}, {"model": "code"}],
        "parameters": {"weight": 0.5},
        "dtype": "float32",
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def front_of(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)---\n", card, re.DOTALL)
    assert match
    return yaml.safe_load(match.group(1))


def test_the_card_tells_the_lineage(made: Path, tmp_path: Path) -> None:
    merge_recipe(recipe_file(made), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert front_of(card) == {
        "base_model": ["base", "math", "code"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "evomerge", "task_arithmetic"],
    }
    for part in (
        "- `base`: apache-2.0",
        "- `code`: not stated in its folder",
        "**Note:** licence cc-by-nc-4.0 of math forbids commercial use, also of the merge",
        "**Note:** no licence found for code",
        f"- `math` at `{revision_of(str(made / 'math'))}`",
        "merge_method: task_arithmetic",
    ):
        assert part in card
    assert str(made) not in card  # folders of this machine are nobody's business
    assert {"recipe.json", "mergekit_config.yml"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_one_licence_of_all_is_that_of_the_result(made: Path, tmp_path: Path) -> None:
    recipe = recipe_file(made, models=[{"model": "base"}], merge_method="passthrough", parameters={}, base_model="base")
    merge_recipe(recipe, tmp_path / "out")
    assert front_of((tmp_path / "out" / "README.md").read_text())["license"] == "apache-2.0"


@pytest.mark.filterwarnings("ignore")  # peft's own
def test_as_an_adapter(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["merge", str(recipe_file(made)), "--to", str(out), "--as", "lora", "--rank", "8"]) == 0
    said = capsys.readouterr().err
    assert f"wrote {out} as an adapter" in said
    assert "reconstruction error" in said
    card = (out / "README.md").read_text()
    front = front_of(card)
    assert (front["base_model"], front["base_model_relation"], front["library_name"]) == (["base"], "adapter", "peft")
    assert "A LoRA adapter of `base`, rank 8." in card
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (8, str(made / "base"))
    assert main(["merge", str(recipe_file(made)), "--to", str(tmp_path / "x"), "--rank", "8"]) == 2
    assert main(["merge", str(recipe_file(made)), "--to", str(tmp_path / "x"), "--as", "lora", "--rank", "many"]) == 2
    assert not (tmp_path / "x").exists()


def test_forms_that_are_none(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got form 'gguf'"):
        merge_recipe(recipe_file(made), tmp_path / "out", form="gguf")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
def test_three_shards_are_read_by_transformers_and_by_mergekit(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = load_recipe(recipe_file(made))
    total = sum(tensor.numel() * 4 for tensor in weights_of(made / "base").values())
    report = export(recipe, out, shard_bytes=total // 3 + 2000)
    assert len(list(out.glob("model-*-of-00003.safetensors"))) == 3
    loaded = AutoModelForCausalLM.from_pretrained(out).state_dict()
    written = weights_of(out)
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], written[name]) for name in written)
    document = {"merge_method": "passthrough", "models": [{"model": str(out)}], "dtype": "float32"}
    assert largest_difference(written, by_mergekit(document, tmp_path / "copy")) == 0
    assert fingerprint_of(str(tmp_path / "copy")) == report.fingerprint
    again = by_mergekit(yaml.safe_load((out / "mergekit_config.yml").read_text()), tmp_path / "again")
    assert largest_difference(written, again) == 0  # and the YAML beside it makes the same weights there


# In the form of the TIES and slice merges that people publish: runs of layers with gradients and filters of their own,
# a tokenizer that is nobody's alone, and an output dtype.
WILD = """
slices:
  - sources:
      - {model: base, layer_range: [0, 4]}
      - model: math
        layer_range: [0, 4]
        parameters:
          density: [1, 0.7, 0.1]
          weight:
            - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
            - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
            - {value: 0.5}
      - model: chat
        layer_range: [1, 5]
        parameters:
          density: 0.33
          weight:
            - {filter: mlp, value: 0.5}
            - {value: 0}
  - sources:
      - {model: base, layer_range: [3, 6]}
      - {model: math, layer_range: [3, 6], parameters: {weight: {value: [0.2, 0.9]}, density: 0.5}}
      - {model: chat, layer_range: [2, 5], parameters: {weight: 0.4, density: [0.9, 0.3]}}
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
tokenizer_source: union
dtype: float32
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
def test_a_recipe_from_the_wild_by_both_tools(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices, gradients, filters and a union of vocabularies, and not one bit apart."""
    chat = make_model(made / "chat", seed=5, layers=6, vocab_size=100)
    make_tokenizer(chat, "".join(chr(code) for code in range(32, 127)) + "äöü")
    (made / "wild.yaml").write_text(WILD)
    merge_recipe(made / "wild.yaml", tmp_path / "ours")
    monkeypatch.chdir(made)
    theirs = by_mergekit(yaml.safe_load(WILD), tmp_path / "theirs")
    ours = weights_of(tmp_path / "ours")
    assert ours["model.embed_tokens.weight"].shape == (100, 16)
    assert "model.layers.6.mlp.up_proj.weight" in ours
    if (tmp_path / "theirs" / "tokenizer.json").is_file():  # mergekit numbers new tokens in an order of chance
        from transformers import AutoTokenizer

        tokens = [AutoTokenizer.from_pretrained(tmp_path / tool).get_vocab() for tool in ("ours", "theirs")]
        order = torch.tensor([tokens[1][token] for token, _ in sorted(tokens[0].items(), key=lambda item: item[1])])
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            theirs[name] = theirs[name][order]
    assert largest_difference(ours, theirs) == 0
