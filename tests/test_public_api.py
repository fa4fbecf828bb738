"""The public names of `evomerge`: what editors and type checkers are told is what is loaded."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import evomerge

TREE = ast.parse(Path(evomerge.__file__).read_text(encoding="utf-8"))


def typed_imports() -> dict[str, str]:
    """Return public name -> 'module.name' that type checkers see, from the imports below TYPE_CHECKING."""
    (block,) = [node for node in TREE.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        found |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_type_checkers_see_every_public_name() -> None:
    assert sorted(typed_imports()) == sorted({*evomerge.__all__} - {"__version__"})


def test_the_list_of_public_names_is_written_out_for_editors() -> None:
    (value,) = [
        node.value for node in TREE.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert ast.literal_eval(value) == sorted(evomerge.__all__)


@pytest.mark.parametrize("name", sorted({*evomerge.__all__} - {"__version__"}))
def test_the_name_is_what_type_checkers_are_told(name: str) -> None:
    module, _, there = typed_imports()[name].rpartition(".")
    if name == "figures":
        assert evomerge.figures is importlib.import_module("evomerge.reports.figures")
        return
    seen = getattr(importlib.import_module(module), there)
    assert getattr(evomerge, name) is seen
    if inspect.isfunction(seen):  # a function without annotations would be Any again
        signature = inspect.signature(inspect.unwrap(seen))
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(part.annotation is not inspect.Parameter.empty for part in signature.parameters.values())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        evomerge.serach  # noqa: B018


def test_a_room_does_not_hide_a_public_name() -> None:
    """Importing a package sets it as an attribute of `evomerge`, which a function of the same name would lose to."""
    rooms = {path.name for path in Path(evomerge.__file__).parent.iterdir()}
    assert rooms.isdisjoint(evomerge.__all__)
