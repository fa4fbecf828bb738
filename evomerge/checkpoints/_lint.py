"""Consistency of a model folder's small files with each other and with the weights; each finding is a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.checkpoints._layout import Layout, read_json, read_layout, text_config
from evomerge.checkpoints._resolve import CONFIG

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def lint_folder(folder: Path) -> list[str]:
    """Return inconsistencies of a model's folder; [] when all is well. Reads headers and small files only.

    Checked: the special tokens' ids in config.json, generation_config.json and the tokenizer, tokens and rows of the
    embedding, the dtype, and the number of layers.
    """
    layout = read_layout(str(folder))  # refuses damaged files by itself
    found = _dtypes(layout)
    if layout.embedding is not None:
        rows = layout.embedding_rows()
        found += _rows(layout, rows)
        for name in (CONFIG, "generation_config.json"):
            if (folder / name).is_file():
                document = read_json(folder / name)
                # a multimodal config keeps its token ids with the text model
                found += _ids(name, document if name != CONFIG else text_config(document), rows)
    found += _specials(folder, layout)
    return found


def _dtypes(layout: Layout) -> list[str]:
    stated = layout.config.get("dtype") or layout.config.get("torch_dtype")
    # generation_config and old configs write torch.float32
    if stated is not None and str(stated).removeprefix("torch.") != layout.dtype:
        return [f"config.json says {stated}, most of the weights are {layout.dtype}"]
    return []


def _rows(layout: Layout, rows: int) -> list[str]:
    found = []
    stated = text_config(layout.config).get("vocab_size")
    if stated is not None and stated != rows:
        found.append(f"config.json says vocab_size {stated}, the embedding has {rows} rows")
    tokens = layout.vocabulary() or {}
    beyond = [token for token, index in tokens.items() if index >= rows]  # such a token would index out of range
    if beyond:
        found.append(f"{len(beyond)} tokens have no row in the embedding of {rows}, e.g. {beyond[0]!r}")
    return found


def _ids(name: str, document: Any, rows: int) -> list[str]:
    found = []
    for key in _IDS:
        value = document.get(key)
        for index in value if isinstance(value, list) else [value]:  # eos_token_id may be a list
            if isinstance(index, int) and not 0 <= index < rows:
                found.append(f"{name}: {key} {index} is no row of the embedding of {rows}")
    return found


def _specials(folder: Path, layout: Layout) -> list[str]:
    """Compare the tokenizer's special tokens with the ids that generation uses."""
    tokens = layout.vocabulary()
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    if tokens is None:
        return []
    path = folder / "generation_config.json"
    # generation_config.json overrides config.json in generate()
    generation = {**text_config(layout.config), **(read_json(path) if path.is_file() else {})}
    found = []
    for key in _IDS:
        token = settings.get(key.removesuffix("_id"))
        token = token.get("content") if isinstance(token, dict) else token  # an AddedToken is written as a mapping
        if token is None:
            continue
        if token not in tokens:
            found.append(f"tokenizer_config.json: {key.removesuffix('_id')} {token!r} is not in the vocabulary")
            continue
        value = generation.get(key)
        ids = value if isinstance(value, list) else [value]
        if value is not None and tokens[token] not in ids:
            found.append(f"{key}: the tokenizer's {token!r} is {tokens[token]}, generation uses {value}")
    return found
