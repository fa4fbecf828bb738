"""The floors, facades and doors of the house, read from the import statements of every file.

A module imports only from lower floors, from another room only through its facade, and each outside package has one
door. See docs/architecture.md; the numbers are printed by `python benchmarks/house/measure.py`.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.house import measure

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "evomerge"
FOUND = measure.modules(ROOT)

# Lowest first. A name is a module or a package directly below evomerge/.
FLOORS = [
    [
        "errors",
        "_facade",
        "_arguments",
        "option_fields",
        "version",
        "_yaml_text",
        "_model_reference",
        "_tokenizer",
        "_markup",
    ],
    ["merge", "irt", "pareto", "surrogates", "stats"],
    ["metric_kinds"],
    ["recipe", "candidate", "objectives", "space"],
    ["controllers", "checkpoints"],
    ["engine", "archive"],
    ["scoring"],
    ["run_config"],
    ["workers"],
    ["loop", "config"],
    ["runs"],
    ["reports"],
    ["commands"],
    ["cli"],
]
# On one floor, yet one may read the other; never both ways.
NEIGHBOURS = {
    ("surrogates", "pareto"),  # a predicted front is a front
    ("irt", "stats"),  # intervals of estimates are normal
    ("space", "recipe"),  # a genotype decodes to a recipe
    ("candidate", "recipe"),
    ("objectives", "candidate"),
    ("option_fields", "errors"),
    ("_arguments", "errors"),
}

# outside package -> the only places that import it, relative to evomerge/
DOORS = {
    "ray": {"workers/ray/"},
    "lm_eval": {"scoring/lm_eval/_adapter.py"},
    "cma": {"controllers/_cma_es.py"},
    "optuna": {"controllers/_optuna_samplers.py", "runs/_optuna_storage.py"},
    "transformers": {"checkpoints/", "engine/"},
    "safetensors": {"checkpoints/", "engine/"},
    "peft": {"checkpoints/", "engine/"},
    "huggingface_hub": {"checkpoints/"},
    "pydantic": {"config/"},
    "mergekit": set(),
    "numba": {"merge/kernels/_numba_loops.py"},
    "sqlite3": {"archive/", "scoring/_answer_cache.py"},
    "altair": {"reports/figures/"},
    "vl_convert": {"reports/figures/"},
    "fsspec": {"archive/_backup.py"},
    "tensorboardX": {"reports/trackers/_tensorboard.py"},
    "tensorboard": {"reports/trackers/_tensorboard.py"},
    "wandb": {"reports/trackers/_wandb.py"},
    "mlflow": {"reports/trackers/_mlflow.py"},
}
HEAVY = {
    "torch",
    "transformers",
    "ray",
    "lm_eval",
    "cma",
    "optuna",
    "peft",
    "datasets",
    "mlflow",
    "wandb",
    "tensorboard",
}
# Read without torch: a laptop that only looks at a run, a driver that only schedules.
LIGHT = {
    *("errors", "_facade", "option_fields", "version", "_yaml_text", "_model_reference", "_tokenizer", "_markup"),
    *("metric_kinds", "recipe", "candidate", "objectives", "run_config"),
    *("space", "pareto", "surrogates", "irt", "stats", "archive", "controllers", "loop", "config", "runs", "cli"),
}


def files() -> list[Path]:
    return [path for path, _ in FOUND.values()]


def place(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports(path: Path, *, at_import_only: bool = False) -> Iterator[str]:
    """Yield the dotted names that a file imports; all of them, or only those executed on import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: Iterator[ast.AST] = iter(_executed_on_import(tree)) if at_import_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _executed_on_import(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found += [node, *_executed_on_import(node)]
    return found


def floor_of(name: str) -> int | None:
    return next((height for height, rooms in enumerate(FLOORS) if name in rooms), None)


def facades() -> list[str]:
    return [name for name, (path, tree) in FOUND.items() if path.name == "__init__.py" and measure.listed(tree)]


@pytest.mark.parametrize("name", sorted(FOUND))
def test_imports_only_from_lower_floors(name: str) -> None:
    here = measure.room(name)
    if here in {"", "__main__"}:
        return  # the public API and `python -m evomerge` stand above all floors
    height = floor_of(here)
    assert height is not None, f"evomerge/{here} has no floor: put it on one here and in docs/architecture.md"
    for _, target, _ in measure.internal_imports({name: FOUND[name]}, FOUND):
        there = measure.room(target)
        if there in {here, ""}:
            continue
        other = floor_of(there)
        assert other is not None, f"{name} imports {target}, which has no floor"
        assert other < height or (here, there) in NEIGHBOURS, f"{here} must not import {there}: {name} -> {target}"


def test_rooms_are_entered_through_their_facades() -> None:
    assert measure.cross_room(FOUND) == []


def test_no_circle_of_imports_between_files() -> None:
    assert measure.circles(FOUND) == []


def test_no_name_stands_for_two_things() -> None:
    assert measure.used_twice(FOUND) == []


def test_modules_behind_a_facade_are_private() -> None:
    inside = [path for path in files() if len(path.relative_to(PACKAGE).parts) > 1]
    assert [place(path) for path in inside if not path.name.startswith("_")] == []


@pytest.mark.parametrize("name", facades())
def test_a_facade_lists_what_it_hands_out(name: str) -> None:
    _, tree = FOUND[name]
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for part in ast.walk(node)
        if isinstance(part, ast.ImportFrom)
        for alias in part.names
    }
    facade = importlib.import_module(name)
    assert set(measure.listed(tree)) - {"__version__"} == typed
    assert set(dir(facade)) >= typed
    docstring = ast.get_docstring(tree)
    assert docstring, f"{name} must say what it is for"


