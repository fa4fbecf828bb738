"""Loading tasks by name: where each is defined, where its data is, and everything that is wrong at once.

lm-eval's TaskManager does the loading and is handed in; what is added is that relative paths mean relative to the
task file, that local data is read afresh, and that mistakes are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import TaskError, near
from evomerge.scoring.lm_eval._documents import Catalogue, catalogue
from evomerge.scoring.lm_eval._settings import TaskSettings
from evomerge.scoring.lm_eval._task_files import CodeReference, broken_files, data_files, local_data, read_task_file

# Names of the exceptions that mean "not on this machine, and the hub cannot be asked".
OFFLINE = {"ConnectionError", "DatasetNotFoundError", "HfHubHTTPError", "LocalEntryNotFoundError", "RequestException"}


@dataclass(frozen=True)
class Leaf:
    """One loaded task: lm-eval's object, its documents as lm-eval sees them, and how they are named."""

    task: Any
    contents: tuple[Any, ...]
    catalogue: Catalogue
    source: str


class Loading:
    """One loading of tasks: finds names, resolves paths, and gathers every problem before it raises.

    Args:
        settings: where task files are, and how tasks are asked.
        scratch: folder for the datasets library, removed by the caller afterwards.
        manager: gives lm-eval's TaskManager for folders, with or without lm-eval's own tasks.
    """

    def __init__(self, settings: TaskSettings, scratch: str, manager: Callable[[list[str], bool], Any]) -> None:
        self._settings = settings
        self._scratch = scratch
        self._make_manager = manager
        self._manager: Any = None  # lm-eval's task manager for the name that is being loaded
        self._folders = list(settings.include)
        self._problems: list[str] = []

    def load(self, names: list[str]) -> tuple[dict[str, Leaf], dict[str, tuple[str, ...]]]:
        """Return the loaded tasks by name, and the tasks that each group or tag stands for."""
        names = [self._path_or_name(name) for name in names]
        missing = [folder for folder in self._folders if not Path(folder).expanduser().is_dir()]
        if missing:
            raise TaskError(f"tasks.include: no folder {', '.join(repr(folder) for folder in missing)}")
        unknown = [name for name in names if name not in self._own.task_index and name not in self._builtin.task_index]
        if unknown:
            raise TaskError(self._unknown(unknown))
        leaves: dict[str, Leaf] = {}
        groups: dict[str, tuple[str, ...]] = {}
        for name in names:
            loaded = self._attempt(name)
            leaves |= loaded
            if list(loaded) != [name]:
                groups[name] = tuple(loaded)
        if self._problems:
            raise TaskError("\n".join(self._problems))
        return leaves, groups

    @cached_property
    def _own(self) -> Any:
        """Tasks of the included folders alone: reading lm-eval's own 14,000 takes seconds."""
        return self._make_manager(self._given_folders(), False)

    @cached_property
    def _builtin(self) -> Any:
        return self._make_manager([], True)

    @cached_property
    def _combined(self) -> Any:
        return self._make_manager(self._given_folders(), True)

    def _given_folders(self) -> list[str]:
        return [str(Path(folder).expanduser()) for folder in self._folders]

    def _manager_of(self, name: str) -> Any:
        """Return the manager with the fewest tasks that loads `name` as lm-eval would with all of them."""
        own = self._own.task_index
        if _complete(own, name):
            return self._own
        if name in own:
            return self._combined  # a group with members among lm-eval's own tasks
        builtin = self._builtin.task_index
        # A folder's task replaces lm-eval's task of that name, in lm-eval's groups too.
        replaced = builtin[name].kind.name in ("GROUP", "TAG") and not own.keys().isdisjoint(builtin)
        return self._combined if replaced else self._builtin

    def _path_or_name(self, name: str) -> str:
        """Return the task's name for the path of a task file, whose folder then counts as included."""
        if not name.endswith((".yaml", ".yml")):
            return name
        config = read_task_file(Path(name)).config if Path(name).is_file() else {}
        found = config.get("task") if isinstance(config.get("task"), str) else config.get("group")
        if not isinstance(found, str):
            raise TaskError(f"{name}: no such task file, or it names no task")
        self._folders.append(str(Path(name).parent))
        return found

    def _unknown(self, names: list[str]) -> str:
        own = list(self._own.task_index)
        lines = []
        for name in names:
            # lm-eval knows thousands of names; the near ones are enough.
            hint = near(name, [*own, *self._builtin.task_index]).partition("Known:")[0]
            known = f"Tasks in the included folders: {', '.join(own)}." if own else ""
            lines.append(f"unknown task {name!r}. {hint}{known}".rstrip())
        return "\n".join([*lines, *broken_files(self._folders)])

    def _attempt(self, name: str) -> dict[str, Leaf]:
        self._manager = self._manager_of(name)
        try:
            return self._load(name, {})
        except TaskError as error:
            self._problems.append(str(error))
        except Exception as error:  # lm-eval and datasets raise anything; the task is named and the cause kept
            self._problems.append(self._explained(name, error))
        return {}

    def _load(self, name: str, overrides: Mapping[str, Any]) -> dict[str, Leaf]:
        entry = self._manager.task_index[name]
        kind = entry.kind.name
        if kind == "TAG":
            return self._merged((member, overrides) for member in sorted(entry.tags))
        if kind == "GROUP":
            return self._group(name, Path(entry.yaml_path), overrides)
        file = read_task_file(Path(entry.yaml_path)) if entry.yaml_path else None
        if file is not None and "dataset_kwargs" not in overrides:
            overrides = {**overrides, **local_data(file)}
        overrides = self._with_scratch(overrides)
        # A group of one is how lm-eval's public loader takes a registered task with changes.
        spec = {"group": f"only::{name}", "task": [{**overrides, "task": name}]} if overrides else name
        return self._leaves(self._manager.load([spec])["tasks"], str(entry.yaml_path))

    def _group(self, name: str, path: Path, overrides: Mapping[str, Any]) -> dict[str, Leaf]:
        config = read_task_file(path).config
        members = config.get("task")
        structure = {"group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata", "version"}
        shared = {key: value for key, value in config.items() if key not in structure} | dict(overrides)
        listed = _members(members) if isinstance(members, list) else None
        code = any(isinstance(value, CodeReference) for value in _walk([members, shared]))
        if listed is None or code or any(member not in self._manager.task_index for member, _ in listed):
            return self._leaves(self._manager.load([name])["tasks"], str(path))  # defined in place: lm-eval's own way
        return self._merged((member, {**shared, **own}) for member, own in listed)

    def _merged(self, members: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Leaf]:
        loaded: dict[str, Leaf] = {}
        for member, overrides in members:
            loaded |= self._load(member, overrides)
        return loaded

    def _with_scratch(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Read local files afresh: a cache keyed by name and time has served old contents of a changed file."""
        if "dataset_kwargs" not in overrides:
            return dict(overrides)
        fresh = {"cache_dir": self._scratch, "keep_in_memory": True}
        return {**overrides, "dataset_kwargs": {**overrides["dataset_kwargs"], **fresh}}

    def _leaves(self, tasks: Mapping[str, Any], source: str) -> dict[str, Leaf]:
        leaves = {}
        for name, task in tasks.items():
            self._configure(name, task)
            contents = tuple(task.eval_docs)
            if not contents:
                raise TaskError(f"task {name!r} ({source}) has no documents")
            leaves[name] = Leaf(task, contents, catalogue(name, contents), source)
        return leaves

    def _configure(self, name: str, task: Any) -> None:
        """Apply the settings as `simple_evaluate` does, and refuse what it would refuse."""
        if getattr(task, "UNSAFE_CODE", False) and not self._settings["confirm_run_unsafe_code"]:
            raise TaskError(
                f"task {name!r} runs code that the model writes; --allow-code-execution allows it, in a sandbox"
            )
        if getattr(task, "MULTIMODAL", False):
            raise TaskError(f"task {name!r} needs images or sound, which a merge of text models cannot answer")
        changes = self._settings["gen_kwargs"]
        if changes and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(changes), update=True)
        shots = self._settings["num_fewshot"]
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=shots or 0)
        elif shots is not None and task.get_config("num_fewshot") != 0:  # lm-eval: an explicit 0 is the task's word
            task.set_config(key="num_fewshot", value=shots)

    def _explained(self, name: str, error: Exception) -> str:
        entry = self._manager.task_index[name]
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & OFFLINE:
            config = read_task_file(Path(entry.yaml_path)).config if entry.yaml_path else {}
            return (
                f"task {name!r} needs the network: its dataset {config.get('dataset_path')!r} is on the Hugging Face "
                f"hub, which cannot be reached ({error}). Load the task once on a machine with network and copy its "
                "cache (HF_HOME), or write a task file whose data_files are local"
            )
        told = f"task {name!r} ({entry.yaml_path}) cannot be loaded: {_cause(error)}"
        if "DatasetGenerationError" in kinds and entry.yaml_path:
            files = data_files(local_data(read_task_file(Path(entry.yaml_path))).get("dataset_kwargs", {}))
            told += f" (reading {', '.join(str(file) for file in files)})"
        return told


def _cause(error: BaseException) -> str:
    """Return what is at the bottom of an error from lm-eval or datasets, in words where we know better ones."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration):
        return "its data has no documents"
    if isinstance(error, KeyError):
        return f"its data has no field or split {error}"
    if "malformed node" in str(error):
        return "doc_to_choice or doc_to_target gives a text that is not a list; is a field's name misspelt?"
    return f"{type(error).__name__}: {error}"


def _members(members: Sequence[Any]) -> list[tuple[str, dict[str, Any]]] | None:
    """Return (name, overrides) per member of a group; None where a member is a group defined in place."""
    listed: list[tuple[str, dict[str, Any]]] = []
    for member in members:
        if isinstance(member, str):
            listed.append((member, {}))
        elif isinstance(member, Mapping) and isinstance(member.get("task"), str) and "group" not in member:
            listed.append((member["task"], {key: value for key, value in member.items() if key != "task"}))
        else:
            return None
    return listed


def _complete(index: Mapping[str, Any], name: str) -> bool:
    """True where `index` has a task, and everything that a group refers to."""
    if name not in index:
        return False
    entry = index[name]
    if entry.kind.name != "GROUP":
        return True
    members = (entry.cfg or {}).get("task")
    listed = _members(members) if isinstance(members, list) else None
    return listed is not None and all(_complete(index, member) for member, _ in listed)


def _walk(node: Any) -> Iterator[Any]:
    yield node
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _walk(value)
