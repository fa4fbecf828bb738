"""What a search file needs on another machine: found, measured, and laid out so that its relative paths still hold.

Relative paths travel with the file. Absolute ones, and those that begin with ~, are taken to be the cluster's: they are
left as they are, and need not exist here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge._model_reference import HUB_ID, absolute, parse, plain_models
from evomerge.config import load_plain, load_search_file
from evomerge.errors import InputError, SearchFileError
from evomerge.metric_kinds import METRICS
from evomerge.space import model_places

MOST_BYTES = 400 * 2**20  # Ray's own limit for a packed working folder is 500 MiB
# Only safetensors files are read, so other weight files would only make the upload larger.
NOT_TAKEN = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".pyc")


@dataclass(frozen=True)
class UploadBundle:
    """What travels with one search file."""

    root: str  # absolute folder that holds all of it
    search_file: str  # relative to root
    files: tuple[str, ...]  # relative to root, sorted
    bytes: int
    elsewhere: tuple[str, ...]  # paths as written that must exist on the cluster

    def lay_out(self, folder: str | Path) -> str:
        """Put everything into `folder`, as it lies below `root`; return a digest of names and contents.

        Files are linked where the file system allows, so that gigabytes cost nothing.
        """
        digest = hashlib.sha256()
        for name in self.files:
            source, target = os.path.realpath(os.path.join(self.root, name)), os.path.join(folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
            digest.update(f"{name}\0{os.path.getsize(target)}\0".encode())
            with open(target, "rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()[:12]


def pack(search_file: str | Path) -> UploadBundle:
    """Return what has to travel with a search file.

    Raises:
        SearchFileError: the file has mistakes, or names something relative that is not there.
        InputError: it is more than Ray takes.
    """
    path = os.path.abspath(search_file)
    folder = os.path.dirname(path)
    document = load_plain(path)
    needed, elsewhere, missing = [path], list[str](), list[str]()
    for name, kind in _named(document, folder):
        if name.startswith(("/", "~")):
            elsewhere.append(name)
        elif os.path.exists(absolute(name, folder)):
            needed.append(absolute(name, folder))
        elif kind == "path":
            missing.append(f"{name}: no such file or folder: {absolute(name, folder)}")
    if not any(not os.path.exists(os.path.expanduser(name)) for name in elsewhere):
        load_search_file(path)  # every mistake is reported here; what only the cluster has, it checks itself
    if missing:
        raise SearchFileError(path, missing)
    files = sorted({file for entry in needed for file in _files(entry)})
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    sizes = {file: os.path.getsize(file) for file in files}
    if sum(sizes.values()) > MOST_BYTES:
        raise InputError(_too_much(sizes))
    relative = tuple(os.path.relpath(file, root) for file in files)
    return UploadBundle(
        root, os.path.relpath(path, root), relative, sum(sizes.values()), tuple(dict.fromkeys(elsewhere))
    )


def _named(document: Mapping[str, Any], folder: str) -> Iterator[tuple[str, str]]:
    """Yield what a search file names: (text, 'path' or 'maybe'); a hub id or a task may look like a folder."""
    merge = plain_models(document.get("merge") or {})
    with suppress(AttributeError, KeyError, TypeError):  # a file of another form: load_search_file says what is wrong
        for _, model in model_places(merge):
            reference = parse(model, folder)
            for part in () if reference is None else (reference.path, reference.adapter):
                if part is not None:
                    yield part, "maybe" if HUB_ID.fullmatch(part) else "path"
    with suppress(AttributeError, TypeError):
        yield from ((name, "path") for name in (document.get("tasks") or {}).get("include") or ())
    scoring = document.get("scoring")
    if isinstance(scoring, Mapping):
        if isinstance(scoring.get("bank"), str):
            yield scoring["bank"], "path"
        cache = scoring.get("cache")
        if isinstance(cache, str) and not cache.startswith(("/", "~")):
            raise InputError(
                f"scoring.cache {cache!r} is relative, and a job's folder is removed after it: name an absolute folder "
                "of the cluster, or leave it out"
            )
    objectives = document.get("objectives")
    for entry in objectives if isinstance(objectives, list) else ():
        if isinstance(entry, Mapping):
            yield from _named_by_objective(entry, folder)


def _named_by_objective(entry: Mapping[str, Any], folder: str) -> Iterator[tuple[str, str]]:
    for kind, info in METRICS.items():
        value = entry.get(kind)
        if isinstance(value, str) and info.short in info.files:
            yield value, "maybe" if kind == "response_length" else "path"
        elif isinstance(value, Mapping):
            yield from ((value[key], "path") for key in info.files if isinstance(value.get(key), str))
    python = entry.get("python")
    function = python.get("function") if isinstance(python, Mapping) else python
    if isinstance(function, str):
        module = function.partition(":")[0].partition(".")[0]
        for name in (f"{module}.py", module):  # a module or package beside the search file; otherwise it is installed
            if module and os.path.exists(os.path.join(folder, name)):
                yield name, "path"


def _files(entry: str) -> Iterator[str]:
    """Yield the files at or below a path; what is hidden, and pickled weights, stay at home."""
    if os.path.isfile(entry):
        yield entry
        return
    walked: set[str] = set()  # links may lead in circles
    for folder, below, names in os.walk(entry, followlinks=True):
        walked.add(os.path.realpath(folder))
        below[:] = [
            name
            for name in below
            if not name.startswith(".")
            and name != "__pycache__"
            and os.path.realpath(os.path.join(folder, name)) not in walked
        ]
        yield from (
            os.path.join(folder, name) for name in names if not name.startswith(".") and not name.endswith(NOT_TAKEN)
        )


def _too_much(sizes: Mapping[str, int]) -> str:
    largest = sorted(sizes, key=lambda file: -sizes[file])[:3]
    names = ", ".join(f"{file} ({sizes[file] / 2**20:.0f} MiB)" for file in largest)
    return (
        f"what the search file names by relative paths is {sum(sizes.values()) / 2**20:.0f} MiB, and a job takes "
        f"{MOST_BYTES // 2**20} MiB; the largest: {names}. Name models by hub id, or by the absolute path that they "
        "have on the cluster's nodes"
    )
