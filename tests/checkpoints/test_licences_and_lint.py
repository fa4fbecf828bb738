from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints import licence_of, licence_warnings, lint_folder


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, None),
        ({"README.md": "---\nlicense: Apache-2.0\ntags: [a]\n---\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: llama3.1\n---\n"}, "llama3.1"),
        ({"README.md": "---\nlicense: [mit, apache-2.0]\n---\n"}, "mit"),
        ({"README.md": "no front matter", "config.json": '{"license": "mit"}'}, "mit"),
        (
            {
                "README.md": "---\nlicense: [unclosed\n---\n",
                "LICENSE": "MIT\n\nPermission is hereby granted, free of charge",
            },
            "mit",
        ),
        ({"LICENSE.txt": "GNU GENERAL PUBLIC\nLICENSE Version 3"}, "gpl-3.0"),
        ({"LICENSE": "GNU GENERAL PUBLIC LICENSE\n  Version 2, June 1991"}, "gpl-2.0"),
        ({"LICENSE": "All rights reserved."}, None),
    ],
)
def test_where_a_licence_is_found(files: dict[str, str], licence: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence


@pytest.mark.parametrize(
    ("licences", "words"),
    [
        ({"a": "apache-2.0", "b": "mit"}, []),
        ({"a": None, "b": None}, []),
        ({"a": "mit", "b": None}, ["no licence found for b"]),
        ({"a": "mit", "b": "cc-by-nc-4.0"}, ["of b forbids commercial use"]),
        ({"a": "mit", "b": "cc-by-nd-4.0"}, ["of b forbids distribution of modified versions"]),
        ({"a": "gpl-3.0", "b": "mit"}, []),
        ({"a": "gpl-3.0", "b": "cc-by-sa-4.0"}, ["incompatible licences: each of gpl-3.0 (a), cc-by-sa-4.0 (b)"]),
        ({"a": "gpl-3.0", "b": "llama3"}, ["incompatible licences: each of gpl-3.0 (a), llama3 (b)"]),
        ({"a": "gemma", "b": "llama3"}, ["the terms of gemma (a), llama3 (b) all apply"]),
        ({"a": "llama3", "b": "llama3"}, []),
    ],
)
def test_licences_together(licences: dict[str, str | None], words: list[str]) -> None:
    found = licence_warnings(licences)
    assert len(found) == len(words)
    for text, part in zip(found, words, strict=True):
        assert part in text


def edit(path: Path, **entries: Any) -> None:
    document = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**document, **entries}))


def test_a_folder_in_order(llama: Any) -> None:
    assert lint_folder(llama.base) == []


@pytest.mark.parametrize(
    ("file", "entries", "finding"),
    [
        ("config.json", {"vocab_size": 96}, "config.json says vocab_size 96, the embedding has 97 rows"),
        ("config.json", {"dtype": "bfloat16"}, "config.json says bfloat16, most of the weights are float32"),
        ("config.json", {"pad_token_id": 97}, "config.json: pad_token_id 97 is no row of the embedding of 97"),
        ("generation_config.json", {"eos_token_id": [0, -2]}, "generation_config.json: eos_token_id -2 is no row"),
        (
            "generation_config.json",
            {"eos_token_id": 5},
            "eos_token_id: the tokenizer's '</s>' is 0, generation uses 5",
        ),
        ("tokenizer_config.json", {"pad_token": "<pad>"}, "pad_token '<pad>' is not in the vocabulary"),
    ],
)
def test_what_does_not_agree(file: str, entries: dict[str, Any], finding: str, llama: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama.base, tmp_path / "odd"))
    edit(folder / file, **entries)
    assert any(finding in text for text in lint_folder(folder)), lint_folder(folder)
