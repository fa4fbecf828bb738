"""The floors and the doors of the house, read from the import statements.

A module imports only from lower floors, neighbours on a floor do not import each other, and each outside package
has one door. See CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "evomerge"

# Lowest first. A name is a module or a package directly below evomerge/.
FLOORS = [
    ["errors", "references", "tokenizer", "markup", "options", "version", "yaml_text"],
    ["merge", "irt", "pareto", "stats"],
    ["metrics"],
    ["recipe", "space", "candidate", "objectives"],
    ["controllers", "weights", "scoring", "archive"],
    ["run_config"],
    ["pool"],
    ["loop"],
    ["searchfile", "mergekit_evolve"],
    ["results"],
    ["tracking"],
    ["run", "figures", "report"],
    ["cli"],
]
# On one floor, yet one may read the other: space and candidate are made of recipes, and irt compares with normal quantiles.
ALLOWED_NEIGHBOURS = {
    ("options", "errors"),
    ("irt", "stats"),
    ("space", "recipe"),
    ("candidate", "recipe"),
    ("objectives", "candidate"),
}

# outside package -> the only places that import it, relative to evomerge/
DOORS = {
    "ray": {"pool/ray_pool.py", "pool/ray_jobs.py"},
    "lm_eval": {"scoring/harness.py"},
    "cma": {"controllers/cma_es.py"},
    "optuna": {"controllers/optuna_study.py", "results/optuna_storage.py"},
    "transformers": {"weights/"},
    "safetensors": {"weights/"},
    "peft": {"weights/"},
    "huggingface_hub": {"weights/"},
    "mergekit": set(),
    "numba": {"merge/compiled.py"},
    "sqlite3": {"archive", "scoring/answer_cache.py"},
    "altair": {"figures/"},
    "fsspec": {"archive/mirror.py"},
    "vl_convert": {"figures/"},
    "tensorboardX": {"tracking/tensorboard_log.py"},
    "tensorboard": {"tracking/tensorboard_log.py"},
    "wandb": {"tracking/wandb_log.py"},
    "mlflow": {"tracking/mlflow_log.py"},
}
# Read without torch: a laptop that only looks at a run, a driver that only schedules.
LIGHT = [
    "errors",
    "references",
    "tokenizer",
    "markup",
    "options",
    "version",
    "yaml_text",
    "recipe",
    "space",
    "candidate",
    "metrics",
    "objectives",
    "archive",
    "controllers",
    "run_config",
    "loop",
    "searchfile",
    "results",
    "tracking",
    "cli",
]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


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


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(name: str) -> int | None:
    for height, rooms in enumerate(FLOORS):
        if name in rooms:
            return height
    return None


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_lower_floors(path: Path) -> None:
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    height = floor_of(here)
    assert height is not None, (
        f"evomerge/{here} has no floor; put it on one in tests/test_layers.py and CONTRIBUTING.md"
    )
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "evomerge" or len(parts) < 2 or parts[1] == here:
            continue
        other = floor_of(parts[1])
        assert other is not None, f"{path} imports {name}, which has no floor"
        assert other < height or (here, parts[1]) in ALLOWED_NEIGHBOURS, f"{here} must not import {name}"


@pytest.mark.parametrize("package", sorted(DOORS))
def test_each_outside_package_has_one_door(package: str) -> None:
    for path in modules():
        place = str(path.relative_to(PACKAGE))
        if any(name.split(".")[0] == package for name in imports(path)):
            assert any(place.startswith(door) for door in DOORS[package]), f"{place} imports {package}"


@pytest.mark.parametrize("name", LIGHT)
def test_light_rooms_do_not_import_torch(name: str) -> None:
    heavy = {
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
    for path in modules():
        if room(path) == name:
            found = {entry.split(".")[0] for entry in imports(path, at_import_only=True)} & heavy
            # a controller's own door may import its library at import: the registry imports the door when asked
            assert not found or str(path.relative_to(PACKAGE)) in set().union(*DOORS.values()), f"{path}: {found}"


def test_the_walk_sees_imports_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "sample.py"
    source.write_text("import a\ndef f():\n    from b import c\n")
    assert sorted(imports(source)) == ["a", "b.c"]
    assert sorted(imports(source, at_import_only=True)) == ["a"]
