"""Which chat template a merged model gets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from evomerge.engine import export
from evomerge.engine._chat_template import stored_template
from evomerge.errors import WeightsError
from evomerge.recipe import recipe_from_mapping

ONE, TWO = "{{ messages[0].content }}", "{% for m in messages %}{{ m.content }};{% endfor %}"


def with_template(folder: Path, template: Any, target: Path) -> Path:
    made = Path(shutil.copytree(folder, target))
    path = made / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    return made


def test_auto_is_what_most_models_have(llama: Any, tmp_path: Path) -> None:
    folders = [
        with_template(llama.base, ONE, tmp_path / "base"),
        with_template(llama.one, TWO + "\n", tmp_path / "one"),
        with_template(
            llama.two, [{"name": "tool", "template": ONE}, {"name": "default", "template": TWO}], tmp_path / "two"
        ),
    ]
    document = {
        "merge_method": "linear",
        "models": [{"model": str(folder)} for folder in folders],
        "parameters": {"weight": 1.0},
        "chat_template": "auto",
    }
    export(recipe_from_mapping(document), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi;"
    assert stored_template(folders[2]) == TWO
    del document["chat_template"]
    export(recipe_from_mapping(document), tmp_path / "kept")
    assert stored_template(tmp_path / "kept") == ONE


def test_names_of_templates_are_refused(llama: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected 'auto' or a Jinja template, got 'chatml'; write the template"):
        export(llama.recipe(chat_template="chatml"), tmp_path / "out")
