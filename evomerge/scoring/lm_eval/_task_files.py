"""lm-eval's task files as written: which file says what, and where its relative paths lead.

lm-eval resolves a relative data file against the working directory, so a task works from one folder only. Here it
means relative to the YAML file that names it, also where that file was included by another.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import TaskError

# Loaders of the `datasets` library that read local files, as named under dataset_path.
FILE_LOADERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "xml")


@dataclass(frozen=True)
class CodeReference:
    """A `!function module.name` tag; lm-eval imports it, we only know that it is there."""

    name: str


@dataclass(frozen=True)
class TaskFile:
    """A task or group file with its includes merged in; `written_in` says which file set each key."""

    path: Path
    config: Mapping[str, Any]
    written_in: Mapping[str, Path]


class _Loader(yaml.SafeLoader):
    """YAML with lm-eval's one tag."""


_Loader.add_constructor("!function", lambda loader, node: CodeReference(str(node.value)))


def read_task_file(path: Path, within: tuple[Path, ...] = ()) -> TaskFile:
    """Return a task file with its includes; keys of a file win over those that it includes, as in lm-eval.

    Raises:
        TaskError: the file, or one that it includes, is missing, is not YAML, or includes itself.
    """
    path = path.expanduser().resolve()
    if path in within:
        raise TaskError(f"{path} includes itself, by way of {', '.join(str(step) for step in within[1:]) or 'itself'}")
    config = _mapping(path, within)
    includes = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        part = read_task_file(path.parent / str(name), (*within, path))
        merged |= {key: value for key, value in part.config.items() if key != "task_list"}
        origins |= part.written_in
    return TaskFile(path, {**merged, **config}, {**origins, **dict.fromkeys(config, path)})


def local_data(file: TaskFile) -> dict[str, Any]:
    """Return the keys of a task's config that must change so that its local paths are absolute; empty if none.

    Raises:
        TaskError: a local data file or folder does not exist; the message names the YAML and the path.
    """
    loader = file.config.get("dataset_path")
    changes: dict[str, Any] = {}
    if loader not in FILE_LOADERS:
        folder = _local_folder(file, loader)
        return changes if folder is None else {"dataset_path": folder}
    arguments = file.config.get("dataset_kwargs")
    if not isinstance(arguments, Mapping):
        raise TaskError(f"{file.path}: dataset_path {loader!r} needs dataset_kwargs with data_files")
    source = file.written_in["dataset_kwargs"]
    changed = dict(arguments)
    if "data_files" in arguments:
        changed["data_files"] = _absolute_files(arguments["data_files"], source)
    if isinstance(arguments.get("data_dir"), str):
        changed["data_dir"] = _absolute(arguments["data_dir"], source)
    return {"dataset_kwargs": changed}


def data_files(arguments: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the local files that resolved `dataset_kwargs` name, patterns expanded, sorted."""
    found: set[Path] = set()
    pending: list[Any] = [arguments.get("data_files"), arguments.get("data_dir")]
    while pending:
        entry = pending.pop()
        if isinstance(entry, Mapping):
            pending += entry.values()
        elif isinstance(entry, str):
            found |= {Path(name) for name in glob.glob(entry, recursive=True)}
        elif isinstance(entry, Iterable):
            pending += entry
    return tuple(sorted(found))


def broken_files(folders: Iterable[str]) -> list[str]:
    """Return a sentence per YAML file below `folders` that cannot be read; lm-eval passes over them in silence."""
    problems = []
    for folder in folders:
        for path in sorted(Path(folder).expanduser().glob("**/*.yaml")):
            try:
                read_task_file(path)
            except TaskError as error:
                problems.append(str(error))
    return problems


def _mapping(path: Path, within: tuple[Path, ...]) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise TaskError(f"{within[-1] if within else path} includes {path}, which does not exist") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TaskError(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        raise TaskError(f"{path}:{line} not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(config, dict):
        raise TaskError(f"{path}: expected a mapping of task settings, got {type(config).__name__}")
    return config


def _local_folder(file: TaskFile, loader: Any) -> str | None:
    """Return the absolute path of a dataset_path that is a local folder or script, None where it is a hub name."""
    if not isinstance(loader, str):
        return None
    source = file.written_in["dataset_path"]
    path = source.parent / Path(loader).expanduser()
    if path.exists():
        return str(path.resolve())
    if loader.startswith((".", "/", "~")):
        raise TaskError(f"{source}: dataset_path {loader!r} does not exist (looked for {path})")
    return None


def _absolute_files(entry: Any, source: Path) -> Any:
    if isinstance(entry, Mapping):
        return {split: _absolute_files(part, source) for split, part in entry.items()}
    if isinstance(entry, (list, tuple)):
        return [_absolute_files(part, source) for part in entry]
    if not isinstance(entry, str):
        raise TaskError(f"{source}: data_files must be paths, lists of paths, or both per split; got {entry!r}")
    return _absolute(entry, source)


def _absolute(entry: str, source: Path) -> str:
    if "://" in entry:
        return entry
    path = source.parent / Path(entry).expanduser()
    if not path.exists() and not glob.glob(str(path), recursive=True):
        raise TaskError(
            f"{source}: data file {entry!r} does not exist (looked for {path}); relative paths mean relative to "
            "the task file"
        )
    return str(path.resolve()) if path.exists() else str(path)
