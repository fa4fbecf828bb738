"""How users write a model: `path[@revision][+adapter[@revision]]`, as in mergekit, folders named anyhow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Keys of a merge document under which a model stands; `source` is that of a tokenizer and of its tokens.
MODEL_KEYS = ("model", "base_model", "tokenizer_source", "source")
HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")


@dataclass(frozen=True)
class ModelReference:
    """The parts of a model's name."""

    path: str  # folder or hub id
    revision: str | None = None  # commit, tag or branch of a hub id
    adapter: str | None = None  # folder or hub id of a PEFT LoRA adapter
    adapter_revision: str | None = None

    def __str__(self) -> str:
        text = self.path + (f"@{self.revision}" if self.revision else "")
        if self.adapter is None:
            return text
        return f"{text}+{self.adapter}" + (f"@{self.adapter_revision}" if self.adapter_revision else "")

    def to_mergekit(self) -> str | dict[str, object]:
        """Return what mergekit reads: the text, or a mapping where it would cut a folder's name at '+' or '@'."""
        if not set("+@") & set(self.path + (self.adapter or "")):
            return str(self)
        mapping: dict[str, object] = {"model": _part(self.path, self.revision)}
        if self.adapter is not None:
            mapping["lora"] = _part(self.adapter, self.adapter_revision)
        return mapping


def parse(text: str, folder: str = "") -> ModelReference | None:
    """Return the parts of a model's name, or None where it cannot be one.

    A name is cut at '+' and '@' so that what remains are folders that exist, or else hub ids; the longest folder wins,
    so folders may have these signs in their names. Where no cut finds its folders, it is cut as if there were none.

    Args:
        text: as users write it.
        folder: what relative folders are relative to; the working directory if empty.

    >>> parse("org/base@4f2a+org/lora")
    ModelReference(path='org/base', revision='4f2a', adapter='org/lora', adapter_revision=None)
    """
    return next((reading for reading in _readings(text) if _exists(reading, folder)), _plain(text))


def plain_models(node: Any) -> Any:
    """Return a document in which models that stand in mergekit's mapping form have become names.

    >>> plain_models({"base_model": {"model": {"path": "runs/a+b"}, "lora": {"path": "lora", "revision": "v1"}}})
    {'base_model': 'runs/a+b+lora@v1'}
    """
    if isinstance(node, Mapping):
        return {key: plain_models(_name(value) if key in MODEL_KEYS else value) for key, value in node.items()}
    return [plain_models(entry) for entry in node] if isinstance(node, list) else node


def is_folder(path: str, folder: str = "") -> bool:
    """Return whether a path names a folder on this machine."""
    return bool(path) and os.path.isdir(absolute(path, folder))


def absolute(path: str, folder: str = "") -> str:
    """Return a path without '~' and '..', relative ones taken as relative to `folder`."""
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def _readings(text: str) -> Iterator[ModelReference]:
    """Yield every reading of a name, those with the fewest parts first."""
    for path, revision in _revisions(text):
        yield ModelReference(path, revision)
    # the last '+' first: folders may hold one
    for at in (index for index in range(len(text) - 1, 0, -1) if text[index] == "+"):
        for path, revision in _revisions(text[:at]):
            for adapter, adapter_revision in _revisions(text[at + 1 :]):
                yield ModelReference(path, revision, adapter, adapter_revision)


def _revisions(part: str) -> Iterator[tuple[str, str | None]]:
    yield part, None
    path, sign, revision = part.rpartition("@")
    if sign and path and revision and "+" not in revision:  # an adapter's '+' is cut elsewhere
        yield path, revision


def _exists(reading: ModelReference, folder: str) -> bool:
    parts = [reading.path] if reading.adapter is None else [reading.path, reading.adapter]
    return all(is_folder(part, folder) or HUB_ID.fullmatch(part) for part in parts)  # hub ids are not looked up


def _plain(text: str) -> ModelReference | None:
    parts = [part.split("@") for part in text.split("+")]
    if len(parts) > 2 or any(len(part) > 2 or not all(part) for part in parts):  # several '+' or '@' fit no form
        return None
    (path, *revision), *adapters = parts
    if not adapters:
        return ModelReference(path, *revision)
    return ModelReference(path, revision[0] if revision else None, *adapters[0])


def _name(value: Any) -> Any:
    if not isinstance(value, Mapping) or "model" not in value or set(value) - {"model", "lora"}:
        return value
    parts = [value["model"], *([value["lora"]] if value.get("lora") else [])]
    names = [
        part.get("path", "") + (f"@{part['revision']}" if part.get("revision") else "")
        if isinstance(part, Mapping)
        else part
        for part in parts
    ]
    return "+".join(names) if all(isinstance(name, str) for name in names) else value


def _part(path: str, revision: str | None) -> dict[str, object]:
    return {"path": path} if revision is None else {"path": path, "revision": revision}