@pytest.mark.parametrize("package", sorted(DOORS))
def test_each_outside_package_has_one_door(package: str) -> None:
    for path in files():
        if any(name.split(".")[0] == package for name in imports(path)):
            assert any(place(path).startswith(door) for door in DOORS[package]), f"{place(path)} imports {package}"


@pytest.mark.parametrize("name", sorted(LIGHT))
def test_light_rooms_do_not_import_torch(name: str) -> None:
    for dotted, (path, _) in FOUND.items():
        if measure.room(dotted) == name:
            found = {entry.split(".")[0] for entry in imports(path, at_import_only=True)} & HEAVY
            # a controller's own door may import its library: the registry imports that file when it is asked for
            assert not found or place(path) in set().union(*DOORS.values()), f"{path}: {found}"


def test_the_walk_sees_imports_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "sample.py"
    source.write_text("import a\ndef f():\n    from b import c\n")
    assert sorted(imports(source)) == ["a", "b.c"]
    assert sorted(imports(source, at_import_only=True)) == ["a"]


def test_the_numbers_of_the_house() -> None:
    numbers = measure.table(ROOT)
    assert numbers["public top-level names"] <= 450
    assert numbers["longest function, lines"] <= 70
    assert numbers["longest class, lines"] <= 250
    assert numbers["comments per 100 lines"] >= 7
    assert numbers["comments that are fragments"] == 0
    assert numbers["people and invented words in text"] == 0


# Where two files of the way do not import each other, both import the values or the protocol that they exchange.
EXCHANGED = {
    "evomerge.recipe",
    "evomerge.candidate",
    "evomerge.controllers._protocol",
    "evomerge.workers._pool_protocol",
}


def test_the_way_of_a_candidate_is_the_one_that_the_code_takes() -> None:
    """A file of the list in docs/architecture.md is imported by one before it, or both import what they exchange."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```way\n(.*?)```", text, re.S)
    assert block, "docs/architecture.md shows a candidate's way as a block named `way`"
    way = [line.split(".py")[0].replace("/", ".") for line in block.group(1).splitlines()]
    assert len(way) <= 14
    assert [name for name in way if name not in FOUND] == []
    leads = {name: measure.leads_to(FOUND, name) for name in way}
    for index, name in enumerate(way[1:], start=1):
        earlier = way[:index]
        assert any(name in leads[one] or leads[one] & leads[name] & EXCHANGED for one in earlier), name
