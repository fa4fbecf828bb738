"""Facades: a room's `__init__` lists its API, and the module behind a name is imported when the name is first used.

Looking at a run must not load torch, and `--help` must not load pandas; so no facade imports its modules eagerly.
Editors and type checkers read the imports below `if TYPE_CHECKING`; `lazy_names` reads the same lines, so that a facade
says each name once. (The package lazy_loader does this with a stub file beside each `__init__`.)
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path


def lazy_names(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562) for the names that its type-only imports list.

    Args:
        package: dotted name of the package, its `__name__`.
        file: its `__init__.py`, whose `if TYPE_CHECKING:` block imports every public name from a private module.

    Example:
        >>> import evomerge.pareto as pareto
        >>> __getattr__, __dir__ = lazy_names("evomerge.pareto", pareto.__file__)
        >>> __getattr__("non_dominated").__name__
        'non_dominated'
        >>> "non_dominated" in __dir__()
        True
    """
    home = {
        alias.asname or alias.name: (node.module, alias.name)
        for block in ast.parse(Path(file).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def __getattr__(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = home[name]
        # not kept in the package: a test that replaces the name in its module is then seen here too
        found = getattr(importlib.import_module(module), attribute, None)
        return importlib.import_module(f"{module}.{attribute}") if found is None else found

    return __getattr__, lambda: sorted(home)
